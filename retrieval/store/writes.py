"""The transactions behind ``Journal``: each function is one whole write on a writer's connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from ragstone.errors import Conflict
from retrieval.store import schema
from retrieval.store.dialects import insert_or_ignore
from retrieval.store.queries import head, require_collection, slices, take, tally
from retrieval.store.values import ChunkRow, Committed, DocumentDraft, Step

_documents = schema.documents
_chunks = schema.chunks
_requests = schema.requests

# Built once: building a statement anew costs as much as running it.

_RECALL = select(
    _requests.c.fingerprint,
    _requests.c.seq,
    _requests.c.documents,
    _requests.c.unchanged,
    _requests.c.chunks,
).where(
    _requests.c.collection_id == bindparam("collection"),
    _requests.c.tenant == bindparam("tenant"),
    _requests.c.request_id == bindparam("request"),
)

_STORED = select(_documents.c.id, _documents.c.key, _documents.c.content_hash).where(
    _documents.c.collection_id == bindparam("collection"),
    _documents.c.id.in_(bindparam("ids", expanding=True)),
)

_UPDATE_DOCUMENT = (
    update(_documents)
    .where(_documents.c.key == bindparam("old_key"))
    .values(
        {
            name: bindparam(name)
            for name in ("title", "text", "language", "metadata_json", "content_hash", "seq")
        }
    )
)

_DELETE_DOCUMENTS = delete(_documents).where(_documents.c.key.in_(bindparam("keys", expanding=True)))

_PUT_DOCUMENT = insert(_documents)
_PUT_CHUNK = insert(_chunks)
_RECORD = insert(schema.journal)
_REMEMBER = insert(_requests)

_RETIRE = (
    update(_chunks)
    .where(
        _chunks.c.document_key.in_(bindparam("document_keys", expanding=True)),
        _chunks.c.seq_deleted.is_(None),
    )
    .values(seq_deleted=bindparam("seq"))
    .returning(_chunks.c.key, _chunks.c.chunking)
)

_COUNT_DOCUMENTS = (
    update(schema.collections)
    .where(schema.collections.c.id == bindparam("collection"))
    .values(documents=schema.collections.c.documents + bindparam("change"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who writes: the collection, and the tenant's id for this request with a hash of what it asks."""

    collection_id: int
    tenant: str
    request_id: str | None
    fingerprint: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Placed:
    """A draft with the key of its document's row."""

    key: int
    draft: DocumentDraft


def upsert(
    connection: Connection, request: Request, chunking: str, space: str, drafts: Sequence[DocumentDraft]
) -> Committed:
    """Write the drafts that differ from what is stored. Of two drafts with one id the last one counts."""
    if earlier := _recall(connection, request):
        return earlier
    require_collection(connection, request.collection_id)
    latest = {draft.id: draft for draft in drafts}
    stored = _stored(connection, request.collection_id, list(latest))
    changed = [
        draft
        for draft in latest.values()
        if draft.id not in stored or stored[draft.id][1] != draft.content_hash
    ]
    unchanged = len(latest) - len(changed)
    if changed:
        known = {document_id: key for document_id, (key, _) in stored.items()}
        committed = _write(connection, request, chunking, space, changed, known, unchanged)
    else:
        committed = Committed(seq=head(connection, request.collection_id), unchanged=unchanged)
    _remember(connection, request, committed)
    return committed


def remove(connection: Connection, request: Request, document_ids: Sequence[str]) -> Committed:
    """Delete the documents that exist, with their chunks of every chunking."""
    if earlier := _recall(connection, request):
        return earlier
    require_collection(connection, request.collection_id)
    stored = _stored(connection, request.collection_id, list(dict.fromkeys(document_ids)))
    keys = [key for key, _ in stored.values()]
    if keys:
        previous = head(connection, request.collection_id)
        (seq,) = take(connection, "journal", 1)
        retired = _retire(connection, request.collection_id, keys, seq)
        for part in slices(keys):
            connection.execute(_DELETE_DOCUMENTS, {"keys": part})
        _count_documents(connection, request.collection_id, -len(keys))
        _record(connection, request, seq, documents=len(keys), chunks=0)
        step = Step(seq=seq, deleted=tuple(sorted(key for key, _ in retired)))
        committed = Committed(seq=seq, step=step, previous=previous, documents=len(keys))
    else:
        committed = Committed(seq=head(connection, request.collection_id))
    _remember(connection, request, committed)
    return committed


def _write(
    connection: Connection,
    request: Request,
    chunking: str,
    space: str,
    drafts: Sequence[DocumentDraft],
    known: Mapping[str, int],
    unchanged: int,
) -> Committed:
    previous = head(connection, request.collection_id)
    (seq,) = take(connection, "journal", 1)
    retired = _retire(
        connection, request.collection_id, [known[draft.id] for draft in drafts if draft.id in known], seq
    )
    placed = _put_documents(connection, request.collection_id, seq, drafts, known)
    added = put_chunks(connection, request.collection_id, chunking, seq, placed)
    _put_vectors(connection, space, drafts)
    _record(connection, request, seq, documents=len(drafts), chunks=len(added))
    deleted = sorted(key for key, its_chunking in retired if its_chunking == chunking)
    return Committed(
        seq=seq,
        step=Step(seq=seq, added=tuple(added), deleted=tuple(deleted)),
        previous=previous,
        documents=len(drafts),
        unchanged=unchanged,
        chunks=len(added),
    )


def _stored(connection: Connection, collection_id: int, ids: Sequence[str]) -> dict[str, tuple[int, bytes]]:
    """``id -> (key, content hash)`` of those that exist."""
    return {
        document_id: (key, content_hash)
        for part in slices(ids)
        for document_id, key, content_hash in connection.execute(
            _STORED, {"collection": collection_id, "ids": part}
        )
    }


def _retire(
    connection: Connection, collection_id: int, document_keys: Sequence[int], seq: int
) -> list[tuple[int, str]]:
    """Mark the live chunks of these documents deleted at ``seq``; their keys, each with its chunking.

    Chunks of every chunking go: they were cut from a text that is no longer there.
    """
    retired: list[tuple[int, str]] = []
    for part in slices(document_keys):
        rows = connection.execute(_RETIRE, {"document_keys": part, "seq": seq})
        retired.extend((key, chunking) for key, chunking in rows)
    for chunking, count in Counter(chunking for _, chunking in retired).items():
        tally(connection, collection_id, chunking, -count)
    return retired


def _put_documents(
    connection: Connection,
    collection_id: int,
    seq: int,
    drafts: Sequence[DocumentDraft],
    known: Mapping[str, int],
) -> list[Placed]:
    """Insert the documents that are new, overwrite the others in place."""
    new = [draft for draft in drafts if draft.id not in known]
    placed = [Placed(known[draft.id], draft) for draft in drafts if draft.id in known]
    if placed:
        rows = [{"old_key": row.key, **_document(row.draft, seq)} for row in placed]
        connection.execute(_UPDATE_DOCUMENT, rows)
    if new:
        entered = [
            Placed(key, draft) for key, draft in zip(take(connection, "document", len(new)), new, strict=True)
        ]
        rows = [
            {"key": row.key, "collection_id": collection_id, "id": row.draft.id, **_document(row.draft, seq)}
            for row in entered
        ]
        connection.execute(_PUT_DOCUMENT, rows)
        _count_documents(connection, collection_id, len(new))
        placed += entered
    return placed


def _document(draft: DocumentDraft, seq: int) -> dict[str, Any]:
    return {
        "title": draft.title,
        "text": draft.text,
        "language": draft.language,
        "metadata_json": draft.metadata_json,
        "content_hash": draft.content_hash,
        "seq": seq,
    }


def put_chunks(
    connection: Connection, collection_id: int, chunking: str, seq: int, placed: Sequence[Placed]
) -> list[ChunkRow]:
    """Insert the drafts' chunks at ``seq``; the rows, as a follower sees them, by ascending key."""
    count = sum(len(row.draft.chunks) for row in placed)
    if not count:
        return []
    keys = iter(take(connection, "chunk", count))
    rows: list[dict[str, Any]] = []
    added: list[ChunkRow] = []
    for document in placed:
        draft = document.draft
        for chunk in draft.chunks:
            seen: dict[str, Any] = {
                "key": next(keys),
                "chunk_id": chunk.chunk_id,
                "document_id": draft.id,
                "ordinal": chunk.ordinal,
                "start": chunk.start,
                "end": chunk.end,
                "text": chunk.text,
                "text_hash": chunk.text_hash,
                "title": draft.title,
                "metadata_json": draft.metadata_json,
                "language": draft.language,
            }
            added.append(ChunkRow(**seen, context=draft.text[chunk.context_start : chunk.context_end]))
            seen["collection_id"] = collection_id
            seen["chunking"] = chunking
            seen["document_key"] = document.key
            seen["context_start"] = chunk.context_start
            seen["context_end"] = chunk.context_end
            seen["seq_added"] = seq
            rows.append(seen)
    connection.execute(_PUT_CHUNK, rows)
    tally(connection, collection_id, chunking, count)
    return added


def _put_vectors(connection: Connection, space: str, drafts: Iterable[DocumentDraft]) -> None:
    vectors = {
        chunk.text_hash: chunk.vector
        for draft in drafts
        for chunk in draft.chunks
        if chunk.vector is not None
    }
    rows = [
        {"space": space, "text_hash": text_hash, "vector": vector} for text_hash, vector in vectors.items()
    ]
    if rows:
        connection.execute(insert_or_ignore(connection, schema.embeddings), rows)


def _count_documents(connection: Connection, collection_id: int, change: int) -> None:
    connection.execute(_COUNT_DOCUMENTS, {"collection": collection_id, "change": change})


def _record(connection: Connection, request: Request, seq: int, *, documents: int, chunks: int) -> None:
    row = {
        "seq": seq,
        "collection_id": request.collection_id,
        "documents": documents,
        "chunks": chunks,
        "created_at": request.now,
    }
    connection.execute(_RECORD, row)


def _recall(connection: Connection, request: Request) -> Committed | None:
    """What this request id was answered with before. Raises Conflict when it asked something else."""
    if request.request_id is None:
        return None
    same = {
        "collection": request.collection_id,
        "tenant": request.tenant,
        "request": request.request_id,
    }
    row = connection.execute(_RECALL, same).first()
    if row is None:
        return None
    if row.fingerprint != request.fingerprint:
        raise Conflict(f"request id {request.request_id} was used for a different request")
    return Committed(
        seq=row.seq, documents=row.documents, unchanged=row.unchanged, chunks=row.chunks, replayed=True
    )


def _remember(connection: Connection, request: Request, committed: Committed) -> None:
    if request.request_id is None:
        return
    row = {
        "collection_id": request.collection_id,
        "tenant": request.tenant,
        "request_id": request.request_id,
        "fingerprint": request.fingerprint,
        "seq": committed.seq,
        "documents": committed.documents,
        "unchanged": committed.unchanged,
        "chunks": committed.chunks,
        "created_at": request.now,
    }
    connection.execute(_REMEMBER, row)

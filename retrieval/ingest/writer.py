"""The writer: documents -> one durable transaction -> the applier."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from indexes.filters import parse
from indexes.lexical.analysis import detect_language
from indexes.metadata import encode_metadata
from ragstone.errors import FieldViolation, InvalidArgument
from ragstone.types import Document, Wait, WriteResult
from retrieval.config import Limits
from retrieval.ingest.chunking import chunk_id
from retrieval.ingest.cutting import PassageCutter
from retrieval.ingest.disk import DiskGuard
from retrieval.store.documents import Documents
from retrieval.store.journal import ChunkDraft, Committed, DocumentDraft, Journal
from retrieval.versions.applier import Offer
from retrieval.versions.passages import vector_hash
from retrieval.versions.snapshots import OpenCollection, Snapshot
from retrieval.versions.vectors import check_vector

T = TypeVar("T")


class Writer:
    """Upserts and deletes, for all collections."""

    def __init__(self, *, journal: Journal, documents: Documents, limits: Limits, disk: DiskGuard) -> None:
        self._journal = journal
        self._disk = disk
        self._documents = documents
        self._limits = limits
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chunk")

    async def upsert(
        self,
        collection: OpenCollection,
        documents: Sequence[Document],
        *,
        request_id: str,
        wait: Wait,
        tenant: str,
    ) -> WriteResult:
        """Add or replace documents. Durable when this returns; with ``wait=INDEXED`` also searchable.

        Raises InvalidArgument naming every wrong field (nothing is stored then), Conflict when
        ``request_id`` was used for another request, Overloaded when the disk is nearly full.
        """
        self._disk.require_room()
        with collection.lease() as snapshot:
            drafts = await self._off_loop(partial(self._prepare, snapshot, documents))
            return await self._write(
                collection,
                snapshot,
                wait,
                partial(
                    self._journal.upsert,
                    snapshot.collection.id,
                    snapshot.version.chunking,
                    snapshot.version.space,
                    drafts,
                    request_id=request_id,
                    tenant=tenant,
                    fingerprint=_fingerprint("upsert", [draft.content_hash for draft in drafts]),
                ),
                {
                    chunk.text_hash: chunk.vector
                    for draft in drafts
                    for chunk in draft.chunks
                    if chunk.vector is not None
                },
            )

    async def delete(
        self,
        collection: OpenCollection,
        *,
        ids: Sequence[str],
        filter: str,
        request_id: str,
        wait: Wait,
        tenant: str,
    ) -> WriteResult:
        """Delete documents by id, or all whose metadata match ``filter``. Unknown ids are no error.

        Raises InvalidFilter with its column, Conflict when ``request_id`` was used for another request.
        """
        with collection.lease() as snapshot:
            doomed = list(ids) or await self._matching(snapshot, filter)
            return await self._write(
                collection,
                snapshot,
                wait,
                partial(
                    self._journal.delete,
                    snapshot.collection.id,
                    doomed,
                    request_id=request_id,
                    tenant=tenant,
                    fingerprint=_fingerprint("delete", [filter.encode(), *(i.encode() for i in ids)]),
                ),
                {},
            )

    def close(self) -> None:
        """Stop the chunking thread."""
        self._pool.shutdown()

    # -- the transaction -------------------------------------------------------------------------

    async def _write(
        self,
        collection: OpenCollection,
        snapshot: Snapshot,
        wait: Wait,
        commit: Callable[[], Awaitable[Committed]],
        vectors: dict[bytes, bytes],
    ) -> WriteResult:
        await snapshot.applier.room()
        # A caller that leaves between commit and offer would leave a gap in what the applier sees.
        committed = await asyncio.shield(
            asyncio.create_task(self._commit_and_offer(collection, snapshot, commit, vectors))
        )
        if wait is Wait.INDEXED:
            await collection.wait_for(committed.seq)
        return WriteResult(
            seq=committed.seq,
            documents=committed.documents,
            unchanged=committed.unchanged,
            chunks=committed.chunks,
        )

    @staticmethod
    async def _commit_and_offer(
        collection: OpenCollection,
        snapshot: Snapshot,
        commit: Callable[[], Awaitable[Committed]],
        vectors: dict[bytes, bytes],
    ) -> Committed:
        committed = await commit()
        if committed.step is not None:
            chunking, space = snapshot.version.chunking, snapshot.version.space
            collection.offer(
                Offer(
                    step=committed.step,
                    previous=committed.previous,
                    chunking=chunking,
                    space=space,
                    vectors=vectors,
                )
            )
        return committed

    async def _matching(self, snapshot: Snapshot, expression: str) -> Sequence[str]:
        parsed = parse(expression)
        if parsed is None:
            raise InvalidArgument.at("ids", "give ids or a filter; neither would delete everything")
        # The filter is answered by the indexes, so they must first see all that was written before.
        await snapshot.applier.wait_for(await self._journal.head(snapshot.collection.id))
        return await self._documents.ids_of_chunks(list(snapshot.parts.metadata.select(parsed)))

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    # -- preparation: everything that could fail later fails here ----------------------------------

    def _prepare(self, snapshot: Snapshot, documents: Sequence[Document]) -> list[DocumentDraft]:
        drafts: list[DocumentDraft] = []
        violations: list[FieldViolation] = []
        drafter = Drafter(snapshot, self._limits)
        for i, document in enumerate(documents):
            try:
                drafts.append(drafter.draft(document))
            except InvalidArgument as exc:
                violations += exc.within(f"documents[{i}]").violations
        if violations:
            raise InvalidArgument(
                "; ".join(f"{v.field}: {v.description}" for v in violations[:10]),
                violations=tuple(violations),
            )
        return drafts


class Drafter:
    """Turns documents into drafts for one version. Pure but for the models it asks."""

    def __init__(self, snapshot: Snapshot, limits: Limits) -> None:
        recipe = snapshot.parts.recipe
        self._limits = limits
        self._space = snapshot.parts.embedder.space
        self._takes_vectors = recipe.embedder.kind == "precomputed"
        self._cosine = recipe.index.metric == "cosine"
        self._chunking = snapshot.version.chunking
        self._language = str(recipe.lexical.options.get("language", "auto"))
        self._cutter = PassageCutter(recipe, snapshot.parts.embedder, self._chunking)

    def draft(self, document: Document) -> DocumentDraft:
        """The document, checked and chunked.

        Raises InvalidArgument naming the field, relative to the document.
        """
        vector = self._vector(document)
        if not document.text.strip() and vector is None:
            raise InvalidArgument.at("text", "is empty")
        for name in ("id", "title", "text"):
            if "\x00" in getattr(document, name):
                raise InvalidArgument.at(name, "contains a NUL character, which no database stores as text")
        size = len(document.text.encode())
        if size > self._limits.max_document_bytes:
            raise InvalidArgument.at(
                "text", f"has {size:,} bytes; at most {self._limits.max_document_bytes:,} are accepted"
            )
        metadata = encode_metadata(document.metadata)
        language = document.language or self._detected(document)
        chunks = (
            [self._whole(document, vector)]
            if vector is not None
            else self._cutter.cut(document.id, document.title, document.text)
        )
        return DocumentDraft(
            id=document.id,
            title=document.title,
            text=document.text,
            language=language,
            metadata_json=metadata,
            content_hash=_hash(document.id, document.title, document.text, language, metadata, vector or b""),
            chunks=chunks,
        )

    def _detected(self, document: Document) -> str:
        return detect_language(document.text) if self._language == "auto" else self._language

    def _whole(self, document: Document, vector: bytes) -> ChunkDraft:
        end = len(document.text)
        return ChunkDraft(
            chunk_id=chunk_id(document.id, 0, document.text, self._chunking),
            ordinal=0,
            start=0,
            end=end,
            context_start=0,
            context_end=end,
            text=document.text,
            text_hash=vector_hash(vector),
            vector=vector,
        )

    def _vector(self, document: Document) -> bytes | None:
        if document.vector is None:
            if self._takes_vectors:
                raise InvalidArgument.at(
                    "vector",
                    f"is missing: clients of this collection bring their own, of {self._space.name!r}",
                )
            return None
        if not self._takes_vectors:
            raise InvalidArgument.at(
                "vector",
                f"is not accepted here: the collection embeds texts itself, with {self._space.name!r}",
            )
        return check_vector(document.vector, self._space.dim, cosine=self._cosine).tobytes()


def _fingerprint(operation: str, parts: Sequence[bytes]) -> str:
    return _hash(operation, *parts).hex()


def _hash(*parts: str | bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()

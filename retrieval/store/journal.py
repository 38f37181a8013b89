"""The journal: every write of a collection in one order, and how a follower reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, exists, select, update

from retrieval.store import queries, schema, writes
from retrieval.store.database import Database
from retrieval.store.values import (
    ChunkDraft,
    ChunkRow,
    Committed,
    DocumentDraft,
    Step,
    utc_now,
)

__all__ = ["ChunkDraft", "ChunkRow", "Committed", "DocumentDraft", "Journal", "Step"]

PRUNE_ROWS: Final = 5000
"""Rows that one transaction of ``prune`` removes: other writes get their turn in between."""

_chunks = schema.chunks.c
_counts = schema.chunk_counts.c
_documents = schema.documents.c


class Journal:
    """Writes documents, and tells followers what changed."""

    def __init__(self, db: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._db = db
        self._clock = clock

    async def upsert(
        self,
        collection_id: int,
        chunking: str,
        space: str,
        drafts: Sequence[DocumentDraft],
        *,
        request_id: str | None,
        tenant: str,
        fingerprint: str,
    ) -> Committed:
        """Write documents with their chunks of ``chunking`` and the vectors of ``space`` that are given.

        A draft whose content hash is stored already costs nothing and counts as unchanged; a changed one
        replaces its document and all chunks of it. Of two drafts with one id the last one counts. The same
        ``request_id`` of the same tenant is answered with the first result.

        Raises Conflict when ``request_id`` was used with another ``fingerprint``, NotFound, and what
        ``Database.write`` raises.
        """
        request = self._request(collection_id, tenant, request_id, fingerprint)
        return await self._db.write(lambda c: writes.upsert(c, request, chunking, space, drafts))

    async def delete(
        self,
        collection_id: int,
        document_ids: Sequence[str],
        *,
        request_id: str | None,
        tenant: str,
        fingerprint: str,
    ) -> Committed:
        """Delete documents and all their chunks; ids that do not exist are passed over.

        Raises as ``upsert`` does.
        """
        request = self._request(collection_id, tenant, request_id, fingerprint)
        return await self._db.write(lambda c: writes.remove(c, request, document_ids))

    async def read(
        self,
        collection_id: int,
        chunking: str,
        *,
        after: int,
        upto: int | None = None,
        limit_chunks: int = 2000,
    ) -> list[Step]:
        """What a follower of ``chunking`` that has applied ``after`` must do next, in journal order.

        Steps tell the net effect as of now: a chunk that was added and deleted since is not in ``added``,
        though its key may be in ``deleted``. A follower may stop after any step and go on from its ``seq``.
        Once the answer is empty it holds exactly the live chunks. The last step brings it to ``upto`` (or the
        head) even when it has nothing to do. After about ``limit_chunks`` changes the answer ends, never
        inside a write: call again.
        """
        return await self._db.read(
            lambda c: _read(c, collection_id, chunking, after=after, upto=upto, limit=limit_chunks)
        )

    async def head(self, collection_id: int) -> int:
        """The last position of a collection; 0 before the first write."""
        return await self._db.read(lambda c: queries.head(c, collection_id))

    async def heads(self, collection_ids: Sequence[int]) -> dict[int, int]:
        """The last position of each of some collections."""
        return await self._db.read(lambda c: {key: queries.head(c, key) for key in collection_ids})

    async def prune(self, collection_id: int, chunking: str, upto_seq: int) -> int:
        """Forget chunks deleted at or before ``upto_seq``; how many.

        Call it only with a position that all followers of ``chunking`` have made durable: one that is
        further behind would never hear of these deletions. Vectors stay, see ``Embeddings.sweep``.
        """
        gone = (
            (_chunks.collection_id == collection_id)
            & (_chunks.chunking == chunking)
            & (_chunks.seq_deleted <= upto_seq)
        )
        mark = (
            update(schema.chunk_counts)
            .where(
                _counts.collection_id == collection_id,
                _counts.chunking == chunking,
                _counts.pruned_seq < upto_seq,
            )
            .values(pruned_seq=upto_seq)
        )
        some = delete(schema.chunks).where(_chunks.key.in_(select(_chunks.key).where(gone).limit(PRUNE_ROWS)))
        if not await self._db.read(lambda c: c.execute(select(exists().where(gone))).scalar()):
            return 0
        # Before the first of them goes: an index that is further behind must not take the rest for all.
        await self._db.write(lambda c: c.execute(mark).close())
        total = 0
        while count := await self._db.write(lambda c: c.execute(some).rowcount):
            total += count
        return total

    async def forget_requests(self, before: datetime) -> int:
        """Forget the request ids of writes made before ``before``; how many. They may be used again."""
        old = delete(schema.requests).where(schema.requests.c.created_at < before)
        return await self._db.write(lambda c: c.execute(old).rowcount)

    def _request(
        self, collection_id: int, tenant: str, request_id: str | None, fingerprint: str
    ) -> writes.Request:
        return writes.Request(
            collection_id=collection_id,
            tenant=tenant,
            request_id=request_id,
            fingerprint=fingerprint,
            now=self._clock(),
        )


def _read(
    connection: Connection, collection_id: int, chunking: str, *, after: int, upto: int | None, limit: int
) -> list[Step]:
    head = queries.head(connection, collection_id)
    end = head if upto is None else min(upto, head)
    if end <= after:
        return []
    mine = (_chunks.collection_id == collection_id) & (_chunks.chunking == chunking)
    entered = mine & (_chunks.seq_added > after) & _chunks.seq_deleted.is_(None)
    left = mine & (_chunks.seq_deleted > after) & (_chunks.seq_added <= after)
    for column, changes in ((_chunks.seq_added, entered), (_chunks.seq_deleted, left)):
        end = min(end, _position(connection, column, changes, limit) or end)

    added: defaultdict[int, list[ChunkRow]] = defaultdict(list)
    for seq, row in _added(connection, entered & (_chunks.seq_added <= end)):
        added[seq].append(row)
    deleted: defaultdict[int, list[int]] = defaultdict(list)
    keys = select(_chunks.seq_deleted, _chunks.key).where(left, _chunks.seq_deleted <= end)
    for seq, key in connection.execute(keys.order_by(_chunks.seq_deleted, _chunks.key)):
        deleted[seq].append(key)

    seqs = sorted(added.keys() | deleted.keys() | {end})
    return [Step(seq=seq, added=tuple(added[seq]), deleted=tuple(deleted[seq])) for seq in seqs]


def _position(
    connection: Connection, column: ColumnElement[int], changes: ColumnElement[bool], limit: int
) -> int | None:
    """Where the ``limit``-th of ``changes`` stands in the journal; None when there are fewer."""
    nth = select(column).where(changes).order_by(column).offset(limit - 1).limit(1)
    return connection.execute(nth).scalar()


def _added(connection: Connection, entered: ColumnElement[bool]) -> Iterator[tuple[int, ChunkRow]]:
    """The chunks of ``entered``, each with its position, in order."""
    columns = (
        *queries.CHUNK_COLUMNS,
        _chunks.seq_added,
        _chunks.document_key,
        _chunks.context_start,
        _chunks.context_end,
    )
    rows = connection.execute(select(*columns).where(entered).order_by(_chunks.seq_added, _chunks.key)).all()
    for part in queries.slices(rows):
        texts = _texts(connection, part)
        for row in part:
            context = texts[row.document_key][row.context_start : row.context_end]
            yield row.seq_added, queries.chunk_row(row, context)


def _texts(connection: Connection, rows: Sequence[queries.AnyRow]) -> dict[int, str]:
    """The texts of the rows' documents, by key.

    The rows are live and this is still their snapshot, so these are the texts that they were cut from.
    """
    keys = {row.document_key for row in rows}
    found = connection.execute(select(_documents.key, _documents.text).where(_documents.key.in_(keys)))
    return {row.key: row.text for row in found}

"""Chunks of a further chunking: cut from documents that a write has cut otherwise, or before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, exists, func, select, tuple_

from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.documents import DOCUMENT, document_row
from retrieval.store.queries import slices
from retrieval.store.values import ChunkDraft, DocumentDraft, DocumentRow
from retrieval.store.writes import Placed, put_chunks

FORGET_ROWS: Final = 5000
"""Rows that one transaction of ``forget`` removes: other writes get their turn in between."""

_documents = schema.documents.c
_chunks = schema.chunks.c
_counts = schema.chunk_counts.c


class Chunks:
    """The chunks of each chunking of a collection."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def uncut(
        self, collection_id: int, chunking: str, *, after: tuple[int, int], upto: int, limit: int
    ) -> Sequence[DocumentRow]:
        """At most ``limit`` documents written at or before ``upto`` that have no chunks of ``chunking``.

        They come in the order of the journal; ``after`` is ``(seq, key)`` of the last one of the page before.
        """
        page = (
            DOCUMENT.where(
                _documents.collection_id == collection_id,
                tuple_(_documents.seq, _documents.key) > after,
                _documents.seq <= upto,
                ~_cut(chunking),
            )
            .order_by(_documents.seq, _documents.key)
            .limit(limit)
        )
        return await self._db.read(lambda c: [document_row(row) for row in c.execute(page)])

    async def add(
        self, collection_id: int, chunking: str, cuts: Sequence[tuple[DocumentRow, Sequence[ChunkDraft]]]
    ) -> int:
        """Store the chunks of documents, each at its document's position in the journal; how many.

        A document that was changed, deleted or cut meanwhile is passed over: whoever did it sees to it.
        """

        def work(connection: Connection) -> int:
            fresh: defaultdict[int, list[Placed]] = defaultdict(list)
            for part in slices(cuts):
                current = select(_documents.key, _documents.seq).where(
                    _documents.key.in_([row.key for row, _ in part]), ~_cut(chunking)
                )
                there = {(key, seq) for key, seq in connection.execute(current)}
                for row, chunks in part:
                    if (row.key, row.seq) in there:
                        fresh[row.seq].append(Placed(row.key, _draft(row, chunks)))
            return sum(
                len(put_chunks(connection, collection_id, chunking, seq, placed))
                for seq, placed in sorted(fresh.items())
            )

        return await self._db.write(work)

    async def live(self, collection_id: int, chunking: str) -> int:
        """How many live chunks of ``chunking`` there are."""
        counted = select(_counts.live).where(
            _counts.collection_id == collection_id, _counts.chunking == chunking
        )
        return await self._db.read(lambda c: c.execute(counted).scalar()) or 0

    async def live_at(self, collection_id: int, chunking: str, seqs: Sequence[int]) -> list[int]:
        """How many chunks of ``chunking`` were live at each of some positions in the journal.

        That many a follower holds that has kept up until there; one that reads of the past misses what has
        gone since.
        """
        mine = (_chunks.collection_id == collection_id) & (_chunks.chunking == chunking)
        live = select(_counts.live).where(
            _counts.collection_id == collection_id, _counts.chunking == chunking
        )

        def work(connection: Connection) -> list[int]:
            now = connection.execute(live).scalar() or 0
            return [now - came(connection, seq) + went(connection, seq) for seq in seqs]

        def came(connection: Connection, seq: int) -> int:
            later = mine & _chunks.seq_deleted.is_(None) & (_chunks.seq_added > seq)
            return connection.execute(select(func.count()).where(later)).scalar_one()

        def went(connection: Connection, seq: int) -> int:
            gone = mine & (_chunks.seq_deleted > seq) & (_chunks.seq_added <= seq)
            return connection.execute(select(func.count()).where(gone)).scalar_one()

        return await self._db.read(work)

    async def forget(self, collection_id: int, chunking: str) -> int:
        """Remove all chunks of a chunking that no version of the collection uses any more; how many."""
        mine = (_chunks.collection_id == collection_id) & (_chunks.chunking == chunking)
        keys = select(_chunks.key).where(mine).limit(FORGET_ROWS)
        some = delete(schema.chunks).where(_chunks.key.in_(keys))
        total = 0
        while count := await self._db.write(lambda c: c.execute(some).rowcount):
            total += count
        count_row = delete(schema.chunk_counts).where(
            _counts.collection_id == collection_id, _counts.chunking == chunking
        )
        await self._db.write(lambda c: c.execute(count_row).close())
        return total


def _cut(chunking: str) -> ColumnElement[bool]:
    return exists().where(
        _chunks.document_key == _documents.key,
        _chunks.seq_deleted.is_(None),
        _chunks.chunking == chunking,
    )


def _draft(row: DocumentRow, chunks: Sequence[ChunkDraft]) -> DocumentDraft:
    return DocumentDraft(
        id=row.id,
        title=row.title,
        text=row.text,
        language=row.language,
        metadata_json=row.metadata_json,
        content_hash=row.content_hash,
        chunks=chunks,
    )

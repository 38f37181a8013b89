"""Reading documents and chunks: by id, by key, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, or_, select, tuple_

from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.queries import CHUNK_COLUMNS, AnyRow, chunk_row, slices
from retrieval.store.values import ChunkMetadata, ChunkRow, DocumentRow

_documents = schema.documents.c
_chunks = schema.chunks.c

DOCUMENT = select(
    _documents.key,
    _documents.id,
    _documents.title,
    _documents.text,
    _documents.language,
    _documents.metadata_json,
    _documents.content_hash,
    _documents.seq,
)

_CHUNKS = select(*CHUNK_COLUMNS).where(_chunks.key.in_(bindparam("keys", expanding=True)))
"""Built once: it runs for every search."""


class Documents:
    """The current documents, and chunks by key."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, collection_id: int, document_id: str) -> DocumentRow | None:
        """One document, or None."""
        return (await self.get_many(collection_id, [document_id])).get(document_id)

    async def get_many(self, collection_id: int, ids: Sequence[str]) -> dict[str, DocumentRow]:
        """Those of ``ids`` that exist, by id."""

        def work(connection: Connection) -> dict[str, DocumentRow]:
            return {
                row.id: document_row(row)
                for part in slices(ids)
                for row in connection.execute(
                    DOCUMENT.where(_documents.collection_id == collection_id, _documents.id.in_(part))
                )
            }

        return await self._db.read(work)

    async def list(self, collection_id: int, *, after_id: str, limit: int) -> list[DocumentRow]:
        """At most ``limit`` documents whose ids follow ``after_id``, in the database's order of ids."""
        page = (
            DOCUMENT.where(_documents.collection_id == collection_id, _documents.id > after_id)
            .order_by(_documents.id)
            .limit(limit)
        )
        return await self._db.read(lambda c: [document_row(row) for row in c.execute(page)])

    async def sample(self, collection_id: int, *, limit: int) -> Sequence[DocumentRow]:
        """At most ``limit`` documents, spread evenly over their keys."""
        mine = _documents.collection_id == collection_id
        ends = select(func.min(_documents.key), func.max(_documents.key)).where(mine)

        def work(connection: Connection) -> Sequence[DocumentRow]:
            first, last = connection.execute(ends).one()
            if first is None:
                return []
            starts = _spread(first, last, limit)
            following = DOCUMENT.where(mine).order_by(_documents.key).limit(1)
            rows = [connection.execute(following.where(_documents.key >= start)).one() for start in starts]
            return tuple({row.key: document_row(row) for row in rows}.values())

        return await self._db.read(work)

    async def chunks(self, keys: Sequence[int]) -> Mapping[int, ChunkRow]:
        """Chunks by key, without ``context``; deleted ones too until they are pruned."""

        def work(connection: Connection) -> dict[int, ChunkRow]:
            return {
                row[0]: chunk_row(row)
                for part in slices(keys)
                for row in connection.execute(_CHUNKS, {"keys": part}).all()
            }

        return await self._db.read(work)

    async def ids_of_chunks(self, keys: Sequence[int]) -> Sequence[str]:
        """The ids of the documents that these chunks belong to, each once, sorted."""

        def work(connection: Connection) -> set[str]:
            ids = select(_chunks.document_id).distinct()
            return {
                document_id
                for part in slices(keys)
                for document_id in connection.execute(ids.where(_chunks.key.in_(part))).scalars()
            }

        return sorted(await self._db.read(work))

    async def sample_chunks(self, collection_id: int, chunking: str, *, count: int) -> Sequence[ChunkRow]:
        """At most ``count`` live chunks, without ``context``, spread over the whole of the journal."""
        live = (
            (_chunks.collection_id == collection_id)
            & (_chunks.chunking == chunking)
            & _chunks.seq_deleted.is_(None)
        )
        ends = select(func.min(_chunks.key), func.max(_chunks.key)).where(live)
        near = select(_chunks.key).where(live).order_by(_chunks.key).limit(1)

        def keys(connection: Connection) -> list[int]:
            first, last = connection.execute(ends).one()
            if first is None:
                return []
            starts = _spread(first, last, count)
            found = (connection.execute(near.where(_chunks.key >= start)).scalar_one() for start in starts)
            return list(dict.fromkeys(found))

        return list((await self.chunks(await self._db.read(keys))).values())

    async def sample_texts(self, collection_id: int, chunking: str, *, count: int) -> Sequence[str]:
        """The texts of at most ``count`` live chunks, spread over the whole of the journal."""
        return [row.text for row in await self.sample_chunks(collection_id, chunking, count=count)]

    async def all_metadata(
        self, collection_id: int, chunking: str, *, upto_seq: int, batch: int = 10_000
    ) -> AsyncIterator[Sequence[ChunkMetadata]]:
        """Every chunk that was live at ``upto_seq``, in batches by journal position.

        Writes may go on meanwhile; pruning beyond ``upto_seq`` may not.
        """
        position = (0, 0)
        while True:
            page = _live_after(collection_id, chunking, upto_seq, position).limit(batch)
            rows = await self._db.read(partial(_all, page))
            if not rows:
                return
            yield [
                ChunkMetadata(
                    key=row.key,
                    document_id=row.document_id,
                    language=row.language,
                    metadata_json=row.metadata_json,
                )
                for row in rows
            ]
            position = (rows[-1].seq_added, rows[-1].key)


def _spread(first: int, last: int, count: int) -> Sequence[int]:
    """At most ``count`` of the numbers from ``first`` to ``last``, both among them, evenly."""
    return sorted({first + (last - first) * i // max(1, count - 1) for i in range(count)})


def _all(page: Select[*tuple[Any, ...]], connection: Connection) -> Sequence[AnyRow]:
    return connection.execute(page).all()


def _live_after(
    collection_id: int, chunking: str, upto_seq: int, position: tuple[int, int]
) -> Select[int, int, str, str, str]:
    return (
        select(_chunks.seq_added, _chunks.key, _chunks.document_id, _chunks.language, _chunks.metadata_json)
        .where(
            _chunks.collection_id == collection_id,
            _chunks.chunking == chunking,
            _chunks.seq_added <= upto_seq,
            or_(_chunks.seq_deleted.is_(None), _chunks.seq_deleted > upto_seq),
            tuple_(_chunks.seq_added, _chunks.key) > position,
        )
        .order_by(_chunks.seq_added, _chunks.key)
    )


def document_row(row: AnyRow) -> DocumentRow:
    """The value of a row of ``DOCUMENT``."""
    return DocumentRow(
        key=row.key,
        id=row.id,
        title=row.title,
        text=row.text,
        language=row.language,
        metadata_json=row.metadata_json,
        content_hash=row.content_hash,
        seq=row.seq,
    )

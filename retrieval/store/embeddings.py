"""Content-addressed vectors: ``(space, text hash) -> float32``. Identical text is never embedded twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, exists, func, select, tuple_

from ragstone.errors import CorruptIndex, InvalidArgument
from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.dialects import insert_or_ignore
from retrieval.store.queries import slices
from retrieval.store.values import EmbeddedText, MissingEmbedding

_embeddings = schema.embeddings.c
_chunks = schema.chunks.c

LITTLE_ENDIAN: Final = np.dtype("<f4")
FORGET_ROWS: Final = 5000
"""Rows that one transaction of ``forget`` removes: other writes get their turn in between."""


class Embeddings:
    """Vectors of all spaces, shared by all collections."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get_many(
        self, space: str, hashes: Sequence[bytes], dim: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The vectors of ``hashes``, float32 ``(n, dim)``, and which rows are missing, bool ``(n,)``.

        Missing rows are zero. Raises CorruptIndex when a stored vector is not of ``dim``.
        """

        def work(connection: Connection) -> dict[bytes, bytes]:
            columns = select(_embeddings.text_hash, _embeddings.vector).where(_embeddings.space == space)
            return {
                text_hash: vector
                for part in slices(hashes)
                for text_hash, vector in connection.execute(columns.where(_embeddings.text_hash.in_(part)))
            }

        return _matrix(await self._db.read(work), hashes, dim)

    async def texts(self, space: str, *, limit: int) -> list[EmbeddedText]:
        """At most ``limit`` stored texts that have a vector in ``space``, the same ones each time."""
        of_space = _embeddings.space == space
        some = (
            select(_chunks.title, _chunks.text, _chunks.text_hash)
            .where(
                exists().where(of_space),
                exists().where(of_space, _embeddings.text_hash == _chunks.text_hash),
            )
            .order_by(_chunks.key)
            .limit(limit)
        )
        rows = await self._db.read(lambda c: c.execute(some).all())
        return [EmbeddedText(title=row.title, text=row.text, text_hash=row.text_hash) for row in rows]

    async def put_many(self, space: str, hashes: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Store ``vectors``, float32 ``(n, dim)``, of ``hashes``; what is stored already stays as it is.

        Raises InvalidArgument when the two differ in length, and what ``Database.write`` raises.
        """
        if vectors.ndim != 2 or len(vectors) != len(hashes):
            raise InvalidArgument.at("vectors", f"shape {vectors.shape} does not fit {len(hashes)} hashes")
        matrix = np.ascontiguousarray(vectors, dtype=LITTLE_ENDIAN)
        rows = [
            {"space": space, "text_hash": text_hash, "vector": vector.tobytes()}
            for text_hash, vector in zip(hashes, matrix, strict=True)
        ]
        if rows:
            await self._db.write(lambda c: c.execute(insert_or_ignore(c, schema.embeddings), rows).close())

    async def missing(
        self,
        space: str,
        collection_id: int,
        chunking: str,
        limit: int,
        *,
        after: tuple[int, int] = (0, 0),
    ) -> list[MissingEmbedding]:
        """At most ``limit`` live chunks whose texts have no vector in ``space``, in journal order.

        ``after`` is the ``position`` of the last one of the page before. A text that several chunks share
        may come several times.
        """
        there = exists().where(_embeddings.space == space, _embeddings.text_hash == _chunks.text_hash)
        page = (
            select(
                _chunks.key,
                _chunks.chunk_id,
                _chunks.text,
                _chunks.text_hash,
                _chunks.title,
                _chunks.seq_added,
            )
            .where(
                _chunks.collection_id == collection_id,
                _chunks.chunking == chunking,
                _chunks.seq_deleted.is_(None),
                tuple_(_chunks.seq_added, _chunks.key) > after,
                ~there,
            )
            .order_by(_chunks.seq_added, _chunks.key)
            .limit(limit)
        )
        rows = await self._db.read(lambda c: c.execute(page).all())
        return [
            MissingEmbedding(
                key=row.key,
                chunk_id=row.chunk_id,
                text=row.text,
                text_hash=row.text_hash,
                title=row.title,
                position=(row.seq_added, row.key),
            )
            for row in rows
        ]

    async def count_missing(self, space: str, collection_id: int, chunking: str) -> int:
        """How many distinct texts of live chunks have no vector in ``space``."""
        there = exists().where(_embeddings.space == space, _embeddings.text_hash == _chunks.text_hash)
        counted = select(func.count(_chunks.text_hash.distinct())).where(
            _chunks.collection_id == collection_id,
            _chunks.chunking == chunking,
            _chunks.seq_deleted.is_(None),
            ~there,
        )
        return await self._db.read(lambda c: c.execute(counted).scalar_one())

    async def forget(self, space: str) -> int:
        """Remove the vectors of a space that no version uses any more; how many."""
        some = select(_embeddings.text_hash).where(_embeddings.space == space).limit(FORGET_ROWS)
        rows = delete(schema.embeddings).where(
            _embeddings.space == space, _embeddings.text_hash.in_(some.scalar_subquery())
        )
        total = 0
        while count := await self._db.write(lambda c: c.execute(rows).rowcount):
            total += count
        return total

    async def sweep(self) -> int:
        """Remove the vectors that no stored chunk refers to; how many. Other writes wait for it."""
        kept = select(_chunks.text_hash)
        orphans = delete(schema.embeddings).where(_embeddings.text_hash.not_in(kept))
        return await self._db.write(lambda c: c.execute(orphans).rowcount)


def _matrix(
    stored: dict[bytes, bytes], hashes: Sequence[bytes], dim: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    size = dim * LITTLE_ENDIAN.itemsize
    if any(len(vector) != size for vector in stored.values()):
        raise CorruptIndex(f"a stored vector does not have {dim} dimensions")
    nothing = bytes(size)
    joined = b"".join([stored.get(text_hash, nothing) for text_hash in hashes])
    vectors = np.frombuffer(joined, dtype=LITTLE_ENDIAN).reshape(len(hashes), dim).astype(np.float32)
    missing = np.fromiter((h not in stored for h in hashes), dtype=np.bool_, count=len(hashes))
    return vectors, missing

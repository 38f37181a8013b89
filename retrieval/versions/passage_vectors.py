"""The vectors of chunks: handed over, stored, or embedded now; each distinct text once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from embedders.base import Embedder, Vectors
from ragstone.errors import BackendUnavailable, Internal, Overloaded, RagstoneError
from retrieval.store.embeddings import Embeddings
from retrieval.store.values import ChunkRow
from retrieval.versions.passages import passage_text

log = structlog.get_logger(__name__)

Found: TypeAlias = NDArray[np.bool_]

_TEXTS_AT_ONCE: Final = 256


@dataclass(slots=True)
class Progress:
    """How far a version has come, and what it could not take."""

    applied_seq: int = 0
    embedded: int = 0
    """Texts that this process has embedded for it."""
    reused: int = 0
    """Chunks whose vectors were there already."""
    parked_steps: dict[int, str] = field(default_factory=dict)
    """Journal position -> why it could not be applied. Never retried by itself; a rebuild takes it again."""
    parked_chunks: list[str] = field(default_factory=list)
    """Chunk ids that the embedder refused: only the lexical leg finds them."""


class PassageVectors:
    """Vectors of one embedder's space. ``progress`` is told what was embedded, found, and refused."""

    def __init__(self, embedder: Embedder, embeddings: Embeddings, progress: Progress) -> None:
        self._embedder = embedder
        self._embeddings = embeddings
        self._progress = progress

    async def of(self, rows: Sequence[ChunkRow], handed: Mapping[bytes, bytes]) -> tuple[Vectors, Found]:
        """The rows' vectors, and which rows have one: handed over, stored, or embedded now."""
        space = self._embedder.space
        if rows and all(row.text_hash in handed for row in rows):
            joined = b"".join(handed[row.text_hash] for row in rows)
            return np.frombuffer(joined, dtype="<f4").reshape(len(rows), space.dim), _all(rows)
        hashes = [row.text_hash for row in rows]
        vectors, missing = await self._embeddings.get_many(space.id, hashes, space.dim)
        self._progress.reused += len(rows) - int(missing.sum())
        if not missing.any():
            return vectors, _all(rows)
        fresh = await self._embed([row for row, lacks in zip(rows, missing, strict=True) if lacks])
        vectors = np.array(vectors)
        found = ~missing
        for i in np.flatnonzero(missing):
            vector = fresh.get(hashes[i])
            if vector is not None:
                vectors[i], found[i] = vector, True
        return vectors, found

    async def _embed(self, rows: Sequence[ChunkRow]) -> dict[bytes, Vectors]:
        """Embed each distinct text once, and store what came out, some at a time: a crash loses no more."""
        distinct = _distinct(rows)
        embedded: dict[bytes, Vectors] = {}
        for start in range(0, len(distinct), _TEXTS_AT_ONCE):
            some = await self._embed_or_park(distinct[start : start + _TEXTS_AT_ONCE])
            if some:
                await self._embeddings.put_many(
                    self._embedder.space.id, list(some), np.stack(list(some.values()))
                )
            self._progress.embedded += len(some)
            embedded |= some
        return embedded

    async def _embed_or_park(self, rows: Sequence[ChunkRow]) -> dict[bytes, Vectors]:
        texts = [passage_text(row.title, row.text) for row in rows]
        try:
            vectors = await self._embed_patiently(texts)
        except RagstoneError as exc:
            if len(rows) > 1:
                halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
                return {**await self._embed_or_park(halves[0]), **await self._embed_or_park(halves[1])}
            self._park(rows[0], exc.message)
            return {}
        finite: Found = np.asarray(np.isfinite(vectors).all(axis=1))
        if len(rows) > 1 and not finite.any():
            # No single text is to blame: the model is broken, and nothing of it may be stored.
            raise Internal(f"the embedder of {self._embedder.space.id} gives vectors that are not finite")
        for row in (row for row, good in zip(rows, finite, strict=True) if not good):
            self._park(row, "its vector is not finite")
        kept = zip(rows, vectors, finite, strict=True)
        return {row.text_hash: vector for row, vector, good in kept if good}

    def _park(self, row: ChunkRow, reason: str) -> None:
        log.error("chunk_parked", chunk_id=row.chunk_id, reason=reason)
        self._progress.parked_chunks.append(row.chunk_id)

    async def _embed_patiently(self, texts: Sequence[str]) -> Vectors:
        """A model that is away or busy holds the follower up; it does not lose it anything."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((BackendUnavailable, Overloaded)),
            wait=wait_random_exponential(multiplier=0.2, max=30),
            before_sleep=lambda state: log.warning("embedder_unavailable", attempt=state.attempt_number),
        ):
            with attempt:
                return await self._embedder.embed_passages(texts)
        raise AssertionError("the retry loop ends by returning or raising")


def _distinct(rows: Sequence[ChunkRow]) -> list[ChunkRow]:
    return list({row.text_hash: row for row in rows}.values())


def _all(rows: Sequence[ChunkRow]) -> Found:
    return np.ones(len(rows), dtype=np.bool_)

"""The vectors of chunks: handed over, stored, or embedded now; each distinct text once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from embedders.base import Embedder, Encoded, TokenEncoder, Vectors
from embedders.refusals import Embed, embed_or_refuse
from ragstone.errors import BackendUnavailable, Overloaded
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
    """Vectors of one embedder's space. ``progress`` is told what was embedded, found, and refused.

    ``tenant`` is for whom the embedder works: a collection by its name.
    """

    def __init__(
        self, embedder: Embedder, embeddings: Embeddings, progress: Progress, *, tenant: str
    ) -> None:
        self._embedder = embedder
        self._tenant = tenant
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
        lacking = [row for row, lacks in zip(rows, missing, strict=True) if lacks]
        fresh = await self._embed(lacking, partial(self._embedder.embed_passages, tenant=self._tenant))
        vectors = np.array(vectors)
        found = ~missing
        for i in np.flatnonzero(missing):
            vector = fresh.get(hashes[i])
            if vector is not None:
                vectors[i], found[i] = vector, True
        return vectors, found

    async def with_tokens(
        self, rows: Sequence[ChunkRow], encoder: TokenEncoder
    ) -> tuple[Vectors, Found, dict[bytes, Encoded]]:
        """As ``of``, and by its hash all of each text that has a vector, out of one pass."""
        by_text: dict[str, Encoded] = {}

        async def encode(texts: Sequence[str]) -> Vectors:
            encoded = await encoder.encode_passages(texts, tenant=self._tenant)
            by_text.update(zip(texts, encoded, strict=True))
            return np.stack([one.vector for one in encoded])

        fresh = await self._embed(rows, encode)
        vectors = np.zeros((len(rows), self._embedder.space.dim), np.float32)
        found = np.zeros(len(rows), dtype=np.bool_)
        encoded: dict[bytes, Encoded] = {}
        for i, row in enumerate(rows):
            vector = fresh.get(row.text_hash)
            if vector is not None:
                vectors[i], found[i] = vector, True
                encoded[row.text_hash] = by_text[passage_text(row.title, row.text)]
        return vectors, found, encoded

    async def _embed(self, rows: Sequence[ChunkRow], embed: Embed) -> dict[bytes, Vectors]:
        """Embed each distinct text once, and store what came out, some at a time: a crash loses no more."""
        distinct = _distinct(rows)
        embedded: dict[bytes, Vectors] = {}
        for start in range(0, len(distinct), _TEXTS_AT_ONCE):
            some = await self._embed_or_park(distinct[start : start + _TEXTS_AT_ONCE], embed)
            if some:
                await self._embeddings.put_many(
                    self._embedder.space.id, list(some), np.stack(list(some.values()))
                )
            self._progress.embedded += len(some)
            embedded |= some
        return embedded

    async def _embed_or_park(self, rows: Sequence[ChunkRow], embed: Embed) -> dict[bytes, Vectors]:
        texts = [passage_text(row.title, row.text) for row in rows]
        embedded: dict[bytes, Vectors] = {}
        patiently = partial(_embed_patiently, embed)
        for row, outcome in zip(rows, await embed_or_refuse(patiently, texts), strict=True):
            if isinstance(outcome, str):
                self._park(row, outcome)
            else:
                embedded[row.text_hash] = outcome
        return embedded

    def _park(self, row: ChunkRow, reason: str) -> None:
        log.error("chunk_parked", chunk_id=row.chunk_id, reason=reason)
        self._progress.parked_chunks.append(row.chunk_id)


async def _embed_patiently(embed: Embed, texts: Sequence[str]) -> Vectors:
    """A model that is away or busy holds the follower up; it does not lose it anything."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type((BackendUnavailable, Overloaded)),
        wait=wait_random_exponential(multiplier=0.2, max=30),
        before_sleep=lambda state: log.warning("embedder_unavailable", attempt=state.attempt_number),
    ):
        with attempt:
            return await embed(texts)
    raise AssertionError("the retry loop ends by returning or raising")


def _distinct(rows: Sequence[ChunkRow]) -> list[ChunkRow]:
    return list({row.text_hash: row for row in rows}.values())


def _all(rows: Sequence[ChunkRow]) -> Found:
    return np.ones(len(rows), dtype=np.bool_)

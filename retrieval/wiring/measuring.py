"""What this machine does in a second: models and indexes, opened through the registries and timed alone."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np

import embedders.registry
import indexes.registry
from embedders.base import Embedder
from indexes.base import Compactable, Metric, VectorBatch, VectorIndex, Vectors
from indexes.directory import LocalDirectory
from ragstone.errors import InvalidArgument

_TENANT: Final = "capacity"
_CLIENTS: Final = 32
_STEP: Final = 1_024
"""Chunks of a step of the applier, by default."""
_HIDDEN: Final = 32
"""Dimensions in which made vectors really differ, as those of texts do; the worst case is all of them."""
_NOISE: Final = 0.1
_ASKED: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSpeed:
    """A model on all cores of this machine."""

    tokens_s: float
    tokens_a_passage: float
    queries_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSpeed:
    """An index of so many rows, searched by one caller at a time."""

    rows: int
    searches_s: float
    build_rows_s: float
    bytes_a_row: float


async def measure_embedding(
    kind: str, options: Mapping[str, object], passages: Sequence[str], queries: Sequence[str]
) -> EmbeddingSpeed:
    """Embed ``passages`` at once, and ``queries`` for 32 callers who ask for one at a time.

    Raises what opening the embedder raises, and InvalidArgument for one that has no tokenizer to count with.
    """
    embedder = await embedders.registry.open_embedder(kind, options)
    try:
        if embedder.tokenizer is None:
            raise InvalidArgument.at("embedder.kind", f"{kind!r} does not tell the tokens of a text")
        tokens = sum(len(embedder.tokenizer.encode(text).ids) for text in passages)
        await embedder.embed_passages(passages[:_CLIENTS], tenant=_TENANT)
        started = perf_counter()
        await embedder.embed_passages(passages, tenant=_TENANT)
        passages_s = perf_counter() - started
        started = perf_counter()
        await _ask(embedder, queries)
        return EmbeddingSpeed(
            tokens_s=tokens / passages_s,
            tokens_a_passage=tokens / len(passages),
            queries_s=len(queries) / (perf_counter() - started),
        )
    finally:
        await embedder.close()


async def _ask(embedder: Embedder, queries: Sequence[str]) -> None:
    waiting = iter(queries)

    async def client() -> None:
        for query in waiting:
            await embedder.embed_queries([query], tenant=_TENANT)

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))


async def measure_index(kind: str, options: Mapping[str, object], *, rows: int, dim: int) -> IndexSpeed:
    """Build an index of made vectors in a folder of its own, as a load would, and search it for others.

    Raises InvalidArgument for an unknown kind or wrong options.
    """
    vectors = made_vectors(rows + _ASKED, dim)
    with tempfile.TemporaryDirectory(prefix="ragstone-capacity-") as folder:
        index = await indexes.registry.open_dense(
            kind, directory=LocalDirectory(Path(folder)), dim=dim, metric=Metric.COSINE, options=options
        )
        try:
            started = perf_counter()
            await _fill(index, vectors[:rows])
            build_s = perf_counter() - started
            started = perf_counter()
            for query in vectors[rows:]:
                await index.search(query[None], 10)
            search_s = perf_counter() - started
            return IndexSpeed(
                rows=rows,
                searches_s=_ASKED / search_s,
                build_rows_s=rows / build_s,
                bytes_a_row=index.stats().bytes_on_disk / rows,
            )
        finally:
            await index.close()


async def _fill(index: VectorIndex, vectors: Vectors) -> None:
    nothing = np.empty(0, np.int64)
    for seq, start in enumerate(range(0, len(vectors), _STEP), start=1):
        block = vectors[start : start + _STEP]
        await index.apply(VectorBatch(np.arange(start, start + len(block)), block, nothing), seq=seq)
    await index.checkpoint()
    if isinstance(index, Compactable):
        await index.compact()


def made_vectors(rows: int, dim: int) -> Vectors:
    """Float32 ``(rows, dim)`` of length 1, the same at each call."""
    random = np.random.default_rng(0)
    hidden = random.standard_normal((rows, min(_HIDDEN, dim)), dtype=np.float32)
    vectors: Vectors = hidden @ random.standard_normal((hidden.shape[1], dim), dtype=np.float32)
    vectors += _NOISE * random.standard_normal((rows, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors

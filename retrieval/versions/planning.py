"""What a rebuild would take: counted where the catalog knows it, else measured on a sample and scaled."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import numpy as np

from embedders.base import Embedder
from indexes.base import Compactable, VectorBatch
from ragstone.types import RebuildPlan
from retrieval.store.catalog import Catalog
from retrieval.store.values import ChunkDraft
from retrieval.versions.applier import Sources
from retrieval.versions.homes import Homes
from retrieval.versions.parts import Opener
from retrieval.versions.passages import passage_text
from retrieval.versions.recipe import PinnedRecipe
from retrieval.versions.snapshots import Snapshot

_DOCUMENTS: Final = 100
_TEXTS: Final = 64
_ROWS: Final = 2_000


@dataclass(frozen=True, slots=True)
class _Sample:
    """Some documents, cut as the new recipe says."""

    documents: int
    chunks: Sequence[tuple[str, ChunkDraft]]
    """Each with its document's title."""


class Planner:
    """Plans rebuilds; changes nothing."""

    def __init__(self, *, opener: Opener, catalog: Catalog, sources: Sources, homes: Homes) -> None:
        self._opener = opener
        self._catalog = catalog
        self._sources = sources
        self._homes = homes

    async def plan(self, serving: Snapshot, wanted: PinnedRecipe, chunking: str) -> RebuildPlan:
        """What a rebuild of the serving version into ``wanted`` would do, and about what it would take."""
        embedder = await self._opener.embedder(wanted.embedder)
        collection_id, space = serving.collection.id, embedder.space
        documents, _ = await self._catalog.counts(collection_id)
        sample = await self._sample(serving, wanted, embedder, chunking)
        known = await self._sources.chunks.live(collection_id, chunking)
        estimated = not known
        chunks = known or round(documents * len(sample.chunks) / max(1, sample.documents))
        missing = chunks
        if known:
            missing = await self._sources.embeddings.count_missing(space.id, collection_id, chunking)
        texts = [passage_text(title, chunk.text) for title, chunk in sample.chunks[:_TEXTS]]
        embed_s = await _embed_s(embedder, texts, serving.collection.name)
        build = await self._build(wanted, space.dim)
        words = serving.parts.lexical.stats()
        lexical_bytes = words.bytes_on_disk / max(1, words.live) * chunks
        raw = chunks * space.dim * 4
        return RebuildPlan(
            recipe=wanted.public(),
            space=space.id,
            dim=space.dim,
            documents=documents,
            chunks=chunks,
            chunks_estimated=estimated,
            texts_to_embed=missing,
            tokens=round(missing * _mean_tokens(embedder, texts)),
            embed_s=round(missing * embed_s, 1),
            build_s=round(build.seconds_for(chunks), 1),
            disk_bytes=round(build.bytes_a_row * chunks + lexical_bytes),
            # What every search walks through; raw vectors beside it are read a few at a time.
            memory_bytes=raw if wanted.index.kind == "flat" else round(build.bytes_a_row * chunks - raw),
            notes=_notes(estimated, missing, chunks, documents),
        )

    async def _sample(
        self, serving: Snapshot, wanted: PinnedRecipe, embedder: Embedder, chunking: str
    ) -> _Sample:
        if serving.parts.cutter is None:
            return _Sample(0, ())
        rows = await self._sources.documents.sample(serving.collection.id, limit=_DOCUMENTS)
        cutter = self._opener.cutter(wanted, embedder, chunking)

        def cut() -> list[tuple[str, ChunkDraft]]:
            return [(row.title, chunk) for row in rows for chunk in cutter.cut(row.id, row.title, row.text)]

        return _Sample(len(rows), await asyncio.to_thread(cut))

    async def _build(self, wanted: PinnedRecipe, dim: int) -> _Build:
        """Build a small index of the wanted kind, of vectors that have nothing in common: the worst case."""
        vectors = np.random.default_rng(0).standard_normal((_ROWS, dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        spec = wanted.index
        async with self._homes.trial(wanted) as home:
            index = await self._opener.dense(
                spec.kind, home=home.of("dense"), dim=dim, metric=spec.metric, options=spec.options
            )
            try:
                start = perf_counter()
                await index.apply(VectorBatch(np.arange(_ROWS), vectors, np.empty(0, np.int64)), seq=1)
                if isinstance(index, Compactable):
                    await index.compact()
                return _Build(perf_counter() - start, index.stats().bytes_on_disk / _ROWS)
            finally:
                await index.close()


@dataclass(frozen=True, slots=True)
class _Build:
    """How long ``_ROWS`` rows took, and what one takes on the disk."""

    seconds: float
    bytes_a_row: float

    def seconds_for(self, rows: int) -> float:
        """Graphs and lists take about ``n log n``."""
        return self.seconds * rows / _ROWS * max(1.0, math.log(max(2, rows)) / math.log(_ROWS))


async def _embed_s(embedder: Embedder, texts: Sequence[str], tenant: str) -> float:
    """Seconds a text, measured now, beside whatever else the machine does."""
    if not texts:
        return 0.0
    start = perf_counter()
    await embedder.embed_passages(texts, tenant=tenant)
    return (perf_counter() - start) / len(texts)


def _mean_tokens(embedder: Embedder, texts: Sequence[str]) -> float:
    if not texts:
        return 0.0
    tokenizer = embedder.tokenizer
    counts = (len(text.split()) if tokenizer is None else len(tokenizer.encode(text).ids) for text in texts)
    return sum(counts) / len(texts)


def _notes(estimated: bool, missing: int, chunks: int, documents: int) -> tuple[str, ...]:
    notes = []
    if estimated and documents:
        notes.append(f"the documents are cut anew: their chunks are estimated from {_DOCUMENTS} documents")
    if not missing and chunks:
        notes.append("every vector of the new space is there already: nothing has to be embedded")
    return tuple(notes)

"""Query adapters at work: learned while a version is built, used by queries in its space until it serves.

A version in another space than the serving one's takes long to build. A map of its queries into the serving
space takes a sample of texts: with it the new model can ask the old index within minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from time import monotonic
from typing import Final

import numpy as np
import structlog

from embedders.base import Embedder, Vectors
from ragstone.errors import InvalidArgument, RagstoneError
from ragstone.types import QueryAdapter
from retrieval.config import RebuildSettings
from retrieval.store.adapters import AdapterRow, Adapters
from retrieval.store.values import ChunkRow, VersionRow
from retrieval.versions.adapters.adapter import Adapter
from retrieval.versions.adapters.picking import MIN_SAMPLE, Picked, pick
from retrieval.versions.applier import Sources
from retrieval.versions.measuring import Rest
from retrieval.versions.new_model import NewModel
from retrieval.versions.parts import Opener
from retrieval.versions.passage_vectors import Found, PassageVectors, Progress
from retrieval.versions.passages import passage_text
from retrieval.versions.recipe import PinnedRecipe
from retrieval.versions.snapshots import OpenCollection

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 16
"""Texts embedded in one go: as queries they stand in the same queue as those of clients."""
_BROUGHT: Final = "precomputed"


class Adapting:
    """Learns adapters beside rebuilds. Belongs to one event loop."""

    def __init__(
        self, *, opener: Opener, sources: Sources, adapters: Adapters, settings: RebuildSettings
    ) -> None:
        self._opener = opener
        self._sources = sources
        self._adapters = adapters
        self._settings = settings
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._known: dict[int, QueryAdapter] = {}

    def begin(self, collection: OpenCollection, version: VersionRow, rest: Rest) -> None:
        """Learn the adapter of a version that is being built, or take the one that was learned before."""
        serving = collection.snapshot
        recipe = PinnedRecipe.load(version.recipe)
        brought = _BROUGHT in (recipe.embedder.kind, serving.parts.recipe.embedder.kind)
        if brought or version.space == serving.version.space or not self._settings.adapter_texts:
            return
        self._tasks[version.id] = asyncio.create_task(
            self._adapt(collection, version, rest), name=f"adapter {version.name}"
        )

    def describe(self, version_id: int) -> QueryAdapter | None:
        """What is known of the adapter of a version."""
        return self._known.get(version_id)

    async def stop(self, version_id: int) -> None:
        """Learn no longer; what was learned stays."""
        task = self._tasks.pop(version_id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def forget(self, collection: OpenCollection, version: VersionRow) -> None:
        """The version is gone."""
        await self.stop(version.id)
        self._known.pop(version.id, None)
        collection.new_models.pop(version.space, None)
        await self._adapters.forget(version.id)

    # -- inside ----------------------------------------------------------------------------------------

    async def _adapt(self, collection: OpenCollection, version: VersionRow, rest: Rest) -> None:
        serving = collection.snapshot
        model = await self._opener.embedder(PinnedRecipe.load(version.recipe).embedder)
        try:
            adapter, told = await self._kept(version, model, serving.parts.embedder)
            if adapter is None:
                told = QueryAdapter(
                    from_space=model.space.id, into_space=serving.version.space, reason="it is being learned"
                )
                self._tell(collection, version, NewModel(model, None, told))
                rows = await self._sample(collection)
                new, old = await self._vectors(rows, collection.row.name, model, serving.parts.embedder, rest)
                picked = await asyncio.to_thread(
                    pick, new, old, new_space=model.space, old_space=serving.parts.embedder.space
                )
                adapter, told = picked.adapter, self._judge(picked, len(new))
                await self._adapters.put(version.id, _row(picked, told))
            self._tell(collection, version, NewModel(model, adapter if told.passed else None, told))
            log.info("adapter_learned", version=version.name, **asdict(told))
        except Exception as exc:
            # The rebuild needs no adapter: it goes on without.
            known = isinstance(exc, RagstoneError)
            reason = str(exc) if known else f"{type(exc).__name__}: {exc}"
            log.warning("adapter_failed", version=version.name, reason=reason, exc_info=not known)
            told = QueryAdapter(from_space=model.space.id, into_space=serving.version.space, reason=reason)
            self._tell(collection, version, NewModel(model, None, told))

    def _tell(self, collection: OpenCollection, version: VersionRow, model: NewModel) -> None:
        self._known[version.id] = model.told
        collection.new_models[version.space] = model

    async def _kept(
        self, version: VersionRow, model: Embedder, serving: Embedder
    ) -> tuple[Adapter | None, QueryAdapter]:
        """What was learned before; None when nothing was, or it is of other spaces, or damaged."""
        row = await self._adapters.of(version.id)
        if row is not None and row.old_space == serving.space.id:
            try:
                adapter = Adapter.load(row.data, new_space=model.space, old_space=serving.space)
                return adapter, QueryAdapter(**row.measured)
            except RagstoneError as exc:
                log.warning("adapter_dropped", version=version.name, reason=exc.message)
        return None, QueryAdapter()

    async def _sample(self, collection: OpenCollection) -> Sequence[ChunkRow]:
        serving = collection.snapshot.version
        rows = await self._sources.documents.sample_chunks(
            collection.row.id, serving.chunking, count=self._settings.adapter_texts
        )
        return list({row.text_hash: row for row in rows}.values())

    async def _vectors(
        self, rows: Sequence[ChunkRow], tenant: str, model: Embedder, serving: Embedder, rest: Rest
    ) -> tuple[Vectors, Vectors]:
        """The sample in the new space and in the old one, float32 ``(n, dim)`` each.

        Raises InvalidArgument when it is too small to learn from.
        """
        hashes = [row.text_hash for row in rows]
        old, missing = await self._sources.embeddings.get_many(serving.space.id, hashes, serving.space.dim)
        rows = [row for row, lacks in zip(rows, missing, strict=True) if not lacks]
        if len(rows) < MIN_SAMPLE:
            raise InvalidArgument(f"there are {len(rows)} texts with a vector, {MIN_SAMPLE} are needed")
        news, kept = [], []
        for start in range(0, len(rows), _AT_ONCE):
            began = monotonic()
            new, found = await self._embed(model, rows[start : start + _AT_ONCE], tenant)
            news.append(new)
            kept.append(found)
            await rest(monotonic() - began)
        there = np.concatenate(kept)
        return np.concatenate(news)[there], old[~missing][there]

    async def _embed(self, model: Embedder, rows: Sequence[ChunkRow], tenant: str) -> tuple[Vectors, Found]:
        """As the new model embeds a query; as a passage, kept for the rebuild, where that is the same."""
        if model.space.query_prompt == model.space.passage_prompt:
            vectors = PassageVectors(model, self._sources.embeddings, Progress(), tenant=tenant)
            return await vectors.of(rows, {})
        texts = [passage_text(row.title, row.text) for row in rows]
        return await model.embed_queries(texts, tenant=tenant), np.ones(len(rows), np.bool_)

    def _judge(self, picked: Picked, texts: int) -> QueryAdapter:
        measured, limit = picked.measurement, self._settings.adapter_recall
        return QueryAdapter(
            kind=measured.kind,
            from_space=picked.adapter.new_space.id,
            into_space=picked.adapter.old_space.id,
            recall=round(measured.recall, 4),
            limit=limit,
            passed=measured.recall >= limit,
            texts=texts,
        )


def _row(picked: Picked, told: QueryAdapter) -> AdapterRow:
    return AdapterRow(old_space=told.into_space, measured=asdict(told), data=picked.adapter.dump())

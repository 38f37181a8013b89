"""Back ends, opened through the registries by the kinds that a recipe names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

import embedders.registry
import indexes.registry
import rerankers.registry
from embedders.base import Embedder
from indexes.base import LexicalIndex, Metric, TokenIndex, VectorIndex
from indexes.directory import LocalDirectory
from rerankers.base import Reranker
from rerankers.late_interaction import LateInteractionReranker
from retrieval.ingest.cutting import PassageCutter
from retrieval.versions.parts import Cutter, Home, token_encoder
from retrieval.versions.recipe import (
    LATE_INTERACTION,
    NONE,
    Backend,
    EmbedderSpec,
    PinnedRecipe,
    RerankerSpec,
)


class RegistryOpener:
    """Opens back ends through the registries, and keeps one model for equal specs.

    ``when_opened`` is called after each model that is new.
    """

    def __init__(self, when_opened: Callable[[], None] = lambda: None) -> None:
        self._when_opened = when_opened
        self._embedders: dict[str, Embedder] = {}
        self._rerankers: dict[str, Reranker] = {}
        self._opening = asyncio.Lock()

    async def embedder(self, spec: EmbedderSpec) -> Embedder:
        """The embedder of a spec, opened on first use."""
        key = _key(spec)
        async with self._opening:
            if key not in self._embedders:
                self._embedders[key] = await embedders.registry.open_embedder(spec.kind, spec.options)
                self._when_opened()
            return self._embedders[key]

    async def reranker(self, spec: RerankerSpec, embedder: Embedder) -> Reranker | None:
        """The reranker of a spec, opened on first use; None for kind ``none``."""
        if spec.kind == NONE:
            return None
        if spec.kind == LATE_INTERACTION:
            return LateInteractionReranker(token_encoder(embedder, "reranker"))
        key = _key(spec)
        async with self._opening:
            if key not in self._rerankers:
                self._rerankers[key] = await rerankers.registry.open_reranker(spec.kind, spec.options)
                self._when_opened()
            return self._rerankers[key]

    async def dense(
        self, kind: str, *, home: Home, dim: int, metric: Metric, options: Mapping[str, object]
    ) -> VectorIndex:
        """The dense index that lives there."""
        return await indexes.registry.open_dense(
            kind,
            directory=LocalDirectory(home.path),
            name=home.name,
            dim=dim,
            metric=metric,
            options=options,
        )

    def cutter(self, recipe: PinnedRecipe, embedder: Embedder, chunking: str) -> Cutter:
        """What cuts for a recipe."""
        return PassageCutter(recipe, embedder, chunking)

    async def lexical(self, kind: str, *, home: Home, options: Mapping[str, object]) -> LexicalIndex:
        """The lexical index that lives there."""
        return await indexes.registry.open_lexical(
            kind, directory=LocalDirectory(home.path), name=home.name, options=options
        )

    async def tokens(self, kind: str, *, home: Home, dim: int, options: Mapping[str, object]) -> TokenIndex:
        """The token index that lives there."""
        return await indexes.registry.open_tokens(
            kind, directory=LocalDirectory(home.path), name=home.name, dim=dim, options=options
        )

    def is_shared(self, kind: str) -> bool:
        """Whether indexes of that kind are in a store that others share."""
        return kind in indexes.registry.SHARED

    async def drop_shared(self, kind: str, *, name: str, options: Mapping[str, object]) -> None:
        """Remove an index from a store that others share."""
        await indexes.registry.drop_shared(kind, name=name, options=options)

    async def close(self) -> None:
        """Close every model."""
        for embedder in self._embedders.values():
            await embedder.close()
        for reranker in self._rerankers.values():
            await reranker.close()


def _key(spec: Backend) -> str:
    """What the back end itself is told: how a version uses its answers makes no other model."""
    return json.dumps([spec.kind, spec.options], sort_keys=True)

"""The legs of a search: what each one looks for, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import structlog
from pyroaring import BitMap64

from embedders.base import Embedder
from indexes.base import Explainable, Neighbours, Vectors
from indexes.filters import parse
from ragstone.errors import InvalidArgument, RagstoneError, SpaceMismatch
from ragstone.types import Mode, Query
from retrieval import telemetry
from retrieval.query.fusion import Ranking
from retrieval.telemetry import Stopwatch
from retrieval.versions.new_model import EmbedQuery, NewModel
from retrieval.versions.snapshots import Snapshot
from retrieval.versions.vectors import check_vector

log = structlog.get_logger(__name__)

Leg = Callable[[], Awaitable[Ranking]]


class Legs:
    """The legs of one query, planned against one snapshot."""

    def __init__(
        self,
        snapshot: Snapshot,
        query: Query,
        depth: int,
        watch: Stopwatch,
        embed: EmbedQuery,
        new_models: Mapping[str, NewModel],
    ) -> None:
        self._parts = snapshot.parts
        self._query = query
        self._depth = depth
        self._watch = watch
        self._embed = embed
        self._allow = self._allowed()
        self._new_models = new_models
        self.new_model: NewModel | None = None
        """The one in whose space the query is; None where that is the version's own."""
        self.embedder: Embedder | None = None
        """What embeds the query's text; None where that is not asked for."""

    def planned(self) -> dict[str, Leg]:
        """The legs that this query needs. Raises InvalidArgument for what they lack."""
        query = self._query
        legs: dict[str, Leg] = {}
        if query.mode in (Mode.HYBRID, Mode.LEXICAL):
            if not query.text.strip():
                raise InvalidArgument.at(
                    "text",
                    f"is empty, and mode {query.mode.value!r} needs text; mode 'dense' needs only a vector",
                )
            legs[telemetry.LEG_LEXICAL] = self._lexical
        if query.mode in (Mode.HYBRID, Mode.DENSE):
            self.new_model = self._named_model()
            vector = self._given_vector()
            if vector is None:
                self.embedder = self._parts.embedder if self.new_model is None else self.new_model.embedder
            legs[telemetry.LEG_DENSE] = self._dense if vector is None else lambda: self._nearest(vector)
        return legs

    def explain(self) -> dict[str, str]:
        """How the dense leg looks, if it takes part and can tell."""
        dense = self._parts.dense
        if self._query.mode is Mode.LEXICAL or not isinstance(dense, Explainable):
            return {}
        told = dense.explain(self._depth, allow=self._allow)
        if self.new_model is not None:
            adapter = self.new_model.told
            told = f"by the adapter {adapter.kind} from {adapter.from_space}: {told}"
        return {telemetry.LEG_DENSE: told}

    def _allowed(self) -> BitMap64 | None:
        if not self._query.filter:
            return None
        with self._watch.stage(telemetry.STAGE_FILTER):
            parsed = parse(self._query.filter)
            return None if parsed is None else self._parts.metadata.select(parsed)

    def _named_model(self) -> NewModel | None:
        """Raises SpaceMismatch for a space that is neither the version's nor that of a new model."""
        asked, space = self._query.space, self._parts.embedder.space
        if not asked or asked in (space.id, space.name):
            return None
        for model in self._new_models.values():
            if asked in (model.told.from_space, model.embedder.space.name):
                return model
        raise SpaceMismatch.at(
            "space" if self._query.vector is None else "vector",
            f"is of space {asked!r}, the serving version's vectors are of {space.id!r}",
            query_space=asked,
            serving_space=space.id,
        )

    def _given_vector(self) -> Vectors | None:
        query, space = self._query, self._parts.embedder.space
        if query.vector is None:
            if self._parts.recipe.embedder.kind == "precomputed":
                raise InvalidArgument.at(
                    "vector", f"is missing: clients of this collection bring their own, of space {space.id!r}"
                )
            if not query.text.strip():
                raise InvalidArgument.at("text", "is empty; give text or a vector")
            return None
        cosine, model = self._parts.recipe.index.metric == "cosine", self.new_model
        if model is None:
            return check_vector(query.vector, space.dim, cosine=cosine).reshape(1, -1)
        vectors = check_vector(query.vector, model.embedder.space.dim, cosine=cosine).reshape(1, -1)
        return model.into(vectors, space.id)

    async def _dense(self) -> Ranking:
        with self._watch.stage(telemetry.STAGE_EMBED):
            if self.new_model is None:
                vectors = await self._embed(self._parts.embedder, self._query.text)
            else:
                vectors = await self.new_model.embed(
                    self._query.text, self._embed, into=self._parts.embedder.space.id
                )
        return await self._nearest(vectors)

    async def _nearest(self, vectors: Vectors) -> Ranking:
        with self._watch.stage(telemetry.STAGE_DENSE):
            return _ranking(
                telemetry.LEG_DENSE, await self._parts.dense.search(vectors, self._depth, allow=self._allow)
            )

    async def _lexical(self) -> Ranking:
        with self._watch.stage(telemetry.STAGE_LEXICAL):
            return _ranking(
                telemetry.LEG_LEXICAL,
                await self._parts.lexical.search(
                    self._query.text, self._depth, allow=self._allow, language=self._query.language
                ),
            )


async def run_legs(
    legs: dict[str, Leg], failed_leg: Literal["degrade", "fail"]
) -> tuple[list[Ranking], tuple[str, ...]]:
    """All legs at once. What the caller did wrong is raised; a leg that fails beside another is named, or
    raised as well where ``failed_leg`` is ``fail``."""
    if len(legs) == 1:
        return [await leg() for leg in legs.values()], ()
    answers = await asyncio.gather(*(leg() for leg in legs.values()), return_exceptions=True)
    rankings: list[Ranking] = []
    failed: dict[str, BaseException] = {}
    for name, answer in zip(legs, answers, strict=True):
        if isinstance(answer, Ranking):
            rankings.append(answer)
        else:
            failed[name] = answer
    for name, error in failed.items():
        if not rankings or failed_leg == "fail":
            raise error
        if not isinstance(error, RagstoneError) or isinstance(error, InvalidArgument):
            raise error
        log.warning("leg_failed", leg=name, reason=error.reason, error=error.message)
    return rankings, tuple(failed)


def _ranking(leg: str, found: Neighbours) -> Ranking:
    keys, scores = found.keys[0].tolist(), found.scores[0].tolist()
    n = len(keys) - keys.count(-1)
    return Ranking(leg=leg, keys=keys[:n], scores=scores[:n])

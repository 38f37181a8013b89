"""Search: one query against one leased snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter

import structlog
from pyroaring import BitMap64

from indexes.base import Explainable, Neighbours, Vectors
from indexes.filters import parse
from ragstone.errors import InvalidArgument, InvalidPageToken, RagstoneError, SpaceMismatch
from ragstone.types import Hit, LegScore, Mode, Query, SearchResult
from retrieval import telemetry
from retrieval.query.fusion import Fused, Ranking, explain, fuse
from retrieval.query.hydration import Hydrator, Passage
from retrieval.query.pages import decode_page, encode_page, page_version
from retrieval.query.query_vectors import QueryVectors, embed_anew
from retrieval.store.journal import Journal
from retrieval.telemetry import Metrics, Stopwatch
from retrieval.versions.new_model import EmbedQuery, NewModel
from retrieval.versions.recipe import FusionSpec, fusion_of
from retrieval.versions.routing import CollectionTraffic
from retrieval.versions.snapshots import OpenCollection, Snapshot
from retrieval.versions.vectors import check_vector

log = structlog.get_logger(__name__)

Leg = Callable[[], Awaitable[Ranking]]


class Searcher:
    """Answers queries, for all collections."""

    def __init__(
        self, *, journal: Journal, hydrator: Hydrator, query_vectors: QueryVectors, metrics: Metrics
    ) -> None:
        self._journal = journal
        self._hydrator = hydrator
        self._query_vectors = query_vectors
        self._metrics = metrics

    async def search(
        self, collection: OpenCollection, query: Query, *, tenant: str = "", deadline_s: float | None = None
    ) -> SearchResult:
        """The best ``k`` hits after those that the query's page token has seen.

        Raises InvalidArgument naming ``query.<field>``, SpaceMismatch with both spaces. In a hybrid search a
        leg that fails is named in ``degraded``; when no leg answers, its error is raised.
        """
        return await self._search(collection, query, tenant, deadline_s, at="query")

    async def search_many(
        self,
        collection: OpenCollection,
        queries: Sequence[Query],
        *,
        tenant: str = "",
        deadline_s: float | None = None,
    ) -> list[SearchResult]:
        """One result a query, each as if searched alone; all of them or an error.

        Raises what ``search`` does, with the fields named ``queries[i].<field>``.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._search(collection, query, tenant, deadline_s, at=f"queries[{i}]"))
                    for i, query in enumerate(queries)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return [task.result() for task in tasks]

    async def on(self, snapshot: Snapshot, query: Query) -> SearchResult:
        """What a leased snapshot answers, whichever version serves. Raises as ``search`` does."""
        return await self._answer(snapshot, query, Stopwatch(), embed_anew, {})

    async def _search(
        self, collection: OpenCollection, query: Query, tenant: str, deadline_s: float | None, *, at: str
    ) -> SearchResult:
        try:
            watch = Stopwatch()
            if collection.traffic is None:
                result = await self._serve(collection, query, tenant, watch)
            else:
                result = await self._tried(collection, collection.traffic, query, tenant, deadline_s, watch)
        except RagstoneError as exc:
            if exc.violations:
                raise exc.within(at) from exc
            raise
        self._metrics.searched(result.timings_ms, result.degraded)
        collection.recording.heard(query)
        return result

    async def _tried(
        self,
        collection: OpenCollection,
        traffic: CollectionTraffic,
        query: Query,
        tenant: str,
        deadline_s: float | None,
        watch: Stopwatch,
    ) -> SearchResult:
        """What the canary answers to its share of queries; else, or if it cannot, the serving version."""
        canary = traffic.canary(query, tenant)
        if canary is None:
            result = await self._serve(collection, query, tenant, watch)
            traffic.served(query, result)
            return result
        patience_s, failure = canary.patience_s(deadline_s), ""
        try:
            async with asyncio.timeout(patience_s):
                with collection.lease(canary.version.id) as snapshot:
                    embed = partial(self._query_vectors.of, tenant=tenant)
                    result = await self._answer(snapshot, query, watch, embed, {})
            if not result.degraded:
                canary.answered(result)
                return result
            failure = f"answered without {', '.join(result.degraded)}"
        except TimeoutError:
            pass
        except Exception as exc:  # noqa: BLE001 - whatever it is: no request fails because of a canary
            failure = f"{type(exc).__name__}: {exc}"
        began = perf_counter()
        result = await self._serve(collection, query, tenant, watch)
        # What the serving version cannot answer either, the caller or a model got wrong, and not the canary.
        if failure and not result.degraded:
            canary.gave_way(failure)
        elif not result.degraded:
            canary.ran_late(patience_s, perf_counter() - began)
        return result

    async def _serve(
        self, collection: OpenCollection, query: Query, tenant: str, watch: Stopwatch
    ) -> SearchResult:
        """What the serving version answers, or the one that a page token names."""
        embed = partial(self._query_vectors.of, tenant=tenant)
        with _lease(collection, query) as snapshot:
            return await self._answer(snapshot, query, watch, embed, collection.new_models)

    async def _answer(
        self,
        snapshot: Snapshot,
        query: Query,
        watch: Stopwatch,
        embed: EmbedQuery,
        new_models: Mapping[str, NewModel],
    ) -> SearchResult:
        before = decode_page(query, snapshot.version.id)
        if query.min_seq is not None:
            with watch.stage(telemetry.STAGE_WAIT):
                await self._wait_for(snapshot, query.min_seq)
        fusion = fusion_of(snapshot.parts.recipe.fusion, query.fusion)
        seq = snapshot.applier.progress.applied_seq
        legs = _Legs(snapshot, query, _depth(query, fusion, before), watch, embed, new_models)
        rankings, degraded = await _run(legs.planned())
        with watch.stage(telemetry.STAGE_FUSE):
            fused = fuse(rankings, fusion)
            if before:
                fused = [(key, score) for key, score in fused if key not in before]
        with watch.stage(telemetry.STAGE_HYDRATE):
            taken = await self._take(fused, query.k)
        keys = [key for key, _, _ in taken]
        explained = explain(rankings, fusion, keys) if query.explain else {}
        token = ""
        if len(keys) == query.k:
            token = encode_page(query, snapshot.version.id, before | BitMap64(keys))
        return SearchResult(
            hits=tuple(_hit(passage, score, explained.get(key, ())) for key, score, passage in taken),
            version=snapshot.version.name,
            space=snapshot.version.space,
            seq=seq,
            degraded=degraded,
            timings_ms=watch.total(),
            next_page_token=token,
            plan=legs.explain() if query.explain else {},
            adapter=None if legs.new_model is None else legs.new_model.told,
        )

    async def _wait_for(self, snapshot: Snapshot, min_seq: int) -> None:
        if snapshot.applier.progress.applied_seq >= min_seq:
            return
        # The journal is one for all collections: a position of another one may lie beyond this one's last.
        head = await self._journal.head(snapshot.collection.id)
        await snapshot.applier.wait_for(min(min_seq, head))

    async def _take(self, fused: Sequence[Fused], k: int) -> list[tuple[int, float, Passage]]:
        """Key, score and chunk of the best ``k`` candidates whose chunk still exists."""
        taken: list[tuple[int, float, Passage]] = []
        at = 0
        while len(taken) < k and at < len(fused):
            wanted = fused[at : at + k - len(taken)]
            at += len(wanted)
            passages = await self._hydrator.passages([key for key, _ in wanted])
            taken += [(key, score, passages[key]) for key, score in wanted if key in passages]
        return taken


def _lease(collection: OpenCollection, query: Query) -> AbstractContextManager[Snapshot]:
    """The serving version; a further page comes from the version that gave the one before."""
    version_id = page_version(query)
    if version_id is not None and version_id not in collection.followers:
        raise InvalidPageToken.at("page_token", "belongs to a version that is gone; start again without it")
    return collection.lease(version_id)


class _Legs:
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


def _hit(passage: Passage, score: float, legs: tuple[LegScore, ...]) -> Hit:
    return Hit(
        chunk_id=passage.chunk_id,
        document_id=passage.document_id,
        score=score,
        text=passage.text,
        title=passage.title,
        metadata=passage.metadata,
        start=passage.start,
        end=passage.end,
        legs=legs,
    )


def _depth(query: Query, fusion: FusionSpec, before: BitMap64) -> int:
    """Candidates of each leg: enough for this page, and for fusion to have something to compare."""
    needed = len(before) + query.k
    if query.depth is not None:
        return max(query.depth, needed)
    return needed if query.mode is not Mode.HYBRID else max(fusion.depth, needed)


def _ranking(leg: str, found: Neighbours) -> Ranking:
    keys, scores = found.keys[0].tolist(), found.scores[0].tolist()
    n = len(keys) - keys.count(-1)
    return Ranking(leg=leg, keys=keys[:n], scores=scores[:n])


async def _run(legs: dict[str, Leg]) -> tuple[list[Ranking], tuple[str, ...]]:
    """All legs at once. What the caller did wrong is raised; a leg that fails beside another is named."""
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
        if not rankings or not isinstance(error, RagstoneError) or isinstance(error, InvalidArgument):
            raise error
        log.warning("leg_failed", leg=name, reason=error.reason, error=error.message)
    return rankings, tuple(failed)

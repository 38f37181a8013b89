"""Search: one query against one leased snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64

from embedders.base import Embedder, Encoded, Vectors
from embedders.lengths import truncations
from ragstone.errors import InvalidPageToken, RagstoneError
from ragstone.types import Hit, LegScore, Mode, Query, SearchResult, Truncation
from retrieval import telemetry
from retrieval.query.deadlines import Deadline
from retrieval.query.fusion import Fused, explain, fuse
from retrieval.query.hydration import Hydrator, Passage
from retrieval.query.legs import Legs, run_legs
from retrieval.query.pages import decode_page, encode_page, page_version
from retrieval.query.query_vectors import Encode, QueryVectors, embed_anew, encode_anew, once
from retrieval.query.rescoring import (
    Stage,
    Window,
    by_stored_tokens,
    left_alone,
    rerank,
    rescorer_of,
    window_of,
)
from retrieval.store.journal import Journal
from retrieval.telemetry import Metrics, Stopwatch
from retrieval.versions.new_model import EmbedQuery, NewModel
from retrieval.versions.parts import Parts
from retrieval.versions.recipe import LATE_INTERACTION, FusionSpec, fusion_of
from retrieval.versions.routing import CollectionTraffic
from retrieval.versions.snapshots import OpenCollection, Snapshot


@dataclass(frozen=True, slots=True)
class _Request:
    """One query on its way through a search."""

    query: Query
    tenant: str
    deadline: Deadline
    watch: Stopwatch
    embed: EmbedQuery
    encode: Callable[[Embedder, str], Awaitable[Encoded]]


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

        A version that the query names answers itself: such a query is of no canary's or shadow's share, and
        no sample of what clients ask. In a hybrid search a leg that fails is named in ``degraded``; when no
        leg answers, its error is raised. Raises InvalidArgument naming ``query.<field>``, SpaceMismatch with
        both spaces, NotFound and FailedPrecondition for a version that is not open.
        """
        return await self._search(collection, query, tenant, deadline_s, at="query")

    async def query_vector(
        self, collection: OpenCollection, text: str, *, tenant: str
    ) -> tuple[str, NDArray[np.float32]]:
        """The space of the version that serves, and where ``text`` lies in it, as searches have it.

        Raises what the embedder raises.
        """
        with collection.lease() as snapshot:
            embedder = snapshot.parts.embedder
            [vector] = await self._query_vectors.of(embedder, text, tenant=tenant)
            return embedder.space.id, vector

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
        name = snapshot.collection.name
        embed, encode = partial(embed_anew, tenant=name), partial(encode_anew, tenant=name)
        request = _Request(query, "", Deadline(None), Stopwatch(), embed, encode)
        return await self._answer(snapshot, request, {})

    async def _search(
        self, collection: OpenCollection, query: Query, tenant: str, deadline_s: float | None, *, at: str
    ) -> SearchResult:
        embed = partial(self._query_vectors.of, tenant=tenant)
        encode = partial(self._query_vectors.encoded, tenant=tenant)
        request = _Request(query, tenant, Deadline(deadline_s), Stopwatch(), embed, encode)
        try:
            if query.version:
                result = await self._named(collection, request)
            elif collection.traffic is None:
                result = await self._serve(collection, request)
            else:
                result = await self._tried(collection, collection.traffic, request)
        except RagstoneError as exc:
            if exc.violations:
                raise exc.within(at) from exc
            raise
        self._metrics.searched(result.timings_ms, result.degraded)
        if not query.version:
            collection.recording.heard(query)
        return result

    async def _named(self, collection: OpenCollection, request: _Request) -> SearchResult:
        """What the version answers that the query names, whoever serves or is tried."""
        version_id = collection.open_version(request.query.version)
        serving = collection.snapshot.version.id == version_id
        with collection.lease(version_id) as snapshot:
            return await self._answer(snapshot, request, collection.new_models if serving else {})

    async def _tried(
        self, collection: OpenCollection, traffic: CollectionTraffic, request: _Request
    ) -> SearchResult:
        """What the canary answers to its share of queries; else, or if it cannot, the serving version."""
        canary = traffic.canary(request.query, request.tenant)
        if canary is None:
            result = await self._serve(collection, request)
            traffic.served(request.query, result)
            return result
        patience_s, failure = canary.patience_s(request.deadline.remaining_s()), ""
        try:
            async with asyncio.timeout(patience_s):
                with collection.lease(canary.version.id) as snapshot:
                    hurried = replace(request, deadline=Deadline(patience_s))
                    result = await self._answer(snapshot, hurried, {})
            if not result.degraded:
                canary.answered(result)
                return result
            failure = f"answered without {', '.join(result.degraded)}"
        except TimeoutError:
            pass
        except Exception as exc:  # noqa: BLE001 - whatever it is: no request fails because of a canary
            failure = f"{type(exc).__name__}: {exc}"
        began = perf_counter()
        result = await self._serve(collection, request)
        # What the serving version cannot answer either, the caller or a model got wrong, and not the canary.
        if failure and not result.degraded:
            canary.gave_way(failure)
        elif not result.degraded:
            canary.ran_late(patience_s, perf_counter() - began)
        return result

    async def _serve(self, collection: OpenCollection, request: _Request) -> SearchResult:
        """What the serving version answers, or the one that a page token names."""
        with _lease(collection, request.query) as snapshot:
            return await self._answer(snapshot, request, collection.new_models)

    async def _answer(
        self, snapshot: Snapshot, request: _Request, new_models: Mapping[str, NewModel]
    ) -> SearchResult:
        query, watch, parts = request.query, request.watch, snapshot.parts
        recipe = parts.recipe
        before = decode_page(query, snapshot.version.id)
        window = window_of(recipe.reranker, query, parts.lexical)
        if query.min_seq is not None:
            with watch.stage(telemetry.STAGE_WAIT):
                await self._wait_for(snapshot, query.min_seq)
        fusion = fusion_of(recipe.fusion, query.fusion)
        seq = snapshot.applier.progress.applied_seq
        depth = _depth(query, fusion, window, before)
        encode = once(partial(request.encode, parts.embedder, query.text))
        embed = request.embed
        if window is not None and by_stored_tokens(parts) is not None:
            embed = _out_of_one_pass(parts.embedder, encode, embed)
        legs = Legs(snapshot, query, depth, watch, embed, new_models)
        rankings, degraded = await run_legs(legs.planned(), fusion.failed_leg)
        with watch.stage(telemetry.STAGE_FUSE):
            fused = fuse(rankings, fusion)
        stage = await self._rerank(snapshot, request, fused, window, before, encode)
        if stage.degraded:
            degraded = (*degraded, telemetry.LEG_RERANK)
        truncation = await _truncation(_reader(legs, parts, window, degraded), query.text)
        ranked = stage.reranked.candidates
        if before:
            ranked = [(key, score) for key, score in ranked if key not in before]
        with watch.stage(telemetry.STAGE_HYDRATE):
            taken = await self._take(ranked, query.k)
        keys = [key for key, _, _ in taken]
        explained: Mapping[int, tuple[LegScore, ...]] = {}
        plan: dict[str, str] = {}
        if query.explain:
            fused_of = explain(rankings, fusion, keys)
            explained = {key: stage.reranked.explain(key, scores) for key, scores in fused_of.items()}
            plan = legs.explain() | ({telemetry.LEG_RERANK: stage.told} if stage.told else {})
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
            plan=plan,
            adapter=None if legs.new_model is None else legs.new_model.told,
            truncation=truncation,
        )

    async def _rerank(
        self,
        snapshot: Snapshot,
        request: _Request,
        fused: Sequence[Fused],
        window: Window | None,
        before: BitMap64,
        encode: Encode,
    ) -> Stage:
        rescorer = rescorer_of(snapshot.parts, self._hydrator, encode)
        if window is None or rescorer is None:
            return left_alone(fused, snapshot.parts.recipe.reranker, request.query)
        with request.watch.stage(telemetry.STAGE_RERANK):
            return await rerank(
                fused, request.query, window, rescorer, deadline=request.deadline, seen=before
            )

    async def _wait_for(self, snapshot: Snapshot, min_seq: int) -> None:
        if snapshot.applier.progress.applied_seq >= min_seq:
            return
        # The journal is one for all collections: a position of another one may lie beyond this one's last.
        head = await self._journal.head(snapshot.collection.id)
        snapshot.applier.hear(head)  # Another server may have written it just now.
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


def _out_of_one_pass(own: Embedder, encode: Encode, otherwise: EmbedQuery) -> EmbedQuery:
    """A query's vector in the version's own space comes with its tokens, which are wanted later."""

    async def embed(embedder: Embedder, text: str) -> Vectors:
        if embedder is own:
            return (await encode()).vector.reshape(1, -1)
        return await otherwise(embedder, text)

    return embed


def _reader(legs: Legs, parts: Parts, window: Window | None, degraded: Sequence[str]) -> Embedder | None:
    """What read the query's text for the dense leg, or else for late interaction; None where nothing did."""
    if legs.embedder is not None and telemetry.LEG_DENSE not in degraded:
        return legs.embedder
    encoded = window is not None and parts.recipe.reranker.kind == LATE_INTERACTION
    return parts.embedder if encoded and telemetry.LEG_RERANK not in degraded else None


async def _truncation(embedder: Embedder | None, text: str) -> Truncation | None:
    """How the query's text was cut when it was embedded; the same whether its vector was kept or is new."""
    return None if embedder is None else (await truncations(embedder, [text])).get(0)


def _lease(collection: OpenCollection, query: Query) -> AbstractContextManager[Snapshot]:
    """The serving version; a further page comes from the version that gave the one before."""
    version_id = page_version(query)
    if version_id is not None and version_id not in collection.followers:
        raise InvalidPageToken.at("page_token", "belongs to a version that is gone; start again without it")
    return collection.lease(version_id)


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


def _depth(query: Query, fusion: FusionSpec, window: Window | None, before: BitMap64) -> int:
    """Candidates of each leg: enough for this page, and to have something to fuse and to rerank."""
    needed = len(before) + query.k
    if query.depth is not None:
        return max(query.depth, needed)
    if window is not None:
        needed = max(needed, window.depth)
    return needed if query.mode is not Mode.HYBRID else max(fusion.depth, needed)

"""A small application in memory behind the real server, and both clients in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from ragstone import AsyncClient, Client
from ragstone.answers import Citation, Done, FinishReason, TextDelta, Usage, UsageRecord
from ragstone.errors import AlreadyExists, NotFound
from ragstone.types import (
    AnswerEvent,
    Collection,
    Comparison,
    Contexts,
    Document,
    Gate,
    GoldenQuery,
    Hit,
    Interval,
    Latency,
    LegScore,
    MeasuredVersion,
    MissingText,
    MissingTexts,
    Progress,
    Query,
    QuerySource,
    Question,
    RebuildPlan,
    Recipe,
    RerankScores,
    SearchResult,
    ServerInfo,
    Traffic,
    Truncation,
    Version,
    Wait,
    WriteResult,
)
from retrieval.api.application import Embedded
from retrieval.api.server import Server, ServerOptions
from retrieval.telemetry import Metrics

NOW = datetime(2024, 5, 1, tzinfo=UTC)
BUILDING = Version(
    name="v2",
    collection="docs",
    state="building",
    recipe=Recipe(index={"kind": "ivf_pq"}),
    space="s",
    dim=2,
    applied_seq=3,
    created_at=NOW,
    progress=Progress(
        chunks_done=50,
        chunks_total=100,
        embedded=40,
        reused=10,
        chunks_per_s=12.5,
        seconds_left=4.0,
        lag=7,
    ),
)
READY = replace(
    BUILDING,
    state="ready",
    progress=None,
    gates=(Gate(name="recall", passed=True, value=0.99, limit=0.98, detail="100 queries"),),
)
GOLDEN = GoldenQuery(id="q1", text="When is the light lit?", relevant={"7": 2, "9": 1})
COMPARISON = Comparison(
    a=MeasuredVersion(version="v1", failed=0, p50_ms=5.0, p95_ms=9.0, ndcg=0.7),
    b=MeasuredVersion(version="v2", failed=1, p50_ms=4.0, p95_ms=8.0, ndcg=0.75),
    source=QuerySource.GOLDEN,
    queries=100,
    skipped=2,
    overlap=0.8,
    rank_biased_overlap=0.85,
    judged=100,
    ndcg_delta=Interval(mean=0.05, low=0.01, high=0.09),
)
TRAFFIC = Traffic(
    shadow=0.2,
    canary=0.05,
    mirrored=9,
    mean_rbo=0.75,
    canary_answered=4,
    canary_latency=Latency(searches=4, p50_ms=1.5, p95_ms=2.5),
    last_failure="TimeoutError: ",
)
PLAN = RebuildPlan(
    recipe=BUILDING.recipe,
    space="s",
    dim=2,
    documents=10,
    chunks=100,
    chunks_estimated=True,
    texts_to_embed=90,
    tokens=9_000,
    embed_s=1.5,
    build_s=0.5,
    disk_bytes=2**40,
    memory_bytes=2**35,
    notes=("The embedding space stays.",),
)


LENT = MissingTexts(
    texts=(MissingText(text_hash=b"a" * 16, text="Title words"), MissingText(text_hash=b"b" * 16, text="x")),
    lease="l1",
    lease_s=30.0,
    space="s",
    dim=2,
    embedder={"kind": "hashing", "dim": 2},
    missing=9,
    parked=1,
    done=False,
)


class FakeApplication:
    """Keeps documents in a dict. ``error`` is raised by every call that finds one there.

    A search for ``wait`` sleeps until it is cancelled and then sets ``stopped``.
    """

    def __init__(self) -> None:
        self.collections: dict[str, Recipe] = {}
        self.ready: dict[str, bool] = {}
        self.documents: dict[str, Document] = {}
        self.errors: list[BaseException] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.seq = 0
        self.waiting = asyncio.Event()
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()
        self.closed = False

    def readiness(self) -> dict[str, bool]:
        return self.ready

    def _called(self, name: str, /, **arguments: Any) -> None:
        self.calls.append((name, arguments))
        if self.errors:
            raise self.errors.pop(0)

    def _collection(self, name: str) -> Collection:
        if name not in self.collections:
            raise NotFound(f"there is no collection {name!r}")
        return Collection(
            name=name,
            serving=self._version(name),
            documents=len(self.documents),
            chunks=0,
            seq=self.seq,
            created_at=NOW,
        )

    def _version(self, collection: str) -> Version:
        return Version(
            name="v1",
            collection=collection,
            state="serving",
            recipe=self.collections[collection],
            space="s",
            dim=2,
            applied_seq=self.seq,
            created_at=NOW,
            stats={"segments": 1},
        )

    async def create_collection(self, name: str, recipe: Recipe) -> Collection:
        self._called("create_collection", name=name, recipe=recipe)
        if name in self.collections:
            raise AlreadyExists(f"{name!r} is taken")
        self.collections[name] = recipe
        return self._collection(name)

    async def get_collection(self, name: str) -> Collection:
        self._called("get_collection")
        return self._collection(name)

    async def list_collections(self) -> list[Collection]:
        self._called("list_collections")
        return [self._collection(name) for name in sorted(self.collections)]

    async def delete_collection(self, name: str) -> None:
        self._collection(name)
        del self.collections[name]

    async def compact(self, name: str) -> Collection:
        return self._collection(name)

    async def versions(self, collection: str) -> list[Version]:
        return [self._collection(collection).serving]

    async def get_version(self, collection: str, name: str) -> Version:
        return self._collection(collection).serving

    async def create_version(self, collection: str, recipe: Recipe, *, paused: bool = False) -> Version:
        self._called("create_version", collection=collection, recipe=recipe, paused=paused)
        return BUILDING

    async def plan_version(self, collection: str, recipe: Recipe) -> RebuildPlan:
        self._called("plan_version", collection=collection, recipe=recipe)
        return PLAN

    async def watch_version(self, collection: str, name: str) -> AsyncIterator[Version]:
        self._called("watch_version", collection=collection, name=name)
        try:
            yield BUILDING
            if name == "wait":
                await self._wait()
            yield READY
        finally:
            self.stopped.set()

    async def set_golden_queries(self, name: str, queries: Sequence[GoldenQuery]) -> None:
        self._called("set_golden_queries", name=name, queries=queries)

    async def get_golden_queries(self, name: str) -> list[GoldenQuery]:
        self._called("get_golden_queries", name=name)
        return [GOLDEN]

    async def compare_versions(
        self, collection: str, a: str, b: str, *, queries: Sequence[GoldenQuery], source: QuerySource | None
    ) -> Comparison:
        self._called("compare_versions", a=a, b=b, queries=queries, source=source)
        return COMPARISON

    async def promote_version(
        self, collection: str, name: str, *, force: bool, limits: Mapping[str, Any] | None = None
    ) -> Version:
        self._called("promote_version", collection=collection, name=name, force=force, limits=limits)
        return replace(READY, state="serving")

    async def rollback(self, collection: str) -> Version:
        self._called("rollback", collection=collection)
        return replace(READY, state="serving")

    async def pause_version(self, collection: str, name: str) -> Version:
        self._called("pause_version", collection=collection, name=name)
        return replace(BUILDING, state="paused", reason="asked for")

    async def resume_version(self, collection: str, name: str) -> Version:
        self._called("resume_version", collection=collection, name=name)
        return BUILDING

    async def set_traffic(
        self, collection: str, version: str, *, shadow: float | None, canary: float | None
    ) -> Version:
        self._called("set_traffic", collection=collection, version=version, shadow=shadow, canary=canary)
        return replace(READY, traffic=TRAFFIC)

    async def delete_version(self, collection: str, name: str) -> int:
        self._called("delete_version", collection=collection, name=name)
        return 2**40

    async def list_missing_embeddings(
        self, collection: str, name: str, *, worker: str, max_texts: int, lease_s: float
    ) -> MissingTexts:
        self._called("list_missing_embeddings", worker=worker, max_texts=max_texts, lease_s=lease_s)
        return LENT

    async def put_embeddings(
        self,
        collection: str,
        name: str,
        *,
        space: str,
        lease: str,
        hashes: Sequence[bytes],
        vectors: Any,
        refused: Mapping[bytes, str],
    ) -> int:
        self._called(
            "put_embeddings",
            space=space,
            lease=lease,
            vectors=dict(zip(hashes, vectors.tolist(), strict=True)),
            refused=refused,
        )
        return 7

    async def upsert(
        self, collection: str, documents: Sequence[Document], *, request_id: str, wait: Wait, tenant: str
    ) -> WriteResult:
        self._called("upsert", documents=documents, request_id=request_id, wait=wait, tenant=tenant)
        self.seq += 1
        unchanged = sum(self.documents.get(document.id) == document for document in documents)
        self.documents.update({document.id: document for document in documents})
        return WriteResult(seq=self.seq, documents=len(documents) - unchanged, unchanged=unchanged, chunks=1)

    async def delete(
        self, collection: str, *, ids: Sequence[str], filter: str, request_id: str, wait: Wait, tenant: str
    ) -> WriteResult:
        self._called("delete", ids=ids, filter=filter, request_id=request_id, wait=wait)
        gone = [self.documents.pop(id_) for id_ in ids if id_ in self.documents]
        self.seq += 1
        return WriteResult(seq=self.seq, documents=len(gone))

    async def get_document(self, collection: str, id: str) -> Document:
        if id not in self.documents:
            raise NotFound(f"there is no document {id!r}")
        return self.documents[id]

    async def list_documents(
        self, collection: str, *, page_size: int, page_token: str
    ) -> tuple[list[Document], str]:
        self._called("list_documents", page_size=page_size)
        following = sorted(id_ for id_ in self.documents if id_ > page_token)
        page = [self.documents[id_] for id_ in following[:page_size]]
        return page, page[-1].id if len(following) > page_size else ""

    async def search(
        self, collection: str, query: Query, *, tenant: str, deadline_s: float | None
    ) -> SearchResult:
        self._called("search", collection=collection, query=query, tenant=tenant, deadline_s=deadline_s)
        if query.text == "wait":
            await self._wait()
        if query.text == "pause":
            self.waiting.set()
            await self.go_on.wait()
        at = int(query.page_token or "0")
        ids = sorted(self.documents)
        hits = tuple(
            Hit(
                chunk_id=f"{id_}#0",
                document_id=id_,
                score=1.0 / (at + i + 1),
                text=self.documents[id_].text,
                metadata=self.documents[id_].metadata,
                legs=(LegScore(leg="dense", rank=i + 1, score=0.5, contribution=0.5),)
                if query.explain
                else (),
            )
            for i, id_ in enumerate(ids[at : at + query.k])
        )
        following = str(at + query.k) if at + query.k < len(ids) else ""
        return SearchResult(
            hits=hits,
            version="v1",
            space="s",
            seq=self.seq,
            degraded=("rerank",),
            timings_ms={"dense": 0.5},
            next_page_token=following,
        )

    async def batch_search(
        self, collection: str, queries: Sequence[Query], *, tenant: str, deadline_s: float | None
    ) -> list[SearchResult]:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.search(collection, query, tenant=tenant, deadline_s=deadline_s))
                for query in queries
            ]
        return [task.result() for task in tasks]

    async def answer(
        self, collection: str, question: Question, *, tenant: str, deadline_s: float | None
    ) -> AsyncIterator[AnswerEvent]:
        query = question.query
        self._called("answer", question=question, query=query, tenant=tenant, deadline_s=deadline_s)
        result = await self.search(collection, Query(), tenant=tenant, deadline_s=deadline_s)
        try:
            yield Contexts(hits=result.hits, version="v1")
            yield TextDelta(text="Because")
            if query.text == "wait":
                await self._wait()
            if query.text == "fail":
                raise NotFound("it is gone")
            yield Citation(chunk_id="a#0", document_id="a", start=0, end=3, answer_start=0, answer_end=7)
            yield Usage(prompt_tokens=3)
            yield Done(finish_reason=FinishReason.COMPLETE)
        finally:
            self.stopped.set()

    async def embed(self, collection: str, texts: Sequence[str], *, kind: str, tenant: str) -> Embedded:
        """Reads the first eight letters of a text."""
        self._called("embed", kind=kind, tenant=tenant)
        return Embedded(
            vectors=np.array([[len(text), 1.0] for text in texts], "f"),
            space="s",
            truncations={
                i: Truncation(tokens=len(text), limit=8) for i, text in enumerate(texts) if len(text) > 8
            },
        )

    async def rerank(
        self, collection: str, query: str, texts: Sequence[str], *, deadline_s: float | None
    ) -> RerankScores:
        self._called("rerank", query=query, texts=texts, deadline_s=deadline_s)
        return RerankScores(
            scores=tuple(float(len(text)) for text in texts[:2]), complete=False, version="v1"
        )

    async def usage(
        self, *, tenant: str, first_day: date | None, last_day: date | None
    ) -> Sequence[UsageRecord]:
        self._called("usage", tenant=tenant, first_day=first_day, last_day=last_day)
        used = Usage(prompt_tokens=3, cached_tokens=1, completion_tokens=2, ttft_ms=5.5, cost=0.25)
        day = first_day or date(2026, 5, 31)
        return [UsageRecord(day=day, tenant=tenant, generator="g", model="m", answers=4, usage=used)]

    async def info(self) -> ServerInfo:
        self._called("info")
        return ServerInfo(version="9", max_message_bytes=1, max_k=2, max_batch=3, embedder={"kind": "fake"})

    async def close(self) -> None:
        self.closed = True

    async def _wait(self) -> None:
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


class Threaded:
    """The blocking client with the face of the asynchronous one: each call in a thread."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name in ("list_documents", "search_pages", "answer", "watch_version"):
            return lambda *args, **kwargs: self._iterate(method, *args, **kwargs)
        return lambda *args, **kwargs: asyncio.to_thread(method, *args, **kwargs)

    async def _iterate(self, method: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for item in await asyncio.to_thread(lambda: list(method(*args, **kwargs))):
            yield item


Start = Callable[..., Any]


@pytest.fixture
def app() -> FakeApplication:
    return FakeApplication()


@pytest.fixture
def metrics() -> Metrics:
    """What the servers of ``start`` count."""
    return Metrics(CollectorRegistry())


@pytest.fixture
async def start(app: FakeApplication, metrics: Metrics) -> AsyncIterator[Start]:
    """Starts servers of ``app`` on free ports: ``await start(max_running=1)``; stops them at the end."""
    servers: list[Server] = []

    async def start(**options: Any) -> Server:
        given = {"listen": "127.0.0.1:0", "drain_s": 0.0, "grace_s": 0.5, **options}
        servers.append(Server(app, ServerOptions(**given), metrics))
        await servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def address(start: Start) -> str:
    """The address of one running server."""
    return str((await start()).address)


@pytest.fixture
async def asynchronous(address: str) -> AsyncIterator[AsyncClient]:
    """The asynchronous client."""
    async with AsyncClient(address) as connected:
        yield connected


@asynccontextmanager
async def _blocking(address: str) -> AsyncIterator[Threaded]:
    with Client(address) as connected:
        yield Threaded(connected)


@pytest.fixture(params=["AsyncClient", "Client"])
async def either(request: pytest.FixtureRequest, address: str) -> AsyncIterator[Any]:
    """Each of the two clients, awaited alike."""
    kinds: dict[str, Any] = {"AsyncClient": AsyncClient, "Client": _blocking}
    async with kinds[request.param](address) as connected:
        yield connected

"""What a scrape tells of searches and of the versions that answer them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from embedders.base import Vectors
from embedders.hashing import HashingEmbedder
from ragstone.errors import BackendUnavailable, InvalidArgument
from ragstone.types import Document, Mode, Query, Recipe, Wait
from retrieval import telemetry
from retrieval.telemetry import Metrics
from retrieval.versions import gauges
from tests.app.conftest import App

DOCUMENTS = [Document(id=str(i), text=f"passage number {i} about the sea") for i in range(30)]
LEGS = ("dense", "lexical")

Scrape = Callable[..., Awaitable[float | None]]


@pytest.fixture
def scrape(metrics: Metrics) -> Scrape:
    """The value of a metric, None where it has none, asked for on another thread, as Prometheus does."""

    async def value(name: str, **labels: str) -> float | None:
        return await asyncio.to_thread(metrics.registry.get_sample_value, name, labels)

    return value


@pytest.fixture
def index(scrape: Scrape) -> Scrape:
    """The same of an index: ``await index(telemetry.INDEX_LIVE, "dense")``."""

    async def value(name: str, leg: str, collection: str = "docs") -> float | None:
        return await scrape(name, collection=collection, version="v1", leg=leg)

    return value


async def until(expected: float, ask: Callable[[], Awaitable[float | None]]) -> None:
    """Wait for what happens in the background."""
    for _ in range(1_000):
        if await ask() == expected:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


async def test_the_stages_of_searches_are_timed(app: App, scrape: Scrape) -> None:
    await app.upsert(*DOCUMENTS)
    await app.search(Query(text="sea"))
    await app.search(Query(text="sea", mode=Mode.LEXICAL, filter="year > 2000"))
    times = {
        "embed": 1,
        "dense": 1,
        "lexical": 2,
        "filter": 1,
        "fuse": 2,
        "hydrate": 2,
        "wait": 0,
        "total": 2,
    }
    for stage, count in times.items():
        assert await scrape(f"{telemetry.SEARCH_STAGE_DURATION}_count", stage=stage) == count, stage


async def test_a_search_that_is_refused_has_no_stages(app: App, scrape: Scrape) -> None:
    with pytest.raises(InvalidArgument):
        await app.search(Query(text=""))
    assert await scrape(f"{telemetry.SEARCH_STAGE_DURATION}_count", stage="total") == 0


async def test_searches_without_a_leg_are_counted_under_it(
    app: App, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*args: object, **options: object) -> object:
        raise BackendUnavailable("the model is away")

    await app.upsert(*DOCUMENTS)
    monkeypatch.setattr(HashingEmbedder, "embed_queries", down)
    await app.search(Query(text="sea"))
    assert await scrape(telemetry.SEARCHES_DEGRADED, leg="dense") == 1
    assert await scrape(telemetry.SEARCHES_DEGRADED, leg="lexical") == 0


async def test_what_the_indexes_hold(app: App, index: Scrape) -> None:
    await app.upsert(*DOCUMENTS)
    await app.delete("7", "8")
    for leg in LEGS:
        assert await index(telemetry.INDEX_LIVE, leg) == 28
        assert await index(telemetry.INDEX_LAG, leg) == 0
    assert await index(telemetry.INDEX_PENDING, "dense") == 28
    assert await index(telemetry.INDEX_DELETED, "dense") == 2
    assert await index(telemetry.INDEX_SEGMENTS, "lexical")
    assert await index(telemetry.INDEX_SIZE, "lexical")


async def test_a_leg_that_stays_behind_has_a_lag(
    app: App, index: Scrape, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = True
    embed = HashingEmbedder.embed_passages

    async def embed_or_fail(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        if away:
            raise BackendUnavailable("the model is away")
        return await embed(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed_passages", embed_or_fail)
    await app.upsert(*DOCUMENTS, wait=Wait.COMMITTED)
    await until(0, lambda: index(telemetry.INDEX_LAG, "lexical"))
    assert await index(telemetry.INDEX_LAG, "dense") == 1
    assert await scrape(telemetry.VERSION_BACKLOG, collection="docs", version="v1") == 30
    away = False
    await until(0, lambda: index(telemetry.INDEX_LAG, "dense"))
    await until(0, lambda: scrape(telemetry.VERSION_BACKLOG, collection="docs", version="v1"))


async def test_a_passage_that_the_model_refuses_is_counted(
    app: App, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def picky(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> np.ndarray:
        raise InvalidArgument("cannot embed this")

    monkeypatch.setattr(HashingEmbedder, "embed_passages", picky)
    await app.upsert(DOCUMENTS[0])
    assert await scrape(telemetry.VERSION_PARKED_CHUNKS, collection="docs", version="v1") == 1
    assert await scrape(telemetry.VERSION_PARKED_STEPS, collection="docs", version="v1") == 0


async def test_the_recall_of_live_queries(app: App, index: Scrape) -> None:
    await app.upsert(*DOCUMENTS)
    assert await index(telemetry.INDEX_RECALL, "dense") is None
    assert await index(telemetry.INDEX_RECALL_SAMPLES, "dense") == 0
    await app.search(Query(text="sea"))
    await until(1, lambda: index(telemetry.INDEX_RECALL_SAMPLES, "dense"))
    assert await index(telemetry.INDEX_RECALL, "dense") == 1.0
    assert await index(telemetry.INDEX_RECALL_SAMPLES, "lexical") is None


async def test_an_index_whose_upkeep_fails(app: App, index: Scrape, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await index(telemetry.INDEX_FAILING, "dense") == 0
    dense = app.ragstone._collections.get("docs").snapshot.parts.dense
    monkeypatch.setattr(dense, "_damage", "a file was written to")
    assert await index(telemetry.INDEX_FAILING, "dense") == 1


async def test_collections_come_and_go(app: App, index: Scrape) -> None:
    await app.ragstone.create_collection("more", Recipe(index={"kind": "flat"}))
    assert await index(telemetry.INDEX_LIVE, "dense", "more") == 0
    await app.ragstone.delete_collection("more")
    assert await index(telemetry.INDEX_LIVE, "dense", "more") is None
    assert await index(telemetry.INDEX_LIVE, "dense", "docs") == 0


async def test_a_busy_event_loop_costs_a_scrape_only_the_gauges(
    app: App, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "READ_S", 0.01)
    loop = asyncio.get_running_loop()
    reading = loop.run_in_executor(None, lambda: list(metrics.registry.collect()))
    time.sleep(0.2)  # noqa: ASYNC251 (nothing else runs meanwhile: that is the point)
    names = {family.name for family in await reading}
    assert telemetry.SEARCH_STAGE_DURATION in names
    assert telemetry.INDEX_LIVE not in names

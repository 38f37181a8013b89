"""Versions that do not serve yet, tried on live searches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pytest

from ragstone.errors import BackendUnavailable, FailedPrecondition, InvalidArgument, NotFound
from ragstone.types import Contexts, Document, Mode, Query, Question, Recipe, SearchResult, Traffic, Version
from retrieval import telemetry
from retrieval.config import Settings, TrafficSettings
from retrieval.store.catalog import Catalog
from retrieval.store.traffic import Shares
from retrieval.store.values import utc_now
from retrieval.telemetry import Metrics
from retrieval.versions.snapshots import Snapshot
from retrieval.versions.sweeper import Sweeper
from retrieval.wiring import build
from tests.app.conftest import App

DOCUMENTS: Final = [Document(id=str(i), text=f"Light number {i} is lit at dusk, far out.") for i in range(40)]
DUSK: Final = Query(text="Which light is lit at dusk?", k=10)
EQUAL: Final = Recipe(index={"kind": "flat", "shards": 2})
ANOTHER_SPACE: Final = Recipe(embedder={"kind": "hashing", "dim": 96})


@pytest.fixture
async def filled(app: App) -> App:
    await app.upsert(*DOCUMENTS)
    return app


async def ready(app: App, recipe: Recipe = EQUAL) -> str:
    """The name of a new version that is ready."""
    name = (await app.ragstone.create_version("docs", recipe)).name
    async with asyncio.timeout(60):
        async for version in app.ragstone.watch_version("docs", name):
            last = version
    assert last.state == "ready", last.reason
    return name


async def set_traffic(
    app: App, name: str, *, shadow: float | None = None, canary: float | None = None
) -> Version:
    return await app.ragstone.set_traffic("docs", name, shadow=shadow, canary=canary)


async def traffic(app: App, name: str) -> Traffic:
    found = (await app.ragstone.get_version("docs", name)).traffic
    assert found is not None
    return found


async def until(holds: Callable[[Traffic], bool], app: App, name: str) -> Traffic:
    """Wait for what shadows do in the background."""
    for _ in range(1_000):
        seen = await traffic(app, name)
        if holds(seen):
            return seen
        await asyncio.sleep(0.01)
    raise AssertionError(f"it did not happen: {seen}")


def snapshot(app: App, name: str) -> Snapshot:
    followers = app.ragstone._collections.get("docs").followers.values()
    [found] = [follower.snapshot for follower in followers if follower.snapshot.version.name == name]
    return found


def break_leg(app: App, name: str, leg: str, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let every search of one leg of a version fail."""

    async def fail(*args: object, **options: object) -> object:
        raise error

    monkeypatch.setattr(getattr(snapshot(app, name).parts, leg), "search", fail)


def unlike(result: SearchResult) -> SearchResult:
    """What differs between two answers of equal versions is left out."""
    return replace(result, timings_ms={}, version="", next_page_token="")


# -- shadows ---------------------------------------------------------------------------------------


async def test_a_shadow_changes_no_answer_and_is_all_alike_where_versions_are_equal(filled: App) -> None:
    queries = [replace(DUSK, text=f"light number {i}") for i in range(20)]
    before = [unlike(await filled.search(query)) for query in queries]
    name = await ready(filled)
    await set_traffic(filled, name, shadow=1.0)
    results = [await filled.search(query) for query in queries]
    assert [unlike(result) for result in results] == before
    assert {result.version for result in results} == {"v1"}
    seen = await until(lambda seen: seen.mirrored == 20, filled, name)
    assert seen.mean_rbo == pytest.approx(1.0)
    assert seen.mean_overlap == 1.0
    assert (seen.failed, seen.dropped, seen.skipped, seen.canary_answered) == (0, 0, 0, 0)
    assert seen.shadow_latency is not None
    assert seen.shadow_latency.searches == 20
    assert seen.shadow_latency.serving_p95_ms


async def test_a_shadow_counts_as_no_live_search(filled: App, metrics: Metrics) -> None:
    name = await ready(filled)
    await set_traffic(filled, name, shadow=1.0)
    collection = filled.ragstone._collections.get("docs")
    requests = collection.requests
    await filled.search(DUSK)
    await until(lambda seen: seen.mirrored == 1, filled, name)
    assert collection.requests - requests == 1
    stages = f"{telemetry.SEARCH_STAGE_DURATION}_count"
    assert metrics.registry.get_sample_value(stages, {"stage": "total"}) == 1
    outcome = {"collection": "docs", "outcome": "mirrored"}
    assert metrics.registry.get_sample_value(telemetry.SHADOW_SEARCHES, outcome) == 1


async def test_a_shadow_that_fails_is_counted_with_its_reason_and_harms_nobody(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await ready(filled)
    await set_traffic(filled, name, shadow=1.0)
    break_leg(filled, name, "lexical", monkeypatch, RuntimeError("the file is gone"))
    assert (await filled.search(DUSK)).version == "v1"
    seen = await until(lambda seen: seen.failed == 1, filled, name)
    assert seen.last_failure == "RuntimeError: the file is gone"
    break_leg(filled, name, "lexical", monkeypatch, BackendUnavailable("away"))
    await filled.search(DUSK)
    seen = await until(lambda seen: seen.failed == 2, filled, name)
    assert (seen.mirrored, seen.last_failure) == (0, "answered without lexical")


async def test_what_cannot_be_compared_is_skipped(filled: App) -> None:
    name = await ready(filled, ANOTHER_SPACE)
    await set_traffic(filled, name, shadow=1.0)
    first = await filled.search(DUSK)
    await filled.search(replace(DUSK, page_token=first.next_page_token))
    await filled.search(Query(vector=np.eye(1, 64, dtype=np.float32)[0], mode=Mode.DENSE))
    seen = await until(lambda seen: seen.mirrored == 1, filled, name)
    assert (seen.skipped, seen.failed) == (2, 0)


async def test_searches_that_find_the_queue_full_are_dropped_and_not_delayed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(await build(settings.model_copy(update={"traffic": TrafficSettings(shadow_queue=2)})))
    await app.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await app.upsert(*DOCUMENTS)
    name = await ready(app)
    await set_traffic(app, name, shadow=1.0)
    going, parts = asyncio.Event(), snapshot(app, name).parts
    real = parts.dense.search

    async def slow(*args: Any, **options: Any) -> Any:
        await going.wait()
        return await real(*args, **options)

    monkeypatch.setattr(parts.dense, "search", slow)
    for _ in range(5):
        await app.search(DUSK)
        await asyncio.sleep(0.01)  # the first one is under way: it waits no more
    assert (await traffic(app, name)).dropped == 2
    going.set()
    assert (await until(lambda seen: seen.mirrored == 3, app, name)).failed == 0
    await app.ragstone.close()


async def test_switching_a_shadow_off_keeps_what_was_seen_and_on_again_forgets_it(filled: App) -> None:
    name = await ready(filled)
    await set_traffic(filled, name, shadow=1.0)
    await filled.search(DUSK)
    await until(lambda seen: seen.mirrored == 1, filled, name)
    await set_traffic(filled, name, shadow=0.0)
    assert filled.ragstone._collections.get("docs").traffic is None
    await filled.search(DUSK)
    assert (await traffic(filled, name)).mirrored == 1
    assert (await set_traffic(filled, name, shadow=0.5)).traffic == Traffic(shadow=0.5)


# -- canaries --------------------------------------------------------------------------------------


async def test_a_whole_canary_answers_every_new_search_and_pages_stay_where_they_began(filled: App) -> None:
    before = await filled.search(replace(DUSK, k=5))
    name = await ready(filled, ANOTHER_SPACE)
    space = (await set_traffic(filled, name, canary=1.0)).space
    first = await filled.search(replace(DUSK, k=5))
    assert (first.version, first.space) == (name, space)
    pages = [
        await filled.search(replace(DUSK, k=5, page_token=page.next_page_token)) for page in (before, first)
    ]
    assert [page.version for page in pages] == ["v1", name]
    many = await filled.ragstone.batch_search("docs", [DUSK, DUSK], tenant="t", deadline_s=None)
    assert {result.version for result in many} == {name}
    events = [
        event
        async for event in filled.ragstone.answer("docs", Question(query=DUSK), tenant="t", deadline_s=9.0)
    ]
    assert isinstance(events[0], Contexts)
    assert events[0].version == name
    seen = await traffic(filled, name)
    assert (seen.canary_answered, seen.canary_failed) == (4, 0)
    assert seen.canary_latency is not None


async def test_the_same_request_key_gets_the_same_version(filled: App) -> None:
    name = await ready(filled)
    await set_traffic(filled, name, canary=0.5)
    answered: dict[str, set[str]] = {}
    for user in (f"user {i}" for i in range(20)):
        for text in ("light", "dusk", "far out"):
            result = await filled.search(Query(text=text, request_key=user))
            answered.setdefault(user, set()).add(result.version)
    assert {len(versions) for versions in answered.values()} == {1}
    assert set.union(*answered.values()) == {"v1", name}
    await set_traffic(filled, name, canary=0.8)
    for user, versions in answered.items():
        if versions == {name}:
            assert (await filled.search(Query(text="light", request_key=user))).version == name


async def test_a_vector_of_the_serving_space_goes_to_no_canary_of_another(filled: App) -> None:
    name = await ready(filled, ANOTHER_SPACE)
    await set_traffic(filled, name, canary=1.0)
    result = await filled.search(Query(vector=np.eye(1, 64, dtype=np.float32)[0], mode=Mode.DENSE))
    assert result.version == "v1"
    assert (await traffic(filled, name)).canary_failed == 0


@pytest.mark.parametrize(
    "error", [BackendUnavailable("away"), RuntimeError("broken"), InvalidArgument("not for this one")]
)
async def test_what_a_canary_cannot_answer_the_serving_version_does_and_the_canary_is_stopped(
    filled: App, error: Exception, monkeypatch: pytest.MonkeyPatch, metrics: Metrics
) -> None:
    before = unlike(await filled.search(DUSK))
    name = await ready(filled)
    await set_traffic(filled, name, canary=1.0)
    break_leg(filled, name, "dense", monkeypatch, error)
    results = [await filled.search(DUSK) for _ in range(5)]
    assert [result.version for result in results] == ["v1"] * 5
    assert [unlike(result) for result in results] == [before] * 5
    seen = await traffic(filled, name)
    assert (seen.canary, seen.canary_answered, seen.canary_failed) == (0.0, 0, 3)
    assert seen.stopped.startswith("canary_failures is 0.03, the limit 0.02 (3 of the last 3 searches")
    assert "dense" in seen.last_failure or str(error) in seen.last_failure
    assert metrics.registry.get_sample_value(telemetry.CANARIES_STOPPED, {"collection": "docs"}) == 1


async def test_a_canary_that_was_stopped_is_written_down_with_its_numbers(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await ready(filled)
    await set_traffic(filled, name, canary=1.0)
    break_leg(filled, name, "dense", monkeypatch, RuntimeError("broken"))
    for _ in range(3):
        await filled.search(DUSK)
    await filled.ragstone._traffic.look()
    events = await Catalog(filled.ragstone._database).events(snapshot(filled, name).version.id)
    assert events[-1].event == "canary_stopped"
    assert events[-1].detail["canary_failures"] == 0.03
    assert events[-1].detail["share"] == 1.0
    assert filled.ragstone._collections.get("docs").traffic is None


async def test_a_canary_that_was_stopped_can_be_tried_again_and_starts_afresh(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await ready(filled)
    await set_traffic(filled, name, canary=1.0)
    with monkeypatch.context() as broken:
        break_leg(filled, name, "dense", broken, RuntimeError("broken"))
        for _ in range(3):
            await filled.search(DUSK)
    await set_traffic(filled, name, canary=1.0)
    assert (await filled.search(DUSK)).version == name
    seen = await traffic(filled, name)
    assert (seen.canary, seen.canary_answered, seen.canary_failed, seen.stopped) == (1.0, 1, 0, "")


async def test_a_canary_that_hangs_leaves_time_for_the_serving_version(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*args: object, **options: object) -> None:
        await asyncio.Event().wait()

    name = await ready(filled)
    await set_traffic(filled, name, canary=1.0)
    monkeypatch.setattr(snapshot(filled, name).parts.dense, "search", hang)
    result = await filled.ragstone.search("docs", DUSK, tenant="t", deadline_s=0.2)
    assert result.version == "v1"
    assert (await traffic(filled, name)).last_failure == "no answer in 0.1 s"


async def test_a_caller_in_a_hurry_is_no_failure_of_the_canary(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowed(version: str) -> None:
        real = snapshot(filled, version).parts.dense.search

        async def slow(*args: Any, **options: Any) -> Any:
            await asyncio.sleep(0.06)
            return await real(*args, **options)

        monkeypatch.setattr(snapshot(filled, version).parts.dense, "search", slow)

    name = await ready(filled)
    await set_traffic(filled, name, canary=1.0)
    for version in ("v1", name):
        slowed(version)
    result = await filled.ragstone.search("docs", DUSK, tenant="t", deadline_s=0.1)
    assert result.version == "v1"
    assert (await traffic(filled, name)).canary_failed == 0


async def test_what_the_caller_got_wrong_is_an_error_and_no_failure_of_the_canary(filled: App) -> None:
    name = await ready(filled)
    await set_traffic(filled, name, canary=1.0)
    with pytest.raises(InvalidArgument) as refused:
        await filled.search(Query(text=""))
    assert [violation.field for violation in refused.value.violations] == ["query.text"]
    assert (await traffic(filled, name)).canary_failed == 0


async def test_a_canary_much_slower_than_the_serving_version_is_stopped(filled: App) -> None:
    name = await ready(filled)
    await set_traffic(filled, name, canary=0.5)
    result = await filled.search(DUSK)
    [version] = filled.ragstone._collections.get("docs").traffic.versions  # type: ignore[union-attr]
    for _ in range(100):
        version.answered(replace(result, timings_ms={"total": 50.0}))
        version.canary_seen.served(10.0)
    await filled.ragstone._traffic.look()
    seen = await traffic(filled, name)
    assert seen.canary == 0.0
    assert seen.stopped.startswith("canary_p95_ratio is 5, the limit 2 (50 ms, the serving version 10 ms)")


# -- from beginning to end -------------------------------------------------------------------------


async def test_only_a_version_that_is_ready_gets_traffic(filled: App) -> None:
    with pytest.raises(FailedPrecondition, match="v1 is serving; to send traffic to it, it has to be ready"):
        await set_traffic(filled, "v1", canary=0.1)
    await filled.ragstone.create_version("docs", EQUAL, paused=True)
    with pytest.raises(FailedPrecondition, match="v2 is paused"):
        await set_traffic(filled, "v2", shadow=0.1)
    with pytest.raises(NotFound):
        await set_traffic(filled, "v9", shadow=0.1)


async def test_a_collection_has_one_canary_at_a_time_and_any_number_of_shadows(filled: App) -> None:
    first, second = await ready(filled), await ready(filled, ANOTHER_SPACE)
    await set_traffic(filled, first, canary=0.1, shadow=0.5)
    with pytest.raises(FailedPrecondition, match=f"version {first} is the canary") as refused:
        await set_traffic(filled, second, canary=0.1)
    assert refused.value.metadata == {"canary": first}
    assert (await set_traffic(filled, second, shadow=0.5)).traffic == Traffic(shadow=0.5)
    await set_traffic(filled, first, canary=0.0)
    seen = (await set_traffic(filled, second, canary=0.1)).traffic
    assert seen == Traffic(shadow=0.5, canary=0.1)


async def test_a_promotion_ends_the_traffic_of_all_versions(filled: App) -> None:
    first, second = await ready(filled), await ready(filled, ANOTHER_SPACE)
    await set_traffic(filled, first, canary=1.0)
    await set_traffic(filled, second, shadow=1.0)
    promoted = await filled.ragstone.promote_version("docs", first, force=False)
    assert promoted.traffic is None
    assert [version.traffic for version in await filled.ragstone.versions("docs")] == [None] * 3
    assert filled.ragstone._collections.get("docs").traffic is None
    assert (await filled.search(DUSK)).version == first
    assert (await set_traffic(filled, "v1", canary=1.0)).state == "retiring"
    assert (await filled.search(DUSK)).version == "v1"
    await filled.ragstone.rollback("docs")
    assert filled.ragstone._collections.get("docs").traffic is None


async def test_a_canary_that_is_stopped_keeps_its_version_no_longer(filled: App, settings: Settings) -> None:
    name = await ready(filled)
    await filled.ragstone.promote_version("docs", name, force=False)
    await set_traffic(filled, "v1", canary=0.5)
    window_s, now = settings.rebuild.rollback_window_s, utc_now()
    stopping = Shares(filled.ragstone._database, clock=lambda: now + timedelta(seconds=window_s - 1))
    await stopping.stop_canary(snapshot(filled, "v1").version.id, {}, detail={})
    sweeper = Sweeper(
        versions=filled.ragstone._versions,
        collections=filled.ragstone._collections,
        catalog=Catalog(filled.ragstone._database),
        homes=filled.ragstone._collections._homes,
        window_s=window_s,
        clock=lambda: now + timedelta(seconds=window_s + 1),
    )
    await sweeper.sweep()
    assert [version.name for version in await filled.ragstone.versions("docs")] == [name]


async def test_deleting_a_version_or_its_collection_ends_its_traffic(filled: App) -> None:
    first, second = await ready(filled), await ready(filled, ANOTHER_SPACE)
    await set_traffic(filled, first, canary=1.0, shadow=1.0)
    await filled.search(DUSK)
    await filled.ragstone.delete_version("docs", first)
    assert (await filled.search(DUSK)).version == "v1"
    await set_traffic(filled, second, canary=1.0, shadow=1.0)
    await filled.search(DUSK)
    await filled.ragstone.delete_collection("docs")
    kept = "SELECT count(*) FROM version_traffic"
    assert await filled.ragstone._database.read(lambda c: c.exec_driver_sql(kept).scalar()) == 0


async def test_a_restart_goes_on_with_shares_and_with_what_was_seen(settings: Settings) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await first.upsert(*DOCUMENTS)
    name = await ready(first)
    await set_traffic(first, name, shadow=1.0)
    await first.search(DUSK)
    await until(lambda seen: seen.mirrored == 1, first, name)
    await set_traffic(first, name, canary=1.0)
    await first.search(DUSK)
    before = await traffic(first, name)
    await first.ragstone.close()

    second = App(await build(settings))
    await following(second, name)
    assert await traffic(second, name) == before
    assert (before.shadow, before.canary, before.canary_answered) == (1.0, 1.0, 1)
    assert (await second.search(DUSK)).version == name
    await set_traffic(second, name, canary=0.0)
    await second.search(DUSK)
    seen = await until(lambda seen: seen.mirrored == 2, second, name)
    assert seen.canary_answered == 2
    await second.ragstone.close()


async def following(app: App, name: str) -> None:
    """Wait until a version is open again."""
    row = await Catalog(app.ragstone._database).version(app.ragstone._collections.get("docs").row.id, name)
    await app.ragstone._rebuilds.wait_until_following(row.id)


# -- versions by name ------------------------------------------------------------------------------


async def test_a_version_that_a_query_names_answers_whatever_is_tried(filled: App) -> None:
    name = await ready(filled, ANOTHER_SPACE)
    await set_traffic(filled, name, canary=1.0)
    assert (await filled.search(DUSK)).version == name
    for named in ("v1", name):
        result = await filled.search(replace(DUSK, version=named))
        assert (result.version, len(result.hits)) == (named, 10)


async def test_a_query_that_names_a_version_is_nobody_s_share(filled: App) -> None:
    name = await ready(filled)
    await set_traffic(filled, name, shadow=1.0)
    await filled.search(replace(DUSK, version="v1"))
    await filled.search(DUSK)
    assert (await until(lambda seen: seen.mirrored > 0, filled, name)).mirrored == 1
    [recorded] = filled.ragstone._collections.get("docs").recording.queries()
    assert not recorded.version


async def test_further_pages_come_from_the_version_that_was_named(filled: App) -> None:
    name = await ready(filled)
    asked = replace(DUSK, version=name)
    first = await filled.search(asked)
    second = await filled.search(replace(asked, page_token=first.next_page_token))
    assert second.version == name
    assert not {hit.chunk_id for hit in first.hits} & {hit.chunk_id for hit in second.hits}


async def test_a_version_that_is_not_open_is_refused_with_those_that_are(filled: App) -> None:
    paused = (await filled.ragstone.create_version("docs", EQUAL, paused=True)).name
    with pytest.raises(FailedPrecondition, match=f"{paused} of 'docs' is not open; open are v1"):
        await filled.search(replace(DUSK, version=paused))
    with pytest.raises(NotFound, match="no version v9; open are v1"):
        await filled.search(replace(DUSK, version="v9"))

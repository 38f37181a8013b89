"""The calls for versions of both clients, through a real server, to the application and back."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from ragstone import AsyncClient, Client, GoldenQuery, QuerySource, Recipe, errors
from tests.api.conftest import COMPARISON, GOLDEN

OVERLAY = Recipe(index={"kind": "ivf_pq", "shards": 4})


async def test_a_rebuild_begins_with_the_recipe_given(either: Any, app: Any) -> None:
    begun = await either.create_version("docs", OVERLAY)
    assert app.calls == [("create_version", {"collection": "docs", "recipe": OVERLAY, "paused": False})]
    assert (begun.name, begun.state) == ("v2", "building")
    assert (begun.progress.chunks_done, begun.progress.seconds_left) == (50, 4.0)


async def test_a_rebuild_can_begin_paused(either: Any, app: Any) -> None:
    await either.create_version("docs", OVERLAY, paused=True)
    assert [arguments["paused"] for _, arguments in app.calls] == [True]


async def test_a_plan_says_what_a_rebuild_would_take(either: Any, app: Any) -> None:
    plan = await either.plan_version("docs", OVERLAY)
    assert app.calls == [("plan_version", {"collection": "docs", "recipe": OVERLAY})]
    assert (plan.chunks, plan.chunks_estimated, plan.disk_bytes) == (100, True, 2**40)
    assert plan.notes == ("The embedding space stays.",)


async def test_a_watch_gives_every_change_and_ends_when_the_version_is_ready(either: Any) -> None:
    seen = [version async for version in either.watch_version("docs", "v2")]
    assert [version.state for version in seen] == ["building", "ready"]
    assert seen[0].progress is not None
    assert [(gate.name, gate.passed, gate.value) for gate in seen[1].gates] == [("recall", True, 0.99)]


async def test_promotion_is_forced_only_on_request(either: Any, app: Any) -> None:
    assert (await either.promote("docs", "v2")).state == "serving"
    await either.promote("docs", "v2", force=True)
    assert [arguments["force"] for _, arguments in app.calls] == [False, True]


async def test_a_promotion_may_bring_its_own_limits(either: Any, app: Any) -> None:
    await either.promote("docs", "v2", gates={"overlap": 0.5})
    assert [arguments["limits"] for _, arguments in app.calls] == [{"overlap": 0.5}]


async def test_two_versions_are_compared_on_queries_of_the_callers(either: Any, app: Any) -> None:
    assert await either.compare_versions("docs", "v1", "v2", queries=[GOLDEN]) == COMPARISON
    assert app.calls == [("compare_versions", {"a": "v1", "b": "v2", "queries": [GOLDEN], "source": None})]


async def test_two_versions_are_compared_on_queries_of_a_source(either: Any, app: Any) -> None:
    await either.compare_versions("docs", "v1", "v2", source="recorded")
    assert app.calls[0][1]["source"] is QuerySource.RECORDED


async def test_an_unknown_source_is_refused_with_those_there_are(either: Any, app: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="recorded") as caught:
        await either.compare_versions("docs", "v1", "v2", source="yesterday")
    assert [violation.field for violation in caught.value.violations] == ["source"]


async def test_golden_queries_are_set_and_shown(either: Any, app: Any) -> None:
    await either.set_golden_queries("docs", [GOLDEN])
    assert await either.get_golden_queries("docs") == [GOLDEN]
    assert app.calls[0] == ("set_golden_queries", {"name": "docs", "queries": [GOLDEN]})


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (GoldenQuery(text="", relevant={"1": 1}), "queries[1].text"),
        (GoldenQuery(text="x", relevant={"1": 0}), 'queries[1].relevant["1"]'),
        (GoldenQuery(text="x"), "queries[1]"),
    ],
)
async def test_a_golden_query_that_says_nothing_is_refused_by_its_place(
    either: Any, app: Any, query: GoldenQuery, field: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await either.set_golden_queries("docs", [GOLDEN, query])
    assert [violation.field for violation in caught.value.violations] == [field]
    assert app.calls == []


async def test_a_gate_that_does_not_pass_tells_its_numbers(either: Any, app: Any) -> None:
    app.errors.append(
        errors.FailedPrecondition(
            "recall is 0.91, below 0.98", metadata={"recall": "0.91", "recall.limit": "0.98"}
        )
    )
    with pytest.raises(errors.FailedPrecondition, match=r"0\.91, below 0\.98") as caught:
        await either.promote("docs", "v2")
    assert caught.value.metadata == {"recall": "0.91", "recall.limit": "0.98"}


async def test_a_rollback_names_the_collection_alone(either: Any, app: Any) -> None:
    assert (await either.rollback("docs")).state == "serving"
    assert app.calls == [("rollback", {"collection": "docs"})]


async def test_a_version_is_paused_resumed_and_deleted_by_its_name(either: Any, app: Any) -> None:
    paused = await either.pause_version("docs", "v2")
    assert (paused.state, paused.reason) == ("paused", "asked for")
    assert (await either.resume_version("docs", "v2")).state == "building"
    assert await either.delete_version("docs", "v2") == 2**40
    assert [name for name, _ in app.calls] == ["pause_version", "resume_version", "delete_version"]
    assert all(arguments == {"collection": "docs", "name": "v2"} for _, arguments in app.calls)


@pytest.mark.parametrize("call", ["create_version", "rollback"])
async def test_what_would_be_something_else_the_second_time_is_sent_once(
    either: Any, app: Any, call: str
) -> None:
    app.errors.append(errors.BackendUnavailable("one moment"))
    arguments = (OVERLAY,) if call == "create_version" else ()
    with pytest.raises(errors.BackendUnavailable):
        await getattr(either, call)("docs", *arguments)
    assert [name for name, _ in app.calls] == [call]


async def test_a_promotion_that_got_no_answer_is_sent_again(either: Any, app: Any) -> None:
    app.errors.append(errors.BackendUnavailable("one moment"))
    assert (await either.promote("docs", "v2")).state == "serving"


# -- traffic --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shares", [{"shadow": 0.2, "canary": 0.05}, {"shadow": 0.2}, {"canary": 0.0}, {"canary": 1.0}]
)
async def test_a_share_that_is_left_out_is_left_as_it_is(
    either: Any, app: Any, shares: dict[str, float]
) -> None:
    version = await either.set_traffic("docs", "v2", **shares)
    given = {"shadow": None, "canary": None, **shares}
    assert app.calls == [("set_traffic", {"collection": "docs", "version": "v2", **given})]
    assert (version.traffic.mirrored, version.traffic.mean_rbo, version.traffic.mean_overlap) == (
        9,
        0.75,
        None,
    )
    assert (version.traffic.canary_latency.p95_ms, version.traffic.canary_latency.serving_p95_ms) == (
        2.5,
        None,
    )
    assert version.traffic.shadow_latency is None


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"shadow": 1.5}, "shadow"),
        ({"canary": -0.1}, "canary"),
        ({"canary": float("nan")}, "canary"),
        ({"version": "", "canary": 0.1}, "version"),
        ({}, ""),
    ],
)
async def test_shares_that_are_none_are_refused(
    either: Any, app: Any, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await either.set_traffic(**{"collection": "docs", "version": "v2", **arguments})
    assert [violation.field for violation in caught.value.violations] == [field]
    assert app.calls == []


# -- re-embedding ---------------------------------------------------------------------------------


async def test_texts_are_lent_with_what_has_to_embed_them(either: Any, app: Any) -> None:
    part = await either.list_missing_embeddings("docs", "v2", worker="w", max_texts=5, lease_s=2.5)
    assert app.calls == [("list_missing_embeddings", {"worker": "w", "max_texts": 5, "lease_s": 2.5})]
    assert [text.text for text in part.texts] == ["Title words", "x"]
    assert (part.lease, part.space, part.embedder) == ("l1", "s", {"kind": "hashing", "dim": 2})
    assert (part.missing, part.parked, part.done) == (9, 1, False)


async def test_vectors_come_back_by_text_and_refusals_with_their_reason(either: Any, app: Any) -> None:
    vectors = {b"a" * 16: np.array([1, 2], "f"), b"b" * 16: [3.0, 4.0]}
    refused = {b"c" * 16: "too odd"}
    assert (
        await either.put_embeddings("docs", "v2", space="s", lease="l", vectors=vectors, refused=refused) == 7
    )
    [(_, told)] = app.calls
    assert told["vectors"] == {b"a" * 16: [1.0, 2.0], b"b" * 16: [3.0, 4.0]}
    assert (told["space"], told["lease"], told["refused"]) == ("s", "l", refused)


@pytest.mark.parametrize(
    ("vectors", "field"),
    [({b"short": [1.0]}, "text_hashes[0]"), ({b"a" * 16: [1.0], b"b" * 16: [1.0, 2.0]}, "vectors")],
)
async def test_vectors_that_cannot_be_right_are_refused_by_the_field(
    either: Any, app: Any, vectors: Any, field: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await either.put_embeddings("docs", "v2", space="s", lease="l", vectors=vectors)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert app.calls == []


# -- watching ---------------------------------------------------------------------------------


async def test_who_stops_to_watch_stops_the_watch_on_the_server(asynchronous: AsyncClient, app: Any) -> None:
    stream = asynchronous.watch_version("docs", "wait")
    await anext(stream)
    await asyncio.wait_for(app.waiting.wait(), 5)
    await stream.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(app.stopped.wait(), 5)


async def test_a_blocking_watch_that_is_left_stops_too(address: str, app: Any) -> None:
    def first() -> None:
        with Client(address) as client:
            for _ in client.watch_version("docs", "wait"):
                break

    await asyncio.to_thread(first)
    await asyncio.wait_for(app.stopped.wait(), 5)


async def test_a_watch_outlives_the_client_s_deadline(address: str, app: Any) -> None:
    async with AsyncClient(address, timeout=0.05) as client:
        stream = client.watch_version("docs", "wait")
        await anext(stream)
        following = asyncio.ensure_future(anext(stream))
        done, _ = await asyncio.wait({following}, timeout=0.2)
        assert not done
        following.cancel()


async def test_a_watch_ends_at_a_deadline_of_its_own(asynchronous: AsyncClient, app: Any) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        [version async for version in asynchronous.watch_version("docs", "wait", timeout=0.2)]
    await asyncio.wait_for(app.stopped.wait(), 5)


async def test_watches_take_no_place_of_searches(start: Any, app: Any) -> None:
    server = await start(max_running=1, max_waiting=0)
    async with AsyncClient(server.address) as client:
        stream = client.watch_version("docs", "wait")
        await anext(stream)
        await client.search("docs", "question")
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_server_that_goes_ends_its_watches_at_once(start: Any, app: Any) -> None:
    server = await start(grace_s=60.0)
    async with AsyncClient(server.address) as client:
        stream = client.watch_version("docs", "wait")
        await anext(stream)
        leaving = asyncio.create_task(server.stop())
        with pytest.raises(errors.BackendUnavailable, match="shutting down"):
            await anext(stream)
        await asyncio.wait_for(leaving, 30)
    assert app.stopped.is_set()


async def test_a_watch_that_fails_raises_after_what_it_gave(either: Any, app: Any) -> None:
    app.errors.append(errors.NotFound("there is no version"))
    with pytest.raises(errors.NotFound, match="no version"):
        [version async for version in either.watch_version("docs", "v9")]


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["promote", "pause_version", "resume_version", "delete_version"])
@pytest.mark.parametrize(
    ("collection", "name", "field"),
    [("Docs", "v2", "collection"), ("docs", "", "name"), ("docs", "v" * 129, "name")],
)
async def test_impossible_names_are_refused_by_the_field(
    either: Any, app: Any, call: str, collection: str, name: str, field: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await getattr(either, call)(collection, name)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert app.calls == []


async def test_a_watch_refuses_impossible_names_too(either: Any, app: Any) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        [version async for version in either.watch_version("docs", "")]
    assert [violation.field for violation in caught.value.violations] == ["name"]
    assert app.calls == []

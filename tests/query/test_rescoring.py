"""The rerank stage: what is reranked, and that nothing found is lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from pyroaring import BitMap64

from ragstone.errors import BackendUnavailable, FailedPrecondition, InvalidArgument
from ragstone.types import Query, Rerank
from retrieval.query.deadlines import Deadline
from retrieval.query.fusion import Fused
from retrieval.query.rescoring import Rescored, Stage, Window, left_alone, rerank, window_of
from retrieval.versions.recipe import RerankerSpec

FUSED: list[Fused] = [(key, 1.0 - key / 10) for key in range(10)]
WINDOW = Window(depth=4, weight=1.0, timeout_s=5.0)
SPEC = RerankerSpec(kind="cross_encoder", depth=30, weight=0.75)
TEXT = Query(text="why?")


class Backwards:
    """Finds the last candidate best. ``first`` is how many it gets done; ``error`` is what it raises."""

    def __init__(self, first: int = 100, error: Exception | None = None, hangs: bool = False) -> None:
        self.first, self.error, self.hangs = first, error, hangs
        self.asked: list[Sequence[int]] = []

    async def rescore(self, query: Query, keys: Sequence[int], *, deadline_s: float) -> Rescored:
        self.asked.append(keys)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        done = keys[: self.first]
        return Rescored(scores={key: float(key) for key in done}, complete=len(done) == len(keys))


async def reranked(
    rescorer: Backwards, window: Window = WINDOW, deadline_s: float | None = 5.0, seen: Sequence[int] = ()
) -> Stage:
    deadline = Deadline(deadline_s)
    return await rerank(FUSED, TEXT, window, rescorer, deadline=deadline, seen=BitMap64(seen))


def keys(stage: Stage) -> list[int]:
    return [key for key, _ in stage.reranked.candidates]


async def test_the_window_is_reranked_and_the_rest_follows() -> None:
    stage = await reranked(Backwards())
    assert keys(stage) == [3, 2, 1, 0, 4, 5, 6, 7, 8, 9]
    assert not stage.degraded
    assert stage.told == "4 of 4 candidates, weight 1"


async def test_what_the_time_did_not_suffice_for_is_said_to_be_missing() -> None:
    stage = await reranked(Backwards(first=2))
    assert keys(stage) == [1, 0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert stage.degraded
    assert stage.told == "2 of 4 candidates, weight 1"


@pytest.mark.parametrize("error", [BackendUnavailable("away"), ValueError("a bug")])
async def test_a_reranker_that_fails_leaves_the_fused_ranking(error: Exception) -> None:
    stage = await reranked(Backwards(error=error))
    assert stage.reranked.candidates == FUSED
    assert stage.degraded
    assert type(error).__name__ in stage.told


async def test_a_reranker_that_hangs_is_not_waited_for() -> None:
    hurried = Window(depth=4, weight=1.0, timeout_s=0.05)
    for window, deadline_s in ((hurried, None), (WINDOW, 0.2)):
        async with asyncio.timeout(4.0):
            stage = await reranked(Backwards(hangs=True), window, deadline_s)
        assert stage.reranked.candidates == FUSED
        assert stage.degraded


async def test_without_time_the_reranker_is_not_even_asked() -> None:
    rescorer = Backwards()
    stage = await reranked(rescorer, deadline_s=0.01)
    assert stage.degraded
    assert rescorer.asked == []


async def test_a_caller_who_goes_away_is_not_a_failing_reranker() -> None:
    task = asyncio.ensure_future(reranked(Backwards(hangs=True), deadline_s=None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_later_pages_rerank_what_the_first_one_did() -> None:
    rescorer = Backwards()
    assert keys(await reranked(rescorer, seen=(3, 2, 1))) == keys(await reranked(rescorer))
    assert rescorer.asked == [[0, 1, 2, 3], [0, 1, 2, 3]]


async def test_pages_behind_the_window_do_without_the_reranker() -> None:
    rescorer = Backwards()
    stage = await reranked(rescorer, seen=(0, 1, 2, 3, 4))
    assert (rescorer.asked, stage.degraded) == ([], False)
    assert stage.reranked.candidates == FUSED


def test_the_recipe_decides_what_a_query_does_not_say() -> None:
    assert window_of(SPEC, TEXT) == Window(depth=30, weight=0.75, timeout_s=10.0)
    asked = Query(text="why?", rerank=Rerank(depth=5))
    assert window_of(SPEC, asked) == Window(depth=5, weight=0.75, timeout_s=10.0)
    asked = Query(text="why?", rerank=Rerank(weight=0.0))
    assert window_of(SPEC, asked) == Window(depth=30, weight=0.0, timeout_s=10.0)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (Query(text="why?", rerank=Rerank(off=True)), "not reranked: the query asks for none"),
        (Query(vector=[1.0]), "not reranked: the query has no text"),
    ],
)
def test_what_is_not_to_be_reranked_is_left_alone_and_said_why(query: Query, why: str) -> None:
    assert window_of(SPEC, query) is None
    stage = left_alone(FUSED, SPEC, query)
    assert (stage.told, stage.degraded) == (why, False)


def test_a_recipe_without_a_reranker_needs_no_words() -> None:
    assert window_of(RerankerSpec(), TEXT) is None
    assert left_alone(FUSED, RerankerSpec(), TEXT).told == ""


def test_asking_for_a_reranker_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FailedPrecondition, match="has none"):
        window_of(RerankerSpec(), Query(text="why?", rerank=Rerank()))


def test_asking_to_rerank_by_a_vector_is_an_error() -> None:
    with pytest.raises(InvalidArgument) as caught:
        window_of(SPEC, Query(vector=[1.0], rerank=Rerank()))
    assert caught.value.violations[0].field == "rerank"

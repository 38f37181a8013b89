"""The batcher: who shares a batch, who waits, and who fails."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedders.base import Vectors
from embedders.batching import Batcher, BatchLimits
from ragstone.errors import BackendUnavailable, Internal, Overloaded, RagstoneError


def rows(items: Sequence[int]) -> list[Vectors]:
    return [np.array([item, 1], np.float32) for item in items]


def length(item: int) -> int:
    return abs(item) % 50 + 1


class Model:
    """Stands still until it is let go, and notes what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self.gate = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[Vectors]:
        self.batches.append(list(items))
        self.entered.set()
        self.gate.wait()
        return rows(items)


@asynccontextmanager
async def batcher(
    run: Callable[[Sequence[int]], Sequence[Vectors | RagstoneError]],
    *,
    workers: int = 1,
    batch: int = 64,
    queue: int = 1000,
) -> AsyncIterator[Batcher[int, Vectors]]:
    limits = BatchLimits(workers=workers, query_tokens=batch, bulk_tokens=batch, queue_tokens=queue)
    opened = Batcher(run, limits=limits)
    try:
        yield opened
    finally:
        if isinstance(run, Model):
            run.gate.set()
        await opened.close()


def submit(
    to: Batcher[int, Vectors], *items: int, bulk: bool = False, tokens: int = 1, tenant: str = ""
) -> asyncio.Task[list[Vectors]]:
    return asyncio.ensure_future(to.submit(items, [tokens] * len(items), bulk=bulk, tenant=tenant))


async def entered(model: Model) -> None:
    await asyncio.to_thread(model.entered.wait)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@given(
    calls=st.lists(
        st.tuples(st.lists(st.integers(0, 10_000), max_size=30), st.booleans(), st.sampled_from("abc")),
        max_size=12,
    ),
    workers=st.integers(1, 3),
    batch=st.integers(1, 200),
)
async def test_every_caller_gets_its_own_rows_in_its_own_order(
    calls: list[tuple[list[int], bool, str]], workers: int, batch: int
) -> None:
    async with batcher(rows, workers=workers, batch=batch, queue=100_000) as shared:
        got = await asyncio.gather(
            *(
                shared.submit(items, list(map(length, items)), bulk=bulk, tenant=tenant)
                for items, bulk, tenant in calls
            )
        )
    for (items, _, _), vectors in zip(calls, got, strict=True):
        np.testing.assert_array_equal(vectors, rows(items))


async def test_calls_that_wait_together_share_a_batch() -> None:
    model = Model()
    async with batcher(model) as shared:
        first = submit(shared, 0)
        await entered(model)
        waiting = [submit(shared, i) for i in (1, 2, 3)]
        await settle()
        model.gate.set()
        await asyncio.gather(first, *waiting)
    assert model.batches == [[0], [1, 2, 3]]


async def test_a_batch_holds_entries_of_like_length_within_its_budget() -> None:
    seen: list[list[int]] = []

    def run(items: Sequence[int]) -> list[Vectors]:
        seen.append(list(items))
        return rows(items)

    async with batcher(run, batch=40) as shared:
        lengths = [10, 2, 9, 3, 10, 2, 30, 10]
        await shared.submit(lengths, lengths, bulk=True)
    assert all(max(batch) * len(batch) <= 40 for batch in seen)
    assert sorted(map(sorted, seen)) == [[2, 2, 3], [9, 10, 10, 10], [30]]


async def test_a_text_longer_than_the_budget_still_runs_alone() -> None:
    async with batcher(rows, batch=4) as shared:
        np.testing.assert_array_equal(await shared.submit([7], [500]), rows([7]))


async def test_queries_go_before_passages_that_came_first() -> None:
    model = Model()
    async with batcher(model) as shared:
        first = submit(shared, 0)
        await entered(model)
        bulk, query = submit(shared, 1, bulk=True), submit(shared, 2)
        await settle()
        model.gate.set()
        await asyncio.gather(first, bulk, query)
    assert model.batches == [[0], [2], [1]]


async def test_passages_move_while_queries_never_stop_waiting() -> None:
    model = Model()
    async with batcher(model, batch=1) as shared:
        first = submit(shared, 0)
        await entered(model)
        rest = [submit(shared, 99, bulk=True), *(submit(shared, i) for i in range(1, 20))]
        await settle()
        model.gate.set()
        await asyncio.gather(first, *rest)
    assert model.batches.index([99]) < 6


async def test_a_full_queue_refuses_queries_and_says_when_to_come_back() -> None:
    model = Model()
    async with batcher(model, queue=10) as shared:
        running = submit(shared, 0)
        await entered(model)
        waiting = submit(shared, 1, tokens=8)
        await settle()
        with pytest.raises(Overloaded) as caught:
            await shared.submit([2], [8])
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 0
        model.gate.set()
        await asyncio.gather(running, waiting)


async def test_a_tenant_that_fills_the_queue_is_refused_and_others_still_get_in() -> None:
    model = Model()
    async with batcher(model, queue=100) as shared:
        running = submit(shared, 0)
        await entered(model)
        flood = [submit(shared, i, tokens=5, tenant="flood") for i in range(1, 40)]
        await settle()
        light = submit(shared, 99, tokens=5, tenant="light")
        await settle()
        assert not light.done()
        refused = [task for task in flood if task.done()]
        assert refused
        assert all(isinstance(task.exception(), Overloaded) for task in refused)
        model.gate.set()
        np.testing.assert_array_equal(await light, rows([99]))
        await asyncio.gather(running, *flood, return_exceptions=True)


async def test_who_has_much_waiting_is_told_to_come_back_later_than_who_has_little() -> None:
    model = Model()
    async with batcher(model, queue=100) as shared:
        model.gate.set()
        await submit(shared, 0)  # a first rate
        model.gate.clear()
        running = submit(shared, 0)
        await asyncio.sleep(0.05)
        kept = submit(shared, *range(16), tokens=5, tenant="flood")
        await settle()
        waits = []
        for tenant in ("flood", "light"):
            with pytest.raises(Overloaded) as caught:
                await shared.submit([1], [21], tenant=tenant)
            waits.append(caught.value.retry_after_s or 0)
        assert waits[0] > waits[1] > 0
        model.gate.set()
        await asyncio.gather(running, kept)


async def test_a_huge_import_does_not_hold_up_another() -> None:
    model = Model()
    async with batcher(model, batch=4, queue=40) as shared:
        huge = submit(shared, *range(400), bulk=True, tenant="huge")
        await entered(model)
        small = submit(shared, *range(1000, 1006), bulk=True, tenant="small")
        await settle()
        model.gate.set()
        await asyncio.gather(huge, small)
    last = max(i for i, batch in enumerate(model.batches) if any(item >= 1000 for item in batch))
    assert last < 8


async def test_a_full_queue_makes_passages_wait_for_room() -> None:
    async with batcher(rows, batch=4, queue=8) as shared:
        got = await asyncio.gather(*(shared.submit(list(range(40)), [1] * 40, bulk=True) for _ in range(3)))
    for vectors in got:
        np.testing.assert_array_equal(vectors, rows(range(40)))


async def test_cancelled_entries_are_never_computed() -> None:
    model = Model()
    async with batcher(model) as shared:
        running = submit(shared, 0)
        await entered(model)
        gone, kept = submit(shared, 1), submit(shared, 2)
        await settle()
        gone.cancel()
        await settle()
        model.gate.set()
        await asyncio.gather(running, kept)
    assert model.batches == [[0], [2]]


async def test_entries_whose_deadline_has_passed_are_never_computed() -> None:
    model = Model()
    async with batcher(model) as shared:
        running = submit(shared, 0)
        await entered(model)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await submit(shared, 1)
        kept = submit(shared, 2)
        await settle()
        model.gate.set()
        await asyncio.gather(running, kept)
    assert model.batches == [[0], [2]]


async def test_a_text_that_breaks_the_model_fails_only_its_own_call() -> None:
    gate = threading.Event()

    def run(items: Sequence[int]) -> list[Vectors]:
        gate.wait()
        if 13 in items:
            raise BackendUnavailable("thirteen")
        return rows(items)

    async with batcher(run) as shared:
        first = submit(shared, 0)
        calls = [submit(shared, i) for i in (12, 13, 14)]
        await settle()
        gate.set()
        await first
        got = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(got[1], BackendUnavailable)
    np.testing.assert_array_equal(np.concatenate([got[0], got[2]]), rows([12, 14]))


async def test_a_failed_call_of_many_batches_fails_once_and_leaves_the_batcher_usable() -> None:
    def run(items: Sequence[int]) -> list[Vectors]:
        if -1 in items:
            raise ValueError("a bug")
        return rows(items)

    async with batcher(run, batch=2, queue=4) as shared:
        with pytest.raises(Internal, match="a bug"):
            await shared.submit([-1] * 50, [1] * 50, bulk=True)
        np.testing.assert_array_equal(await shared.submit([5], [1]), rows([5]))


async def test_an_item_that_the_model_refuses_fails_its_own_call_alone() -> None:
    def run(items: Sequence[int]) -> list[Vectors | RagstoneError]:
        return [
            Internal(f"no row for {item}") if item == 2 else row
            for item, row in zip(items, rows(items), strict=True)
        ]

    model = Model()
    async with batcher(lambda items: (model(items), run(items))[1]) as shared:
        first = submit(shared, 1)
        await asyncio.to_thread(model.entered.wait)
        others = [submit(shared, 2, 3), submit(shared, 4)]
        await asyncio.sleep(0)
        model.gate.set()
        await first
        refused, answered = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(refused, Internal)
    assert refused.message == "no row for 2"
    np.testing.assert_array_equal(answered, rows([4]))


async def test_a_model_that_returns_too_few_rows_is_an_error() -> None:
    async with batcher(lambda items: rows(items)[1:]) as shared:
        with pytest.raises(Internal, match="0 rows for 1 texts"):
            await shared.submit([1], [1])


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    model = Model()
    async with batcher(model) as shared:
        accepted = submit(shared, 1)
        await entered(model)
        closing = asyncio.ensure_future(shared.close())
        await settle()
        with pytest.raises(BackendUnavailable):
            await shared.submit([2], [1])
        model.gate.set()
        await closing
        np.testing.assert_array_equal(await accepted, rows([1]))

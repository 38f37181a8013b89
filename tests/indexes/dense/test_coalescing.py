"""Concurrent searches share calls, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from indexes.base import Neighbours, Vectors
from indexes.dense.coalescing import Coalescer, Pace


class Echo:
    """Answers each query with its own first number, and keeps how large each call was."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.may_run = threading.Event()
        self.may_run.set()

    def __call__(self, queries: Vectors, k: int) -> Neighbours:
        assert self.may_run.wait(10)
        self.calls.append(len(queries))
        if (queries < 0).any():
            raise ArithmeticError("negative")
        return Neighbours(
            np.repeat(queries[:, :1], k, axis=1).astype(np.int64), np.zeros((len(queries), k), "f4")
        )


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def query(*values: float) -> Vectors:
    return np.array([[value] for value in values], dtype=np.float32)


async def test_each_caller_gets_its_own_rows(pool: ThreadPoolExecutor) -> None:
    coalescer = Coalescer(Echo(), pool, threads=2, alone=False)
    answers = await asyncio.gather(*(coalescer.search(query(i, i + 0.5), 3, Pace()) for i in range(50)))
    assert [answer.keys.tolist() for answer in answers] == [[[i] * 3] * 2 for i in range(50)]


async def test_searches_that_arrive_during_a_call_share_the_next_one(pool: ThreadPoolExecutor) -> None:
    echo = Echo()
    echo.may_run.clear()
    coalescer = Coalescer(echo, pool, threads=1, alone=False)
    tasks = [asyncio.create_task(coalescer.search(query(0), 1, Pace()))]
    await asyncio.sleep(0.05)
    tasks += [asyncio.create_task(coalescer.search(query(i), 1, Pace())) for i in range(1, 9)]
    await asyncio.sleep(0)
    echo.may_run.set()
    await asyncio.gather(*tasks)
    assert echo.calls == [1, 8]


async def test_different_questions_do_not_share_a_call(pool: ThreadPoolExecutor) -> None:
    coalescer = Coalescer(echo := Echo(), pool, threads=1, alone=False)
    answers = await asyncio.gather(*(coalescer.search(query(k), k, Pace()) for k in (1, 2, 3, 1)))
    assert [answer.keys.shape[1] for answer in answers] == [1, 2, 3, 1]
    assert sorted(echo.calls) in ([1, 1, 1, 1], [1, 1, 2])


async def test_searches_that_turn_out_short_need_no_thread(pool: ThreadPoolExecutor) -> None:
    threads: set[int] = set()

    def run(queries: Vectors, k: int) -> Neighbours:
        threads.add(threading.get_ident())
        return Echo()(queries, k)

    coalescer = Coalescer(run, pool, threads=1, alone=False)
    pace = Pace()
    for _ in range(50):
        await coalescer.search(query(1), 1, pace)
        # The thread has answered, and is to find that nothing else waits.
        await asyncio.sleep(0.001)
    assert threading.get_ident() in threads


@pytest.mark.parametrize(("alone", "expected"), [(True, [True, False]), (False, [False, False])])
async def test_a_longer_search_needs_no_thread_when_it_is_alone_and_first_in_its_turn(
    alone: bool, expected: list[bool], pool: ThreadPoolExecutor
) -> None:
    threads: dict[int, int] = {}

    def run(queries: Vectors, k: int) -> Neighbours:
        threads[int(queries[0, 0])] = threading.get_ident()
        return Echo()(queries, k)

    coalescer = Coalescer(run, pool, threads=1, alone=alone)
    paces = [Pace(), Pace()]
    for pace in paces:
        pace.learn(1e-3)
    await asyncio.gather(*(coalescer.search(query(i), 1, paces[i]) for i in range(2)))
    assert [threads[i] == threading.get_ident() for i in range(2)] == expected


async def test_a_cancelled_caller_disturbs_no_other(pool: ThreadPoolExecutor) -> None:
    echo = Echo()
    echo.may_run.clear()
    coalescer = Coalescer(echo, pool, threads=1, alone=False)
    tasks = [asyncio.create_task(coalescer.search(query(i), 1, Pace())) for i in range(10)]
    await asyncio.sleep(0.01)
    for task in tasks[::2]:
        task.cancel()
    echo.may_run.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False] * 5
    kept = [answer.keys.tolist() for answer in answers if isinstance(answer, Neighbours)]
    assert kept == [[[i]] for i in range(1, 10, 2)]


async def test_an_error_reaches_its_callers_and_the_next_search_works(pool: ThreadPoolExecutor) -> None:
    coalescer = Coalescer(Echo(), pool, threads=1, alone=False)
    with pytest.raises(ArithmeticError):
        await coalescer.search(query(-1), 1, Pace())
    answer = await coalescer.search(query(1), 1, Pace())
    assert answer.keys.tolist() == [[1]]


async def test_what_may_wait_for_a_device_never_runs_on_the_event_loop(pool: ThreadPoolExecutor) -> None:
    threads: set[int] = set()

    def run(queries: Vectors, k: int) -> Neighbours:
        threads.add(threading.get_ident())
        return Echo()(queries, k)

    coalescer = Coalescer(run, pool, threads=2, alone=False)
    for i in range(50):
        await coalescer.search(query(i), 1, None)
    assert threading.get_ident() not in threads

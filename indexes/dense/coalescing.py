"""Many concurrent searches in few calls: whoever finds a thread free runs at once, the others share the next.

Nobody waits for company: a search is only ever held back by searches that are already running. A thread
that has finished takes what has gathered meanwhile by itself, without a turn of the event loop between.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from time import thread_time
from typing import Final, Generic, TypeAlias, TypeVar

import numpy as np

from indexes.base import Neighbours, Vectors

_MOST_QUERIES: Final = 64
"""In one call: so that the first of a batch does not wait long for its last."""
_HASTE_S: Final = 500e-6
"""The way to another thread and back costs about as much (measured, on two busy cores)."""
_ALONE_S: Final = 2e-3
"""Of a search that is the first in its turn of the event loop: where cores are busy, one time in a hundred
another thread would begin, and wake the loop again, later than that (measured)."""
_TURN_S: Final = 1e-3
"""Between two turns of the event loop no hasty search begins once this was spent on others."""
_WEIGHT: Final = 0.2
"""Of the newest call in the moving average of what a query takes."""

_Q = TypeVar("_Q")
Run: TypeAlias = Callable[[Vectors, _Q], Neighbours]


class Pace:
    """How long a query of one sort takes: a moving average, in seconds of a thread's own time."""

    def __init__(self) -> None:
        self.query_s = float("inf")

    def learn(self, query_s: float) -> None:
        """Take in the newest call. Threads may overwrite each other's average: any of them will do."""
        known_s = self.query_s
        self.query_s = query_s if known_s == float("inf") else known_s + _WEIGHT * (query_s - known_s)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[_Q]):
    queries: Vectors
    question: _Q
    pace: Pace | None
    answer: asyncio.Future[Neighbours]


class Coalescer(Generic[_Q]):
    """Runs searches on up to ``threads`` threads of ``executor``. Belongs to one event loop.

    Queries with equal questions share a call. While no thread is busy, a search that takes less time than
    the way to a thread runs at once, in the event loop's own; so does a longer one that is ``alone``, which
    has no part in another lane to run beside.
    """

    def __init__(self, run: Run[_Q], executor: Executor, *, threads: int, alone: bool) -> None:
        self._run = run
        self._executor = executor
        self._threads = threads
        self._alone = alone
        self._spent_s = 0.0
        """On searches at once, in this turn of the event loop."""
        self._idle = threads
        self._waiting: deque[_Waiting[_Q]] = deque()
        self._mutex = threading.Lock()
        """Guards ``_idle`` and ``_waiting``; held no longer than it takes to pick a batch."""

    async def search(self, queries: Vectors, question: _Q, pace: Pace | None) -> Neighbours:
        """What ``run`` returns for these arguments; ``pace`` is that of the sort of question.

        It is None where ``run`` may wait for a device: the event loop must not, and a thread that waits
        spends no time of its own that would tell. A caller that is cancelled disturbs no other.
        """
        quiet = self._idle == self._threads
        if quiet and pace is not None and len(queries) * pace.query_s < self._patience_s:
            return await self._at_once(queries, question, pace)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(queries, question, pace, loop.create_future())
        with self._mutex:
            self._waiting.append(waiting)
            wake = self._idle > 0
            self._idle -= wake
        if wake:
            self._executor.submit(self._drain, loop)
        return await waiting.answer

    async def _at_once(self, queries: Vectors, question: _Q, pace: Pace) -> Neighbours:
        """Answer on the event loop's thread, but let the loop go on now and then."""
        while self._spent_s > _TURN_S:  # noqa: ASYNC110 - the loop's next turn is the event
            await asyncio.sleep(0)
        if not self._spent_s:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        answer = self._timed(queries, question, pace)
        self._spent_s += len(queries) * pace.query_s
        return answer

    @property
    def _patience_s(self) -> float:
        """How long a search may hold up the event loop: others of the same turn had better run beside it."""
        return _ALONE_S if self._alone and not self._spent_s else _HASTE_S

    def _begin_turn(self) -> None:
        self._spent_s = 0.0

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer all that waits, in the executor's thread."""
        while batch := self._next_batch():
            first, queries = batch[0], batch[0].queries
            try:
                if len(batch) > 1:
                    queries = np.concatenate([one.queries for one in batch])
                answer: Neighbours | Exception = self._timed(queries, first.question, first.pace)
            except Exception as error:  # noqa: BLE001 - it is the callers' to handle
                answer = error
            loop.call_soon_threadsafe(_deliver, batch, answer)

    def _timed(self, queries: Vectors, question: _Q, pace: Pace | None) -> Neighbours:
        # The thread's own time: on another thread a clock would also count the wait for the interpreter.
        start = thread_time()
        answer = self._run(queries, question)
        if pace is not None:
            pace.learn((thread_time() - start) / max(1, len(queries)))
        return answer

    def _next_batch(self) -> list[_Waiting[_Q]]:
        """The oldest search, and those behind it that may share its call; without one the thread is idle."""
        batch: list[_Waiting[_Q]] = []
        others: list[_Waiting[_Q]] = []
        queries = 0
        with self._mutex:
            # A fair share for each thread: one that takes all leaves the others without work.
            share = -(-len(self._waiting) // self._threads)
            while self._waiting and len(batch) < share and queries < _MOST_QUERIES:
                one = self._waiting.popleft()
                if one.answer.done():
                    continue
                if not batch or one.question == batch[0].question:
                    batch.append(one)
                    queries += len(one.queries)
                else:
                    others.append(one)
            self._waiting.extendleft(reversed(others))
            self._idle += not batch
        return batch


def _deliver(batch: list[_Waiting[_Q]], answer: Neighbours | Exception) -> None:
    row = 0
    for one in batch:
        rows = slice(row, row + len(one.queries))
        row = rows.stop
        if one.answer.done():
            continue
        if isinstance(answer, Exception):
            one.answer.set_exception(answer)
        else:
            one.answer.set_result(Neighbours(answer.keys[rows], answer.scores[rows]))

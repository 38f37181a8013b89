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
from typing import Final, TypeAlias

import numpy as np
from pyroaring import BitMap64

from indexes.base import Neighbours, SearchParams, Vectors

_MOST_QUERIES: Final = 64
"""In one call: so that the first of a batch does not wait long for its last."""

Run: TypeAlias = Callable[[Vectors, int, BitMap64 | None, SearchParams], Neighbours]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    queries: Vectors
    k: int
    allow: BitMap64 | None
    params: SearchParams
    answer: asyncio.Future[Neighbours]

    def joins(self, other: _Waiting) -> bool:
        return self.allow is other.allow and self.k == other.k and self.params == other.params


class Coalescer:
    """Runs searches on up to ``threads`` threads of ``executor``. Belongs to one event loop."""

    def __init__(self, run: Run, executor: Executor, *, threads: int) -> None:
        self._run = run
        self._executor = executor
        self._threads = threads
        self._idle = threads
        self._waiting: deque[_Waiting] = deque()
        self._mutex = threading.Lock()
        """Guards ``_idle`` and ``_waiting``; held no longer than it takes to pick a batch."""

    async def search(
        self, queries: Vectors, k: int, allow: BitMap64 | None, params: SearchParams
    ) -> Neighbours:
        """What ``run`` returns for these arguments. A caller that is cancelled disturbs no other."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(queries, k, allow, params, loop.create_future())
        with self._mutex:
            self._waiting.append(waiting)
            wake = self._idle > 0
            self._idle -= wake
        if wake:
            self._executor.submit(self._drain, loop)
        return await waiting.answer

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer all that waits, in the executor's thread."""
        while batch := self._next_batch():
            first, queries = batch[0], batch[0].queries
            try:
                if len(batch) > 1:
                    queries = np.concatenate([one.queries for one in batch])
                answer: Neighbours | Exception = self._run(queries, first.k, first.allow, first.params)
            except Exception as error:  # noqa: BLE001 - it is the callers' to handle
                answer = error
            loop.call_soon_threadsafe(_deliver, batch, answer)

    def _next_batch(self) -> list[_Waiting]:
        """The oldest search, and those behind it that may share its call; without one the thread is idle."""
        batch: list[_Waiting] = []
        others: list[_Waiting] = []
        queries = 0
        with self._mutex:
            # A fair share for each thread: one that takes all leaves the others without work.
            share = -(-len(self._waiting) // self._threads)
            while self._waiting and len(batch) < share and queries < _MOST_QUERIES:
                one = self._waiting.popleft()
                if one.answer.done():
                    continue
                if not batch or one.joins(batch[0]):
                    batch.append(one)
                    queries += len(one.queries)
                else:
                    others.append(one)
            self._waiting.extendleft(reversed(others))
            self._idle += not batch
        return batch


def _deliver(batch: list[_Waiting], answer: Neighbours | Exception) -> None:
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

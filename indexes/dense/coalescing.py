"""Many concurrent searches in few calls: whoever finds a thread free runs at once, the others share the next.

Nobody waits for company: a search is only ever held back by searches that are already running.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from indexes.base import Keys, Neighbours, SearchParams, Vectors

_MOST_QUERIES: Final = 64
"""In one call: so that the first of a batch does not wait long for its last."""

Run: TypeAlias = Callable[[Vectors, int, Keys | None, SearchParams], Neighbours]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    queries: Vectors
    k: int
    allow: Keys | None
    params: SearchParams
    answer: asyncio.Future[Neighbours]

    def joins(self, other: _Waiting) -> bool:
        return self.allow is None and other.allow is None and (self.k, self.params) == (other.k, other.params)


class Coalescer:
    """Runs searches on ``threads`` threads of ``executor``. Belongs to one event loop."""

    def __init__(self, run: Run, executor: Executor, *, threads: int) -> None:
        self._run = run
        self._executor = executor
        self._free = threads
        self._waiting: deque[_Waiting] = deque()

    async def search(self, queries: Vectors, k: int, allow: Keys | None, params: SearchParams) -> Neighbours:
        """What ``run`` returns for these arguments. A caller that is cancelled disturbs no other."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(queries, k, allow, params, loop.create_future())
        self._waiting.append(waiting)
        self._start(loop)
        return await waiting.answer

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._free and (batch := self._next_batch()):
            queries = batch[0].queries if len(batch) == 1 else np.concatenate([one.queries for one in batch])
            first = batch[0]
            self._free -= 1
            work = loop.run_in_executor(
                self._executor, self._run, queries, first.k, first.allow, first.params
            )
            work.add_done_callback(partial(self._finish, loop, batch))

    def _next_batch(self) -> list[_Waiting]:
        """The oldest search, and all behind it that may share its call."""
        batch: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        queries = 0
        while self._waiting:
            one = self._waiting.popleft()
            if one.answer.done():
                continue
            if not batch or (one.joins(batch[0]) and queries + len(one.queries) <= _MOST_QUERIES):
                batch.append(one)
                queries += len(one.queries)
            else:
                others.append(one)
        self._waiting = others
        return batch

    def _finish(
        self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], work: asyncio.Future[Neighbours]
    ) -> None:
        self._free += 1
        row = 0
        for one in batch:
            rows = slice(row, row + len(one.queries))
            row = rows.stop
            if one.answer.done():
                continue
            if work.cancelled():
                one.answer.cancel()
            elif error := work.exception():
                one.answer.set_exception(error)
            else:
                found = work.result()
                one.answer.set_result(Neighbours(found.keys[rows], found.scores[rows]))
        self._start(loop)

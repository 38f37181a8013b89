"""Admission: how many calls are worked on at a time, and how many may wait for that."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from ragstone.errors import Overloaded


class Admission:
    """A semaphore with a bounded queue, first come, first served. ``async with`` holds one place.

    Entering raises Overloaded, with an estimate of when to come back, when the queue is full.
    """

    def __init__(self, *, running: int, waiting: int) -> None:
        self._free = running
        self._limit = running
        self._waiting_limit = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self._free > 0:
            self._free -= 1
            return
        if len(self._queue) >= self._waiting_limit:
            raise Overloaded(
                f"{self._limit} calls are running and {len(self._queue)} are waiting", retry_after_s=0.5
            )
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # The place may have been handed over in the same turn of the loop: pass it on.
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

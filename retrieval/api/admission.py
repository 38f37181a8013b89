"""Admission: how many calls are worked on at a time, and how many may wait for that."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from ragstone.errors import Overloaded


class Admission:
    """A semaphore with a bounded queue, first come, first served. ``async with`` holds one place.

    Entering raises Overloaded, with an estimate of when to come back, when the queue is full; ``on_shed`` is
    called then.
    """

    def __init__(self, *, running: int, waiting: int, on_shed: Callable[[], None] = lambda: None) -> None:
        self._on_shed = on_shed
        self._free = running
        self._limit = running
        self._waiting_limit = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def running(self) -> int:
        """Calls that are worked on now."""
        return self._limit - self._free

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn now."""
        return len(self._queue)

    async def __aenter__(self) -> None:
        if self._free > 0:
            self._free -= 1
            return
        if len(self._queue) >= self._waiting_limit:
            self._on_shed()
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

"""One sort of upkeep, done over and over in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from indexes.dense.upkeep import UpkeepLimits

_T = TypeVar("_T")


class Worker:
    """Works whenever it is woken, and once more when it was not for a while. Belongs to one event loop.

    ``work`` is told whether the index is idle, and returns whether there was anything to do.
    """

    def __init__(self, work: Callable[[bool], Awaitable[bool]], limits: UpkeepLimits) -> None:
        self._work = work
        self._limits = limits
        self._woken = asyncio.Event()
        self.at_work = asyncio.Lock()
        """Held while it works; whoever else holds it keeps it from working."""
        self.error = ""
        """Why it failed last; empty since it has succeeded again."""

    def wake(self) -> None:
        """Something has changed."""
        self._woken.set()

    async def run(self) -> None:
        """Never returns; a failure is kept in ``error``, and the work tried again."""
        patience: float | None = None
        pause = self._limits.idle_s
        while True:
            idle = await self._sleep(patience)
            patience = self._limits.idle_s
            try:
                if await to_the_end(self._work_once(idle)):
                    self.error, pause = "", self._limits.idle_s
                elif idle:
                    patience = None
            except Exception as error:  # noqa: BLE001 - the old state serves on
                self.error = f"{type(error).__name__}: {error}"
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._limits.longest_pause_s)

    async def _work_once(self, idle: bool) -> bool:
        async with self.at_work:
            return await self._work(idle)

    async def _sleep(self, patience: float | None) -> bool:
        """Until it is woken; True when it was not for ``patience`` seconds."""
        try:
            async with asyncio.timeout(patience):
                await self._woken.wait()
        except TimeoutError:
            return True
        self._woken.clear()
        return False


async def to_the_end(work: Awaitable[_T]) -> _T:
    """Await ``work`` so that a cancelled caller leaves it running: half a commit is none."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)

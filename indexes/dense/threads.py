"""The threads of one index: some that search, a few that write, and some of low priority that build."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, ParamSpec, TypeVar

import faiss

_P = ParamSpec("_P")
_T = TypeVar("_T")

_BUILDERS: Final = 3
"""One that freezes, one that merges, one that checks files and answers."""
_BUILD_NICENESS: Final = 10
_MOST_WALK_THREADS: Final = 4


class Threads:
    """Executors whose threads start when first needed. FAISS runs on one core in each of them."""

    def __init__(self, *, shards: int) -> None:
        cores = len(os.sched_getaffinity(0))
        self.walkers: Final = max(shards, 1, min(cores // 2, _MOST_WALK_THREADS))
        one_core = partial(faiss.omp_set_num_threads, 1)
        self._walks = ThreadPoolExecutor(self.walkers, "index-walk", one_core)
        self._scans = ThreadPoolExecutor(shards, "index-scan", one_core)
        self._write = ThreadPoolExecutor(2, "index-write", one_core)
        self._build = ThreadPoolExecutor(_BUILDERS, "index-build", _become_low_priority)

    @property
    def walks(self) -> Executor:
        """``walkers`` threads for quick searches: half of the cores, for the event loop needs its share."""
        return self._walks

    @property
    def scans(self) -> Executor:
        """One thread a shard for searches that may compare with very many vectors."""
        return self._scans

    async def write(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run work that a caller is waiting for."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._write, partial(work, *args, **kwargs))

    async def build(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run long work that nobody is waiting for, out of the way of all else."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._build, partial(work, *args, **kwargs))

    async def close(self) -> None:
        """Wait for all that was begun; nothing can be begun after."""
        for pool in (self._walks, self._scans, self._write, self._build):
            await asyncio.to_thread(pool.shutdown)


def _become_low_priority() -> None:
    faiss.omp_set_num_threads(1)
    with suppress(OSError, AttributeError):
        # On Linux a niceness belongs to a thread.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BUILD_NICENESS)

"""A dense index in Qdrant's embedded engine, in a folder of its own.

The engine holds Python's lock while it works, so one thread does all of it, in small steps, and searches
see whole batches. Graphs are built by another process over a copy, while searches and writes go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, ParamSpec, TypeVar

import structlog
from pyroaring import BitMap64

from indexes.base import IndexStats, Metric, Neighbours, SearchParams, VectorBatch, Vectors
from indexes.dense.options import parse_options
from indexes.dense.qdrant.generations import Generations
from indexes.dense.qdrant.options import EdgeOptions
from indexes.dense.qdrant.points import Ranking, Walk, after, batches, leaving
from indexes.dense.qdrant.shard import Shard
from indexes.dense.vectors import prepare_batch, prepare_queries
from indexes.directory import Directory, Lock
from ragstone.errors import CorruptIndex, FailedPrecondition, RagstoneError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_GROWN: Final = 0.25
"""Graphs are built anew when so many vectors, as a share of theirs, are outside of them."""

log = structlog.get_logger(__name__)


async def open_index(
    kind: str, *, directory: Directory, dim: int, metric: Metric, options: Mapping[str, object]
) -> EdgeIndex:
    """Open the index in ``directory``, or make an empty one there.

    Raises InvalidArgument for wrong options, CorruptIndex for damaged files, FailedPrecondition when another
    has it open or it was made for another dimension or metric.
    """
    parsed = parse_options(EdgeOptions, options)
    lock = directory.lock()
    pool = ThreadPoolExecutor(1, "qdrant-edge")
    try:
        generations = Generations(directory, dim=dim, metric=metric)
        make = partial(_Opened, generations, parsed, dim=dim, metric=metric)
        opened = await asyncio.get_running_loop().run_in_executor(pool, make)
    except BaseException:
        pool.shutdown()
        lock.release()
        raise
    return EdgeIndex(opened, pool, lock)


class _Opened:
    """The index as its one thread has it. Every method blocks."""

    def __init__(self, generations: Generations, options: EdgeOptions, *, dim: int, metric: Metric) -> None:
        self.options = options
        self.dim = dim
        self.metric = metric
        self.generations = generations
        self._folder = generations.current() or ""
        if self._folder:
            self._shard = Shard.load(generations.path(self._folder))
        else:
            self._folder = generations.fresh()
            self._shard = Shard.create(generations.path(self._folder), dim, metric, options)
            generations.switch_to(self._folder)
        self.seq = self._shard.position()
        self.live = self._shard.keys()
        self.segments, self.in_graphs = self._shard.segments, self._shard.in_graphs
        self.damage = ""

    @property
    def outside(self) -> int:
        """About how many vectors are in no graph."""
        return max(0, len(self.live) - self.in_graphs)

    def apply(self, batch: VectorBatch, seq: int) -> bool:
        """Whether it was new."""
        if seq <= self.seq:
            return False
        _write(self._shard, batch, seq, self.options.batch)
        self.live, self.seq = after(self.live, batch), seq
        return True

    def search(
        self, queries: Vectors, k: int, allow: BitMap64 | None, params: SearchParams | None
    ) -> Neighbours:
        """The answers."""
        walk = Walk.of(self.options, params)
        ranking = Ranking(len(queries), k, self.metric, self.live, allow)
        try:
            while ranking.open:
                ranking.take(self._shard.query(queries[ranking.open], ranking.limit, ranking.among, walk))
        except CorruptIndex as exc:
            self.damage = exc.message
            raise
        return ranking.neighbours()

    def flush(self) -> int:
        """The position that is durable now."""
        self._shard.flush()
        return self.seq

    def replace(self, folder: str, missed: list[tuple[VectorBatch, int]]) -> None:
        """Go on with another folder, which lacks these batches."""
        shard = Shard.load(self.generations.path(folder))
        try:
            for batch, seq in missed:
                _write(shard, batch, seq, self.options.batch)
            shard.flush()
            self.generations.switch_to(folder)
        except BaseException:
            shard.close()
            raise
        former, former_folder = self._shard, self._folder
        self._shard, self._folder = shard, folder
        self.segments, self.in_graphs = shard.segments, shard.in_graphs
        former.close()
        self.generations.remove(former_folder)

    def copy(self) -> str:
        """A copy of the folder, with all that is applied."""
        self.flush()
        return self.generations.copy(self._folder)

    def size(self) -> int:
        """Bytes on disk."""
        return self.generations.size(self._folder)

    def close(self) -> None:
        """Release the files."""
        self._shard.close()


class EdgeIndex:
    """A VectorIndex over one shard. Belongs to one event loop; opened by ``open_index``."""

    def __init__(self, opened: _Opened, pool: ThreadPoolExecutor, lock: Lock) -> None:
        self._opened = opened
        self._pool = pool
        self._lock = lock
        self._building = asyncio.Lock()
        self._missed: list[tuple[VectorBatch, int]] | None = None
        """What was applied since the copy was made that graphs are being built over."""
        self._growing: asyncio.Task[None] | None = None
        self._next_at = opened.options.graph_at
        self._error = ""

    @property
    def applied_seq(self) -> int:
        """The last journal position that a search sees."""
        return self._opened.seq

    async def apply(self, batch: VectorBatch, *, seq: int) -> None:
        """Make ``batch`` visible, and safe from a crash. Does nothing when ``seq <= applied_seq``.

        Raises BackendUnavailable when the disk fails; then it has to be applied again.
        """
        prepared = prepare_batch(batch, dim=self._opened.dim, metric=self._opened.metric)
        await self._run(self._apply, prepared, seq)
        self._grow()

    async def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allow: BitMap64 | None = None,
        params: SearchParams | None = None,
    ) -> Neighbours:
        """The best ``k`` keys for each row of ``queries`` ``(n, dim)``, among ``allow`` when given."""
        asked = prepare_queries(queries, dim=self._opened.dim, metric=self._opened.metric)
        return await self._run(self._opened.search, asked, k, allow, params)

    async def checkpoint(self) -> int:
        """Make all that is applied durable; the ``seq`` from which a reopened index needs the journal."""
        return await self._run(self._opened.flush)

    async def compact(self) -> None:
        """Build graphs over all vectors, without the deleted ones, and wait for it."""
        async with self._building:
            await self._build()

    def stats(self) -> IndexStats:
        """What the index holds now. ``pending`` are in no graph yet."""
        opened = self._opened
        return IndexStats(
            live=len(opened.live),
            pending=opened.outside,
            segments=opened.segments,
            bytes_on_disk=opened.size(),
            damage=opened.damage,
            details={"in_graphs": opened.in_graphs, "last_error": self._error},
        )

    def explain(self, k: int, *, allow: BitMap64 | None = None, params: SearchParams | None = None) -> str:
        """How a search with these arguments is answered now, in words."""
        opened = self._opened
        walk = Walk.of(opened.options, params)
        ranking = Ranking(1, k, opened.metric, opened.live, allow)
        if not opened.in_graphs:
            walk = Walk.of(opened.options, SearchParams(exact=True))
        return f"Qdrant's embedded engine: {walk}, {ranking}"

    async def close(self) -> None:
        """Release files, the thread, and a build that goes on. Does not checkpoint."""
        if self._growing is not None:
            self._growing.cancel()
            await asyncio.wait([self._growing])
        async with self._building:
            with suppress(FailedPrecondition):
                await self._run(self._opened.close)
            await asyncio.to_thread(self._pool.shutdown)
            self._lock.release()

    # -- graphs -----------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Begin to build, where enough has come since it was last done."""
        busy = self._growing is not None and not self._growing.done()
        if not busy and self._opened.outside >= self._next_at:
            self._growing = asyncio.create_task(self._build_sometime(), name="graph building")

    async def _build_sometime(self) -> None:
        try:
            await self.compact()
        except RagstoneError as exc:
            # The graphs that there are serve on; the next try comes after as many vectors again.
            self._error = exc.message
            self._next_at = 2 * self._opened.outside
            log.warning("graph_not_built", reason=exc.message)

    async def _build(self) -> None:
        generations = self._opened.generations
        folder = await self._run(self._copy)
        try:
            await generations.build(folder)
            await self._run(self._replace, folder)
        except BaseException:
            self._missed = None
            await asyncio.to_thread(generations.remove, folder)
            raise
        self._error = ""
        # The engine leaves a kilobyte or so as it is.
        opened = self._opened
        self._next_at = max(opened.options.graph_at, int(_GROWN * opened.in_graphs), 2 * opened.outside)

    # -- in the thread ----------------------------------------------------------------------------

    def _apply(self, batch: VectorBatch, seq: int) -> None:
        if self._opened.apply(batch, seq) and self._missed is not None:
            self._missed.append((batch, seq))

    def _copy(self) -> str:
        folder, self._missed = self._opened.copy(), []
        return folder

    def _replace(self, folder: str) -> None:
        missed, self._missed = self._missed or [], None
        self._opened.replace(folder, missed)

    async def _run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args, **kwargs))
        except RuntimeError as exc:
            raise FailedPrecondition("the index is closed") from exc
        return await future


def _write(shard: Shard, batch: VectorBatch, seq: int, size: int) -> None:
    """The position last: the log keeps the order, so a crash leaves no position without its batch."""
    for keys, vectors in batches(batch, size):
        shard.upsert(keys, vectors)
    if len(gone := leaving(batch)):
        shard.delete(gone)
    shard.set_position(seq)

"""The local dense index: immutable segments, one small exact delta, and tombstones.

All that is durable is in segments and named by the manifest; the delta is rebuilt from the journal after a
crash. New rows reach the disk by a *flush* (delta -> segment without a graph) and their graph by a *merge*
(segments -> one segment). Both prepare their files while searches and writes go on, then make the manifest
durable, then publish the new view; so the manifest always describes exactly the state at its ``applied_seq``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from pyroaring import BitMap64

from indexes.base import IndexStats, Metric, Neighbours, SearchParams, VectorBatch, Vectors
from indexes.dense.coalescing import Coalescer
from indexes.dense.manifest import Manifest, decode_dead, encode_dead, read_manifest, write_manifest
from indexes.dense.merging import merge_parts
from indexes.dense.options import FlatOptions, HnswOptions, parse_options
from indexes.dense.segments import Rows, Segment, Shape, delete_segment, open_segment, sweep, write_flat
from indexes.dense.threads import Threads
from indexes.dense.upkeep import Task, Tier, UpkeepLimits, next_task
from indexes.dense.vectors import prepare_batch, prepare_queries
from indexes.dense.view import Delta, Part, View
from indexes.directory import Directory, Lock
from ragstone.errors import FailedPrecondition, InvalidArgument

_T = TypeVar("_T")

_DEFAULTS: Final = SearchParams()


async def open_hnsw(
    *,
    directory: Directory,
    dim: int,
    metric: Metric,
    options: Mapping[str, object],
    limits: UpkeepLimits | None = None,
) -> SegmentedIndex:
    """Open or make an index of HNSW segments; ``options`` are those of ``HnswOptions``.

    Raises InvalidArgument for wrong options, FailedPrecondition when another has it open or it was made for
    another dimension or metric, CorruptIndex naming a damaged file.
    """
    parsed = parse_options(HnswOptions, options)
    return await _open(directory, dim, metric, parsed, parsed, limits)


async def open_flat(
    *,
    directory: Directory,
    dim: int,
    metric: Metric,
    options: Mapping[str, object],
    limits: UpkeepLimits | None = None,
) -> SegmentedIndex:
    """Open or make an index that always searches exactly; ``options`` are those of ``FlatOptions``.

    Raises what ``open_hnsw`` does.
    """
    return await _open(directory, dim, metric, parse_options(FlatOptions, options), None, limits)


async def _open(
    directory: Directory,
    dim: int,
    metric: Metric,
    options: FlatOptions,
    graph: HnswOptions | None,
    limits: UpkeepLimits | None,
) -> SegmentedIndex:
    lock = directory.lock()
    shape = Shape(directory=directory, dim=dim, metric=metric)
    threads = Threads()
    try:
        view = await threads.write(_load, shape)
    except BaseException:
        await threads.close()
        lock.release()
        raise
    limits = limits or UpkeepLimits(freeze_at=options.freeze_at)
    return SegmentedIndex(shape, view, lock=lock, threads=threads, graph=graph, limits=limits)


class SegmentedIndex:
    """A VectorIndex over a Directory. Belongs to one event loop; opened by ``open_hnsw`` or ``open_flat``."""

    def __init__(
        self,
        shape: Shape,
        view: View,
        *,
        lock: Lock,
        threads: Threads,
        graph: HnswOptions | None,
        limits: UpkeepLimits,
    ) -> None:
        self._shape = shape
        self._graph = graph
        self._limits = limits
        self._lock = lock
        self._threads = threads
        self._view = view
        self._durable = view
        """What the manifest says: the same segments, no delta, perhaps fewer tombstones."""
        self._writing = asyncio.Lock()
        """Held to replace ``_view``."""
        self._committing = asyncio.Lock()
        """Held to replace the manifest and ``_durable``. Taken before ``_writing``."""
        self._merging = asyncio.Lock()
        """Held by the one task that may take segments away. Taken before ``_committing``."""
        self._names = itertools.count(
            1 + max((int(part.segment.entry.name) for part in view.parts), default=0)
        )
        self._last_error = ""
        self._closed = False
        self._changed = asyncio.Event()
        # Two lanes, so that walks through graphs never queue behind the slower scans.
        self._walks = Coalescer(self._search, threads.walks, threads=threads.walk_threads)
        self._scans = Coalescer(self._search, threads.scans, threads=1)
        self._upkeep = asyncio.create_task(self._keep_up(), name="index upkeep")

    @property
    def applied_seq(self) -> int:
        """The last journal position that a search sees."""
        return self._view.applied_seq

    async def apply(self, batch: VectorBatch, *, seq: int) -> None:
        """Make ``batch`` visible. Does nothing when ``seq <= applied_seq``.

        Raises InvalidArgument for a wrong dimension or a vector that is not finite; then nothing of the
        batch is visible.
        """
        self._require_open()
        await _to_the_end(self._apply(batch, seq))

    async def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allow: BitMap64 | None = None,
        params: SearchParams | None = None,
    ) -> Neighbours:
        """The best ``k`` keys for each row of ``queries`` ``(n, dim)``, among ``allow`` when given.

        Raises InvalidArgument for a wrong shape, a vector that is not finite, or a ``k`` below 1.
        """
        self._require_open()
        if k < 1:
            raise InvalidArgument.at("k", "must be at least 1")
        params = params or _DEFAULTS
        if params.ef_search is not None and params.ef_search < 1:
            raise InvalidArgument.at("params.ef_search", "must be at least 1")
        prepared = prepare_queries(queries, dim=self._shape.dim, metric=self._shape.metric)
        lane = self._walks if allow is None and not params.exact else self._scans
        return await lane.search(prepared, k, allow, params)

    async def checkpoint(self) -> int:
        """Make all that is applied durable; the ``seq`` from which a reopened index needs the journal.

        Raises BackendUnavailable when the disk fails; the index serves on, as durable as it was before.
        """
        self._require_open()
        await _to_the_end(self._flush())
        return self._durable.applied_seq

    async def compact(self) -> None:
        """Flush, and merge everything into one segment without tombstones. Beyond the protocol."""
        self._require_open()
        await _to_the_end(self._compact())

    def stats(self) -> IndexStats:
        """What the index holds now; ``details`` has ``segments``, ``durable_seq``, ``last_error``."""
        view = self._view
        raw = sum(part.live for part in view.parts if self._is_raw(part))
        delta = len(view.delta.live_rows)
        return IndexStats(
            live=view.live,
            deleted=sum(part.dead for part in view.parts) + view.delta.count - delta,
            pending=raw + delta,
            segments=len(view.parts),
            bytes_on_disk=sum(file.size for part in view.parts for file in part.segment.entry.files.values()),
            details={
                "segments": [_describe(part) for part in view.parts],
                "durable_seq": self._durable.applied_seq,
                "merging": self._merging.locked(),
                "last_error": self._last_error,
            },
        )

    async def close(self) -> None:
        """Release files and threads. Does not checkpoint."""
        if self._closed:
            return
        self._closed = True
        self._upkeep.cancel()
        await asyncio.wait([self._upkeep])
        # A commit that is under way ends before the lock goes to somebody else.
        async with self._merging, self._committing, self._writing:
            await self._threads.close()
        self._lock.release()

    def _search(self, queries: Vectors, k: int, allow: BitMap64 | None, params: SearchParams) -> Neighbours:
        allowed = None if allow is None else np.asarray(allow.to_array(), dtype=np.uint64).astype(np.int64)
        return self._view.search(queries, k, allowed, params, self._shape.metric)

    async def _apply(self, batch: VectorBatch, seq: int) -> None:
        async with self._writing:
            self._require_open()
            if seq <= self._view.applied_seq:
                return
            prepared = await self._threads.write(
                prepare_batch, batch, dim=self._shape.dim, metric=self._shape.metric
            )
            self._view = await self._threads.write(self._view.applied, prepared, seq)
        self._changed.set()

    # -- commits: files first, then the manifest, then the view --------------------------------------

    async def _flush(self) -> None:
        async with self._committing:
            self._require_open()
            start = self._view
            if start.applied_seq == self._durable.applied_seq:
                return
            segment = await self._threads.write(_write_delta, self._shape, self._next_name(), start.delta)
            await self._commit(lambda view: view.flushed(start.delta, segment), durable_from=start)

    async def _merge(self, inputs: Sequence[Part], *, freeze: bool, dead_share: float) -> None:
        output = await self._threads.build(
            merge_parts,
            self._shape,
            self._next_name(),
            inputs,
            self._graph if freeze else None,
            lambda: self._closed,
            dead_share=dead_share,
        )
        async with self._committing:
            await self._commit(lambda view: view.merged(inputs, output), durable_from=self._durable)
        for part in inputs:
            await self._threads.write(delete_segment, self._shape.directory, part.segment.entry)

    async def _commit(self, change: Callable[[View], View], *, durable_from: View) -> None:
        # After a failure here nobody knows which manifest a crash would leave, so the new segment's files
        # stay; the next open sweeps them away if they are not in it.
        durable = change(durable_from)
        await self._threads.write(write_manifest, self._shape.directory, _manifest(self._shape, durable))
        self._durable = durable
        async with self._writing:
            self._view = change(self._view)

    def _next_name(self) -> str:
        return f"{next(self._names):08d}"

    # -- upkeep ----------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Freeze and merge whenever the limits say so; a failure is reported by ``stats``, and retried."""
        patience: float | None = None
        pause = self._limits.idle_s
        while True:
            idle = await self._sleep(patience)
            patience = self._limits.idle_s
            try:
                if await _to_the_end(self._work(idle=idle)):
                    self._last_error, pause = "", self._limits.idle_s
                elif idle:
                    patience = None
            except Exception as error:  # noqa: BLE001 - the old state serves on
                self._last_error = f"{type(error).__name__}: {error}"
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._limits.longest_pause_s)

    async def _sleep(self, patience: float | None) -> bool:
        """Until something changes; True when nothing did for ``patience`` seconds."""
        try:
            async with asyncio.timeout(patience):
                await self._changed.wait()
        except TimeoutError:
            return True
        self._changed.clear()
        return False

    async def _work(self, *, idle: bool) -> bool:
        async with self._merging:
            view = self._view
            tiers = [Tier(live=part.live, dead=part.dead, raw=self._is_raw(part)) for part in view.parts]
            task = next_task(len(view.delta.live_rows), tiers, self._limits, idle=idle)
            if task is None:
                return False
            await self._carry_out(task, view)
            return True

    async def _carry_out(self, task: Task, view: View) -> None:
        chosen = {view.parts[place].segment for place in task.merge}
        if task.freeze:
            await self._flush()
            chosen |= {part.segment for part in self._durable.parts if self._is_raw(part)}
        # The flush, and a checkpoint beside it, only ever add segments.
        inputs = [part for part in self._durable.parts if part.segment in chosen]
        if len(inputs) > 1 or any(part.dead or self._is_raw(part) for part in inputs):
            await self._merge(inputs, freeze=task.freeze, dead_share=self._limits.extended_dead_share)

    async def _compact(self) -> None:
        async with self._merging:
            await self._flush()
            inputs = self._durable.parts
            if len(inputs) > 1 or any(part.dead or self._is_raw(part) for part in inputs):
                await self._merge(inputs, freeze=True, dead_share=0.0)

    def _is_raw(self, part: Part) -> bool:
        return self._graph is not None and part.segment.graph is None

    def _require_open(self) -> None:
        if self._closed:
            raise FailedPrecondition("the index is closed")


def _load(shape: Shape) -> View:
    manifest = read_manifest(shape.directory)
    if manifest is None:
        sweep(shape.directory, ())
        return View(parts=(), delta=Delta.empty(shape.dim), applied_seq=0)
    if (manifest.dim, manifest.metric) != (shape.dim, shape.metric):
        raise FailedPrecondition(
            f"the index was made for dimension {manifest.dim} and {manifest.metric}, "
            f"not for dimension {shape.dim} and {shape.metric}"
        )
    sweep(shape.directory, manifest.segments)
    parts = []
    for entry in manifest.segments:
        dead = manifest.dead.get(entry.name)
        alive = None if dead is None else decode_dead(dead, entry.rows)
        parts.append(Part(open_segment(shape, entry), alive))
    return View(parts=tuple(parts), delta=Delta.empty(shape.dim), applied_seq=manifest.applied_seq)


def _manifest(shape: Shape, view: View) -> Manifest:
    return Manifest(
        dim=shape.dim,
        metric=shape.metric,
        applied_seq=view.applied_seq,
        segments=tuple(part.segment.entry for part in view.parts),
        dead={
            part.segment.entry.name: encode_dead(part.alive) for part in view.parts if part.alive is not None
        },
    )


def _write_delta(shape: Shape, name: str, delta: Delta) -> Segment | None:
    rows = delta.live_rows
    if not len(rows):
        return None
    return write_flat(shape, name, Rows(keys=delta.keys[rows], sources=[(delta.vectors, rows)]))


def _describe(part: Part) -> Mapping[str, Any]:
    entry = part.segment.entry
    return {"name": entry.name, "kind": entry.kind, "live": part.live, "dead": part.dead, "ef": entry.ef}


async def _to_the_end(work: Awaitable[_T]) -> _T:
    """Await ``work`` so that a cancelled caller leaves it running: half a commit is none."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)

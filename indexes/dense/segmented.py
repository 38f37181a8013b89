"""The local dense index: immutable segments, one small exact delta, and tombstones.

All that is durable is in segments and named by the manifest; the delta is rebuilt from the journal after a
crash. New rows reach the disk by a *flush* (delta -> segment without a graph) and their graph by a *merge*
(segments -> one segment). Both prepare their files while searches and writes go on, then make the manifest
durable, then publish the new view; so the manifest always describes exactly the state at its ``applied_seq``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import numpy as np
from pyroaring import BitMap64

from indexes.base import IndexStats, Neighbours, SearchParams, VectorBatch, Vectors
from indexes.dense.kinds import Fixed, Form, Kind
from indexes.dense.manifest import Manifest, encode_dead, write_manifest
from indexes.dense.merging import merge_parts
from indexes.dense.searching import Question, Searches
from indexes.dense.segments import PlainKind, Segment, Shape, Source, delete_segment, verify, write_plain
from indexes.dense.sharding import shard_of
from indexes.dense.threads import Threads
from indexes.dense.upkeep import Decide, Pieces, Task, Tier, UpkeepLimits, next_freeze, next_merge
from indexes.dense.vectors import prepare_batch, prepare_queries
from indexes.dense.view import Delta, Part, View
from indexes.dense.worker import Worker, to_the_end
from indexes.directory import Lock
from ragstone.errors import BackendUnavailable, CorruptIndex, FailedPrecondition, InvalidArgument

_DEFAULTS: Final = SearchParams()
_CROWDED: Final = 2
"""A delta of so many times the rows at which it is frozen is flushed at once."""


class SegmentedIndex:
    """A VectorIndex over a Directory. Belongs to one event loop; opened by ``opening.open_index``."""

    def __init__(
        self,
        shape: Shape,
        view: View,
        *,
        lock: Lock,
        threads: Threads,
        kind: Kind,
        limits: UpkeepLimits,
    ) -> None:
        self._shape = shape
        self._kind = kind
        self._shards = range(kind.options.shards)
        self._limits = limits.per_shard(len(self._shards))
        self._lock = lock
        self._threads = threads
        self._view = view
        self._durable = view
        """What the manifest says: the same segments, no delta, perhaps fewer tombstones."""
        self._writing = asyncio.Lock()
        """Held to replace ``_view``."""
        self._committing = asyncio.Lock()
        """Held to replace the manifest and ``_durable``. Taken before ``_writing``."""
        self._merging: set[Segment] = set()
        """What workers are merging now; nobody else takes these away."""
        self._names = itertools.count(
            1 + max((int(part.segment.entry.name) for part in view.parts), default=0)
        )
        self._damage = ""
        self._closed = False
        # Their locks are taken before ``_committing``, this one's first.
        self._freezer = Worker(partial(self._work, next_freeze), self._limits)
        self._merger = Worker(partial(self._work, next_merge), self._limits)
        self._searches = Searches(threads, shape.metric, shards=len(self._shards))
        self._tasks = (
            asyncio.create_task(self._freezer.run(), name="index freezing"),
            asyncio.create_task(self._merger.run(), name="index merging"),
            asyncio.create_task(self._verify(), name="index verification"),
        )

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
        await to_the_end(self._apply(batch, seq))
        # The freezer flushes too, but not while it freezes: then writers bear it, and memory stays bounded.
        if self._view.delta.count >= _CROWDED * self._limits.freeze_at * len(self._shards):
            try:
                await to_the_end(self._flush())
            except BackendUnavailable as error:
                # The batch is applied, and the freezer tries again.
                self._freezer.error = error.message

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
        question = self._question(k, allow, params)
        prepared = prepare_queries(queries, dim=self._shape.dim, metric=self._shape.metric)
        return await self._searches.search(prepared, question)

    def explain(self, k: int, *, allow: BitMap64 | None = None, params: SearchParams | None = None) -> str:
        """How a search with these arguments is answered now, segment by segment. Beyond the protocol."""
        return self._searches.explain(self._question(k, allow, params))

    async def checkpoint(self) -> int:
        """Make all that is applied durable; the ``seq`` from which a reopened index needs the journal.

        Raises BackendUnavailable when the disk fails; the index serves on, as durable as it was before.
        """
        self._require_open()
        await to_the_end(self._flush())
        return self._durable.applied_seq

    async def compact(self) -> None:
        """Flush, and merge everything into one segment without tombstones. Beyond the protocol."""
        self._require_open()
        await to_the_end(self._compact())

    def stats(self) -> IndexStats:
        """What the index holds now; ``details`` has its ``segments``, ``live_recall`` and ``last_error``."""
        view = self._view
        raw = sum(part.live for part in view.parts if part.raw)
        delta = len(view.delta.live_rows)
        return IndexStats(
            live=view.live,
            deleted=sum(part.dead for part in view.parts) + view.delta.count - delta,
            pending=raw + delta,
            segments=len(view.parts),
            bytes_on_disk=sum(file.size for part in view.parts for file in part.segment.entry.files.values()),
            damage=self._damage,
            details={
                "device": self._shape.device.name,
                "segments": [_describe(part) for part in view.parts],
                "live_recall": self._searches.stats(),
                "durable_seq": self._durable.applied_seq,
                "merging": self._freezer.at_work.locked() or self._merger.at_work.locked(),
                "last_error": self._damage or self._freezer.error or self._merger.error,
            },
        )

    async def close(self) -> None:
        """Release files and threads. Does not checkpoint."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._searches.close()
        # A commit that is under way ends before the lock goes to somebody else.
        async with self._freezer.at_work, self._merger.at_work, self._committing, self._writing:
            await self._threads.close()
        self._shape.device.close()
        self._lock.release()

    def _question(self, k: int, allow: BitMap64 | None, params: SearchParams | None) -> Question:
        self._require_open()
        if k < 1:
            raise InvalidArgument.at("k", "must be at least 1")
        params = params or _DEFAULTS
        if params.effort is not None and params.effort < 1:
            raise InvalidArgument.at("params.effort", "must be at least 1")
        return self._searches.question(self._view, k, allow, params)

    async def _apply(self, batch: VectorBatch, seq: int) -> None:
        async with self._writing:
            self._require_open()
            if seq <= self._view.applied_seq:
                return
            prepared = await self._threads.write(
                prepare_batch, batch, dim=self._shape.dim, metric=self._shape.metric
            )
            self._view = await self._threads.write(self._view.applied, prepared, seq)
        self._wake()

    # -- commits: files first, then the manifest, then the view --------------------------------------

    async def _flush(self) -> None:
        async with self._committing:
            self._require_open()
            start = self._view
            if start.applied_seq == self._durable.applied_seq:
                return
            segments = await self._threads.write(self._write_delta, start.delta)
            await self._commit(lambda view: view.flushed(start.delta, segments), durable_from=start)

    def _write_delta(self, delta: Delta) -> list[Segment]:
        rows = delta.live_rows
        shards = shard_of(delta.keys[rows], len(self._shards))
        chosen = {shard: rows[shards == shard] for shard in self._shards}
        return [
            write_plain(
                self._shape,
                self._next_name(),
                Source(keys=delta.keys[rows], sources=[(delta.vectors, rows)]),
                shard=shard,
                kind=self._plain,
            )
            for shard, rows in chosen.items()
            if len(rows)
        ]

    async def _merge(self, inputs: Sequence[Part], *, freeze: bool, dead_share: float) -> None:
        form: Form | PlainKind = self._plain
        why = ""
        if freeze:
            form, why = self._kind.form(sum(part.live for part in inputs), self._shape.dim)
        for part in inputs:
            # Damage must not be copied under a new checksum.
            await self._check(part)
        output = await self._threads.build(
            merge_parts,
            self._shape,
            self._next_name(),
            inputs,
            form,
            lambda: self._closed,
            dead_share=dead_share,
            why=why,
        )
        async with self._committing:
            await self._commit(lambda view: view.merged(inputs, output), durable_from=self._durable)
        for part in inputs:
            await self._threads.write(delete_segment, self._shape.directory, part.segment.entry)

    async def _commit(self, change: Callable[[View], View], *, durable_from: View) -> None:
        # After a failure here nobody knows which manifest a crash would leave, so the new segment's files
        # stay; the next open sweeps them away if they are not in it.
        durable = change(durable_from)
        await self._threads.write(write_manifest, self._shape.directory, self._manifest(durable))
        self._durable = durable
        async with self._writing:
            self._view = change(self._view)

    def _manifest(self, view: View) -> Manifest:
        return Manifest(
            dim=self._shape.dim,
            metric=self._shape.metric,
            shards=len(self._shards),
            applied_seq=view.applied_seq,
            segments=tuple(part.segment.entry for part in view.parts),
            dead={
                part.segment.entry.name: encode_dead(part.alive)
                for part in view.parts
                if part.alive is not None
            },
        )

    def _next_name(self) -> str:
        return f"{next(self._names):08d}"

    # -- upkeep ----------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._freezer.wake()
        self._merger.wake()

    async def _work(self, decide: Decide, idle: bool) -> bool:
        view = self._view
        new = shard_of(view.delta.keys[view.delta.live_rows], len(self._shards))
        for shard in self._shards:
            parts = [part for part in view.of(shard) if part.segment not in self._merging]
            tiers = [Tier(live=part.live, dead=part.dead, raw=part.raw) for part in parts]
            pieces = Pieces(delta=int(np.count_nonzero(new == shard)), tiers=tiers)
            task = decide(pieces, self._limits, idle=idle)
            if task is not None:
                await self._carry_out(task, shard, {parts[place].segment for place in task.merge})
                self._wake()
                return True
        return False

    async def _carry_out(self, task: Task, shard: int, chosen: set[Segment]) -> None:
        # Chosen and marked without a turn of the event loop between.
        self._merging |= chosen
        try:
            if task.flush:
                await self._flush()
                # Only the freezer takes raw segments, and a checkpoint beside it only adds some.
                raw = {part.segment for part in self._durable.of(shard) if part.raw}
                self._merging |= raw
                chosen |= raw
            inputs = [part for part in self._durable.of(shard) if part.segment in chosen]
            if _worth_merging(inputs):
                await self._merge(inputs, freeze=task.freeze, dead_share=self._limits.extended_dead_share)
        finally:
            self._merging -= chosen

    async def _compact(self) -> None:
        async with self._freezer.at_work, self._merger.at_work:
            await self._flush()
            for shard in self._shards:
                inputs = self._durable.of(shard)
                if _worth_merging(inputs):
                    await self._merge(inputs, freeze=True, dead_share=0.0)

    async def _verify(self) -> None:
        """Read what was trusted at open once in full; what is damaged is reported by ``stats``."""
        for part in self._durable.parts:
            with suppress(CorruptIndex):
                await self._check(part)

    async def _check(self, part: Part) -> None:
        """Read the files of a part. Raises CorruptIndex, and reports it, when one is damaged."""
        try:
            await self._threads.build(verify, self._shape.directory, part.segment.entry, lambda: self._closed)
        except CorruptIndex as error:
            # A merge may have deleted the files meanwhile: that is no damage.
            if part.segment in {now.segment for now in self._durable.parts}:
                self._damage = str(error)
            raise

    @property
    def _plain(self) -> PlainKind:
        """What a segment is before it has its final form: that of a flat index is this one."""
        return "flat" if isinstance(self._kind, Fixed) and self._kind.always == "flat" else "raw"

    def _require_open(self) -> None:
        if self._closed:
            raise FailedPrecondition("the index is closed")


def _worth_merging(inputs: Sequence[Part]) -> bool:
    return len(inputs) > 1 or any(part.dead or part.raw for part in inputs)


def _describe(part: Part) -> Mapping[str, Any]:
    entry = part.segment.entry
    described: dict[str, Any] = {
        "name": entry.name,
        "kind": entry.kind,
        "why": entry.why,
        "device": part.segment.index.device,
        "shard": entry.shard,
        "live": part.live,
        "dead": part.dead,
    }
    if entry.tuning is not None:
        described |= {"effort": entry.tuning.effort, "recall": entry.tuning.recall}
    return described

"""What a search sees: an immutable view of segments, delta and tombstones.

A new view replaces the old one by a single attribute store, so searches need no lock: each works on the
view that it found, to its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from indexes.base import Keys, Metric, Neighbours, SearchParams, VectorBatch, Vectors
from indexes.dense.exact import merge, nearest
from indexes.dense.rows import Allowed, Mask, RowSet
from indexes.dense.segments import Segment
from indexes.dense.structures import CPU


@dataclass(frozen=True, eq=False)
class Part:
    """A segment and which of its rows live: ``alive`` ``(rows,)``, None when all do."""

    segment: Segment
    alive: Mask | None = None

    @property
    def raw(self) -> bool:
        """Whether it still waits for its final form."""
        return self.segment.entry.kind == "raw"

    @cached_property
    def live(self) -> int:
        """How many rows live."""
        return len(self.segment.keys) if self.alive is None else int(np.count_nonzero(self.alive))

    @property
    def dead(self) -> int:
        """How many rows are dead."""
        return len(self.segment.keys) - self.live

    @cached_property
    def _living(self) -> RowSet | None:
        return None if self.alive is None else RowSet(self.alive)

    def without(self, keys: Keys) -> Part:
        """The part after the rows of ``keys`` have died."""
        rows = self.segment.rows_of(keys)
        if not len(rows):
            return self
        alive = np.ones(len(self.segment.keys), np.bool_) if self.alive is None else self.alive.copy()
        alive[rows] = False
        return Part(self.segment, alive)

    def holds(self, keys: Keys) -> Keys:
        """Those of ``keys`` that live here."""
        rows = self.segment.rows_of(keys)
        return self.segment.keys[rows if self.alive is None else rows[self.alive[rows]]]

    def allowed(self, keys: Keys) -> RowSet:
        """The live rows of ``keys``, which ascend."""
        mask = self.segment.mask_of(keys)
        return RowSet(mask if self.alive is None else mask & self.alive)

    def explain(self, k: int, allow: Allowed | None, params: SearchParams) -> str:
        """What a search does here."""
        plan = self.segment.index.plan(k, self._rows(allow), params)
        does = f"scans {plan.rows} rows" if plan.effort is None else f"walks with effort {plan.effort}"
        where = "" if plan.device == CPU else f" on {plan.device}"
        return f"{self.segment.entry.name} ({self.segment.entry.kind}): {does}{where}"

    def _rows(self, allow: Allowed | None) -> RowSet | None:
        return self._living if allow is None else allow.within(self)

    def search(self, queries: Vectors, k: int, allow: Allowed | None, params: SearchParams) -> Neighbours:
        """The best ``k`` live keys, among ``allow`` when given."""
        rows = self._rows(allow)
        found = self.segment.index.search(queries, k, rows, params)
        keys = self.segment.keys[found.keys]
        keys[found.keys < 0] = -1
        return Neighbours(keys, found.scores)


@dataclass(frozen=True, eq=False)
class Delta:
    """New rows in memory: the first ``count`` rows of buffers that only the newest delta may extend."""

    key_buffer: Keys
    vector_buffer: Vectors
    count: int = 0
    alive: Mask | None = None

    @classmethod
    def of(cls, keys: Keys, vectors: Vectors) -> Delta:
        """A delta of these rows; the arrays are not copied, and become its buffers."""
        return cls(keys, vectors, len(keys))

    @classmethod
    def empty(cls, dim: int) -> Delta:
        """A delta without rows."""
        return cls.of(np.empty(0, np.int64), np.empty((0, dim), np.float32))

    @property
    def keys(self) -> Keys:
        """int64 ``(count,)``, in the order of arrival."""
        return self.key_buffer[: self.count]

    @property
    def vectors(self) -> Vectors:
        """float32 ``(count, dim)``."""
        return self.vector_buffer[: self.count]

    @property
    def live_rows(self) -> Keys:
        """The rows that are not dead, ascending."""
        return np.arange(self.count) if self.alive is None else np.flatnonzero(self.alive)

    @cached_property
    def _living(self) -> RowSet | None:
        return None if self.alive is None else RowSet(self.alive)

    def holds(self, keys: Keys) -> Keys:
        """Those of ``keys`` that live here."""
        if not self.count:
            return keys[:0]
        live = self.keys if self.alive is None else self.keys[self.alive]
        return keys[np.isin(keys, live)]

    def without(self, keys: Keys) -> Delta:
        """The delta after the rows of ``keys`` have died."""
        dying = np.isin(self.keys, keys) if len(keys) else np.zeros(0, np.bool_)
        if not dying.any():
            return self
        return replace(self, alive=~dying if self.alive is None else self.alive & ~dying)

    def extended(self, keys: Keys, vectors: Vectors) -> Delta:
        """The delta with more rows. Only for the newest delta, by the only writer."""
        if not len(keys):
            return self
        count = self.count + len(keys)
        key_buffer, vector_buffer = self.key_buffer, self.vector_buffer
        if count > len(key_buffer):
            key_buffer = np.empty(max(2 * len(key_buffer), count, 64), np.int64)
            vector_buffer = np.empty((len(key_buffer), vector_buffer.shape[1]), np.float32)
            key_buffer[: self.count], vector_buffer[: self.count] = self.keys, self.vectors
        # Older views end before these rows, so searches that run now do not look at them.
        key_buffer[self.count : count], vector_buffer[self.count : count] = keys, vectors
        alive = None if self.alive is None else np.concatenate([self.alive, np.ones(len(keys), np.bool_)])
        return Delta(key_buffer, vector_buffer, count, alive)

    def since(self, older: Delta) -> Delta:
        """The rows that came after ``older``, in buffers of their own."""
        keys, vectors = self.keys[older.count :].copy(), self.vectors[older.count :].copy()
        alive = None if self.alive is None else self.alive[older.count :]
        return Delta(keys, vectors, len(keys), alive)

    def died_since(self, older: Delta) -> Keys:
        """The keys of the rows of ``older`` that lived then and are dead now."""
        return _died(older.keys, older.alive, None if self.alive is None else self.alive[: older.count])

    def allowed(self, keys: Keys) -> RowSet:
        """The live rows whose key is in ``keys``, which ascend."""
        places = np.minimum(np.searchsorted(keys, self.keys), max(0, len(keys) - 1))
        mask = keys[places] == self.keys if len(keys) else np.zeros(self.count, np.bool_)
        return RowSet(mask if self.alive is None else mask & self.alive)

    def search(self, queries: Vectors, k: int, allow: Allowed | None, metric: Metric) -> Neighbours:
        """The best ``k`` live keys, exactly."""
        rows = self._living if allow is None else allow.within(self)
        return nearest(queries, self.vectors, k, metric, ids=self.keys, allow=rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """All that a search sees after journal position ``applied_seq``. No key lives twice in it."""

    parts: tuple[Part, ...]
    delta: Delta
    applied_seq: int

    @property
    def live(self) -> int:
        """How many keys a search can find."""
        return sum(part.live for part in self.parts) + len(self.delta.live_rows)

    @cached_property
    def waits(self) -> bool:
        """Whether a search may wait for another device than the CPU."""
        return any(part.segment.index.device != CPU for part in self.parts)

    @cached_property
    def _by_shard(self) -> Mapping[int, Sequence[Part]]:
        shards: defaultdict[int, list[Part]] = defaultdict(list)
        for part in self.parts:
            shards[part.segment.entry.shard].append(part)
        return shards

    def of(self, shard: int) -> Sequence[Part]:
        """The parts of one shard."""
        return self._by_shard.get(shard, ())

    def search(
        self,
        shard: int,
        queries: Vectors,
        k: int,
        allow: Allowed | None,
        params: SearchParams,
        metric: Metric,
    ) -> Neighbours:
        """The best ``k`` keys of one shard for each of ``queries``; the first answers for the delta too."""
        found = [part.search(queries, k, allow, params) for part in self.of(shard)]
        if self.delta.count and shard == 0:
            found.append(self.delta.search(queries, k, allow, metric))
        return merge(found, len(queries), k)

    def applied(self, batch: VectorBatch, seq: int) -> View:
        """The view after ``batch``. A key that already lives keeps its vector: it can be no other."""
        parts = tuple(part.without(batch.deleted) for part in self.parts)
        delta = self.delta.without(batch.deleted)
        known = np.concatenate([delta.holds(batch.keys), *(part.holds(batch.keys) for part in parts)])
        new = ~np.isin(batch.keys, known)
        if not new.all():
            batch = VectorBatch(batch.keys[new], batch.vectors[new], batch.deleted)
        return View(parts=parts, delta=delta.extended(batch.keys, batch.vectors), applied_seq=seq)

    def flushed(self, delta: Delta, segments: Sequence[Segment]) -> View:
        """The view once ``segments`` hold the rows that lived in ``delta``, which this one's grew from."""
        died = self.delta.died_since(delta)
        new = [Part(segment).without(died) for segment in segments]
        return replace(self, parts=(*self.parts, *new), delta=self.delta.since(delta))

    def merged(self, inputs: Sequence[Part], output: Part | None) -> View:
        """The view once ``output`` holds the rows that lived in ``inputs``, earlier states of parts here."""
        earlier = {part.segment: part for part in inputs}
        kept = [part for part in self.parts if part.segment not in earlier]
        if output is None:
            return replace(self, parts=tuple(kept))
        # Only what died since the merge began: a row that was dead before is not in the output, or is dead
        # there already, and its key may have come back in another input.
        died = [
            _died(part.segment.keys, earlier[part.segment].alive, part.alive)
            for part in self.parts
            if part.segment in earlier
        ]
        return replace(self, parts=(output.without(np.concatenate(died)), *kept))


def _died(keys: Keys, before: Mask | None, now: Mask | None) -> Keys:
    if now is None:
        return keys[:0]
    return keys[~now if before is None else before & ~now]

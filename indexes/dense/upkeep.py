"""When an index freezes its delta and which segments it merges: a pure decision.

Segments form tiers: what is merged takes along every segment that is at most ``ratio`` times as large as all
that is being merged so far. A row is therefore merged O(log n) times, and O(log n) segments are left to
search. New rows are frozen with small segments alone, so they never wait for a merge of large ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepLimits:
    """When upkeep begins. ``idle_s`` are the seconds without an ``apply`` after which an index is idle."""

    freeze_at: int = 2_048
    idle_freeze_at: int = 512
    idle_s: float = 2.0
    longest_pause_s: float = 60.0
    """After failures upkeep pauses for ``idle_s``, then twice as long each time, but no longer than this."""
    ratio: int = 4
    idle_ratio: int = 32
    dead_share: float = 0.2
    """A segment with more dead rows than this share is rewritten when the index is idle."""
    extended_dead_share: float = 0.1
    """A graph with more dead rows than this share is built anew instead of being extended."""
    quick_rows: int = 8_192
    """New rows take no larger segment along, so that those behind them need not wait for long."""
    raw_segments: int = 8
    """So many small segments without a graph are joined, even when they stay too small for one."""

    def per_shard(self, shards: int) -> UpkeepLimits:
        """The limits of each of ``shards``, which together are these."""
        return replace(
            self,
            freeze_at=max(1, self.freeze_at // shards),
            idle_freeze_at=max(1, self.idle_freeze_at // shards),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A segment as the decision sees it; a raw one still waits for its graph."""

    live: int
    dead: int = 0
    raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """New rows of one shard, and its segments that nobody is merging already."""

    delta: int = 0
    tiers: Sequence[Tier] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Merge the segments at the places ``merge``, and with ``flush`` those that the delta becomes.

    With ``freeze`` the outcome is in the index's final form, else it stays raw.
    """

    merge: tuple[int, ...] = ()
    flush: bool = False
    freeze: bool = True


class Decide(Protocol):
    """A decision about the pieces of one shard."""

    def __call__(self, pieces: Pieces, limits: UpkeepLimits, *, idle: bool) -> Task | None:
        """What to do now; None when there is nothing."""
        ...


def next_freeze(pieces: Pieces, limits: UpkeepLimits, *, idle: bool) -> Task | None:
    """What to do now with new rows; None when they may wait. It takes no longer in a larger index."""
    tiers = pieces.tiers
    raw = tuple(place for place, tier in enumerate(tiers) if tier.raw)
    pending = pieces.delta + sum(tiers[place].live for place in raw)
    if pending >= (min(limits.idle_freeze_at, limits.freeze_at) if idle else limits.freeze_at):
        ratio = limits.idle_ratio if idle else limits.ratio
        small = _taken_along(pending, _frozen(tiers), ratio, most=limits.quick_rows)
        return Task(merge=tuple(sorted((*raw, *small))), flush=True)
    if len(raw) > limits.raw_segments:
        return Task(merge=raw, freeze=False)
    return None


def next_merge(pieces: Pieces, limits: UpkeepLimits, *, idle: bool) -> Task | None:
    """Which segments in their final form to merge now, however long it takes; None when all is well."""
    frozen = _frozen(pieces.tiers)
    ratio = limits.idle_ratio if idle else limits.ratio
    for start, (place, size) in enumerate(frozen):
        if others := _taken_along(max(size, 1), frozen[start + 1 :], ratio):
            return Task(merge=tuple(sorted((place, *others))))
    for place, tier in enumerate(pieces.tiers):
        if idle and not tier.raw and tier.dead > limits.dead_share * (tier.live + tier.dead):
            return Task(merge=(place,))
    return None


def _frozen(tiers: Sequence[Tier]) -> list[tuple[int, int]]:
    """Place and live rows of the segments in their final form, the smallest first."""
    frozen = [(place, tier.live) for place, tier in enumerate(tiers) if not tier.raw]
    return sorted(frozen, key=lambda one: one[1])


def _taken_along(
    size: int, frozen: Sequence[tuple[int, int]], ratio: int, *, most: float = inf
) -> tuple[int, ...]:
    """The places of those that ``size`` rows take along, one after the other."""
    taken: tuple[int, ...] = ()
    for place, live in frozen:
        if live > ratio * size or live > most:
            break
        taken, size = (*taken, place), size + live
    return taken

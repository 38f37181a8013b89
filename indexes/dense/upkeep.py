"""When an index freezes its delta and which segments it merges: a pure decision.

Segments form tiers: new rows take along every segment that is at most ``ratio`` times as large as what is
being merged so far. A row is therefore merged O(log n) times, and O(log n) segments are left to search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


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
class Task:
    """Flush the delta, then merge it with the segments at the places ``merge``.

    With ``freeze`` the outcome is in the index's final form, else it stays raw.
    """

    merge: tuple[int, ...] = ()
    freeze: bool = True


def next_task(delta: int, tiers: Sequence[Tier], limits: UpkeepLimits, *, idle: bool) -> Task | None:
    """What to do now with ``delta`` new rows and these segments; None when all is well."""
    raw = tuple(place for place, tier in enumerate(tiers) if tier.raw)
    pending = delta + sum(tiers[place].live for place in raw)
    if pending >= (min(limits.idle_freeze_at, limits.freeze_at) if idle else limits.freeze_at):
        return Task(merge=_taken_along(raw, pending, tiers, limits.idle_ratio if idle else limits.ratio))
    if len(raw) > limits.raw_segments:
        return Task(merge=raw, freeze=False)
    if idle:
        return _idle_task(tiers, limits)
    return None


def _taken_along(chosen: tuple[int, ...], size: int, tiers: Sequence[Tier], ratio: int) -> tuple[int, ...]:
    for place in sorted(range(len(tiers)), key=lambda place: tiers[place].live):
        if not tiers[place].raw and tiers[place].live <= ratio * size:
            chosen, size = (*chosen, place), size + tiers[place].live
    return tuple(sorted(chosen))


def _idle_task(tiers: Sequence[Tier], limits: UpkeepLimits) -> Task | None:
    frozen = sorted((tier.live, place) for place, tier in enumerate(tiers) if not tier.raw)
    if len(frozen) > 1 and frozen[1][0] <= limits.idle_ratio * max(frozen[0][0], 1):
        chosen = _taken_along((frozen[0][1],), frozen[0][0], _without(tiers, frozen[0][1]), limits.idle_ratio)
        return Task(merge=chosen)
    for place, tier in enumerate(tiers):
        if not tier.raw and tier.dead > limits.dead_share * (tier.live + tier.dead):
            return Task(merge=(place,))
    return None


def _without(tiers: Sequence[Tier], place: int) -> list[Tier]:
    return [Tier(live=0, raw=True) if i == place else tier for i, tier in enumerate(tiers)]

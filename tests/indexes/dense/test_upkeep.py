"""When to freeze and merge: the decision alone, without an index."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from indexes.dense.upkeep import Pieces, Task, Tier, UpkeepLimits, next_freeze, next_merge

LIMITS = UpkeepLimits(freeze_at=100, idle_freeze_at=20)


def test_a_small_delta_is_left_alone_while_writes_go_on() -> None:
    assert next_freeze(Pieces(delta=99), LIMITS, idle=False) is None


def test_a_full_delta_is_frozen() -> None:
    assert next_freeze(Pieces(delta=100), LIMITS, idle=False) == Task(flush=True)


def test_an_idle_index_freezes_a_smaller_delta() -> None:
    assert next_freeze(Pieces(delta=20), LIMITS, idle=True) == Task(flush=True)
    assert next_freeze(Pieces(delta=19), LIMITS, idle=True) is None


def test_segments_that_wait_for_their_graph_count_as_new() -> None:
    tiers = [Tier(live=60, raw=True), Tier(live=100_000)]
    assert next_freeze(Pieces(delta=40, tiers=tiers), LIMITS, idle=False) == Task(merge=(0,), flush=True)


def test_a_freeze_takes_segments_of_its_size_along_and_leaves_larger_ones() -> None:
    tiers = [Tier(live=100_000), Tier(live=300), Tier(live=1_500)]
    assert next_freeze(Pieces(delta=100, tiers=tiers), LIMITS, idle=False) == Task(merge=(1, 2), flush=True)


def test_a_freeze_leaves_segments_that_would_make_it_long() -> None:
    tiers = [Tier(live=LIMITS.quick_rows + 1)]
    task = next_freeze(Pieces(delta=LIMITS.quick_rows, tiers=tiers), LIMITS, idle=True)
    assert task == Task(flush=True)


def test_many_segments_too_small_for_a_graph_are_joined_without_one() -> None:
    tiers = [Tier(live=1, raw=True)] * 9
    task = next_freeze(Pieces(tiers=tiers), LIMITS, idle=False)
    assert task == Task(merge=tuple(range(9)), freeze=False)


def test_graphs_of_like_size_are_merged() -> None:
    tiers = [Tier(live=90_000), Tier(live=1_000), Tier(live=30_000)]
    assert next_merge(Pieces(tiers=tiers), LIMITS, idle=False) == Task(merge=(0, 2))


def test_segments_that_wait_for_their_graph_are_not_merged_without_it() -> None:
    tiers = [Tier(live=5_000), Tier(live=5_000, raw=True)]
    assert next_merge(Pieces(tiers=tiers), LIMITS, idle=True) is None


def test_an_idle_index_merges_graphs_of_less_like_size() -> None:
    tiers = [Tier(live=5_000), Tier(live=600)]
    assert next_merge(Pieces(tiers=tiers), LIMITS, idle=True) == Task(merge=(0, 1))
    assert next_merge(Pieces(tiers=tiers), LIMITS, idle=False) is None


def test_an_idle_index_does_not_rewrite_a_huge_segment_for_a_tiny_one() -> None:
    tiers = [Tier(live=1_000_000), Tier(live=600)]
    assert next_merge(Pieces(tiers=tiers), LIMITS, idle=True) is None


def test_an_idle_index_rewrites_a_segment_with_many_dead_rows() -> None:
    tiers = [Tier(live=1_000_000), Tier(live=600, dead=200)]
    assert next_merge(Pieces(tiers=tiers), LIMITS, idle=True) == Task(merge=(1,))
    assert next_merge(Pieces(tiers=tiers), LIMITS, idle=False) is None


@given(st.lists(st.integers(1, 400), min_size=1, max_size=300))
def test_the_number_of_segments_stays_logarithmic(batches: list[int]) -> None:
    index = Simulated()
    for rows in batches:
        index.write(rows)
    assert len(index.tiers) <= 2 + max(1, sum(batches) // 100).bit_length()


@given(st.lists(st.integers(1, 400), min_size=1, max_size=100), st.booleans())
def test_an_idle_index_comes_to_rest(batches: list[int], delete: bool) -> None:
    index = Simulated()
    for rows in batches:
        index.write(rows)
    if delete:
        index.tiers = [Tier(live=tier.live - tier.live // 2, dead=tier.live // 2) for tier in index.tiers]
    for _ in range(2 + 2 * len(index.tiers)):
        if not index.keep_up(idle=True):
            return
    raise AssertionError("upkeep goes on for ever")


@dataclass
class Simulated:
    """An index that knows only its sizes."""

    delta: int = 0
    tiers: list[Tier] = field(default_factory=list)

    def write(self, rows: int) -> None:
        self.delta += rows
        while self.keep_up(idle=False):
            pass

    def keep_up(self, *, idle: bool) -> bool:
        pieces = Pieces(delta=self.delta, tiers=self.tiers)
        task = next_freeze(pieces, LIMITS, idle=idle) or next_merge(pieces, LIMITS, idle=idle)
        if task is not None:
            self.carry_out(task)
        return task is not None

    def carry_out(self, task: Task) -> None:
        merged = sum(self.tiers[place].live for place in task.merge)
        if task.flush:
            merged, self.delta = merged + self.delta, 0
        self.tiers = [tier for place, tier in enumerate(self.tiers) if place not in task.merge]
        self.tiers.append(Tier(live=merged))

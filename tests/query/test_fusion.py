"""Fusion: two rankings become one, in a total order that does not depend on who came first."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.query.fusion import Ranking, fuse, min_max
from retrieval.versions.recipe import FusionSpec

RRF = FusionSpec(kind="rrf", k=60, dense_weight=1.0, lexical_weight=1.0)


def ranking(leg: str, *keys: int) -> Ranking:
    return Ranking(leg=leg, keys=keys, scores=[float(len(keys) - i) for i in range(len(keys))])


rankings = st.tuples(
    st.lists(st.integers(0, 50), unique=True, max_size=20),
    st.lists(st.integers(0, 50), unique=True, max_size=20),
).map(lambda keys: [ranking("dense", *keys[0]), ranking("lexical", *keys[1])])

specs = st.builds(
    FusionSpec,
    kind=st.sampled_from(["rrf", "weighted"]),
    k=st.integers(1, 100),
    dense_weight=st.floats(0, 1),
    lexical_weight=st.floats(0.1, 1),
)


def test_rrf_adds_the_reciprocal_of_sixty_plus_the_rank_in_each_leg() -> None:
    best = fuse([ranking("dense", 7, 8), ranking("lexical", 9, 8)], RRF)[0]
    assert best.key == 8
    assert best.score == pytest.approx(2 / 62)


def test_a_hit_that_one_leg_missed_gets_nothing_from_that_leg() -> None:
    fused = {f.key: f for f in fuse([ranking("dense", 1), ranking("lexical", 2, 1)], RRF)}
    assert [leg.leg for leg in fused[2].legs] == ["lexical"]
    assert fused[2].score == pytest.approx(1 / 61)


def test_equal_scores_order_by_key() -> None:
    assert [f.key for f in fuse([ranking("dense", 9), ranking("lexical", 4)], RRF)] == [4, 9]


def test_weights_decide_how_much_a_leg_counts() -> None:
    spec = FusionSpec(kind="rrf", dense_weight=0.1, lexical_weight=0.9)
    assert [f.key for f in fuse([ranking("dense", 1), ranking("lexical", 2)], spec)] == [2, 1]


def test_the_weighted_sum_maps_each_leg_onto_zero_to_one() -> None:
    dense = Ranking(leg="dense", keys=[1, 2, 3], scores=[0.9, 0.8, 0.7])
    lexical = Ranking(leg="lexical", keys=[3, 1], scores=[40.0, 10.0])
    fused = {f.key: f.score for f in fuse([dense, lexical], FusionSpec())}
    assert fused == pytest.approx({1: 0.5, 2: 0.25, 3: 0.5})


def test_a_lone_hit_is_the_best_hit_of_its_leg() -> None:
    assert min_max([3.2]) == [1.0]


def test_one_leg_alone_keeps_its_scores_and_its_order() -> None:
    alone = Ranking(leg="dense", keys=[5, 3], scores=[0.9, 0.9])
    assert [(f.key, f.score) for f in fuse([alone], FusionSpec())] == [(5, 0.9), (3, 0.9)]


@given(rankings, specs)
def test_the_order_of_the_legs_never_shows(legs: list[Ranking], spec: FusionSpec) -> None:
    forward = [(f.key, f.score) for f in fuse(legs, spec)]
    backward = [(f.key, f.score) for f in fuse(legs[::-1], spec)]
    assert forward == backward


@given(rankings, specs)
def test_every_candidate_comes_out_once_best_first(legs: list[Ranking], spec: FusionSpec) -> None:
    fused = fuse(legs, spec)
    assert sorted(f.key for f in fused) == sorted({key for leg in legs for key in leg.keys})
    assert all(a.score >= b.score for a, b in pairwise(fused))


@given(rankings, specs)
def test_the_legs_contributions_add_up_to_the_score(legs: list[Ranking], spec: FusionSpec) -> None:
    for f in fuse(legs, spec):
        assert f.score == pytest.approx(sum(leg.contribution for leg in f.legs))

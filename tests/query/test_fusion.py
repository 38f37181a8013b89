"""Fusion: two rankings become one, in a total order that does not depend on who came first."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragstone.types import LegScore
from retrieval.query.fusion import Ranking, explain, fuse, min_max
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
    key, score = fuse([ranking("dense", 7, 8), ranking("lexical", 9, 8)], RRF)[0]
    assert key == 8
    assert score == pytest.approx(2 / 62)


def test_a_hit_that_one_leg_missed_gets_nothing_from_that_leg() -> None:
    legs = [ranking("dense", 1), ranking("lexical", 2, 1)]
    assert dict(fuse(legs, RRF))[2] == pytest.approx(1 / 61)
    assert [leg.leg for leg in explain(legs, RRF, [2])[2]] == ["lexical"]


def test_equal_scores_order_by_key() -> None:
    assert [key for key, _ in fuse([ranking("dense", 9), ranking("lexical", 4)], RRF)] == [4, 9]


def test_weights_decide_how_much_a_leg_counts() -> None:
    spec = FusionSpec(kind="rrf", dense_weight=0.1, lexical_weight=0.9)
    assert [key for key, _ in fuse([ranking("dense", 1), ranking("lexical", 2)], spec)] == [2, 1]


def test_the_weighted_sum_maps_each_leg_onto_zero_to_one() -> None:
    dense = Ranking(leg="dense", keys=[1, 2, 3], scores=[0.9, 0.8, 0.7])
    lexical = Ranking(leg="lexical", keys=[3, 1], scores=[40.0, 10.0])
    fused = fuse([dense, lexical], FusionSpec())
    assert dict(fused) == pytest.approx({1: 0.5, 2: 0.25, 3: 0.5})


def test_a_lone_hit_is_the_best_hit_of_its_leg() -> None:
    assert min_max([3.2]) == [1.0]


def test_one_leg_alone_keeps_its_scores_and_its_order() -> None:
    alone = Ranking(leg="dense", keys=[5, 3], scores=[0.9, 0.9])
    assert fuse([alone], FusionSpec()) == [(5, 0.9), (3, 0.9)]


@given(rankings, specs)
def test_the_order_of_the_legs_never_shows(legs: list[Ranking], spec: FusionSpec) -> None:
    assert fuse(legs, spec) == fuse(legs[::-1], spec)


@given(rankings, specs)
def test_every_candidate_comes_out_once_best_first(legs: list[Ranking], spec: FusionSpec) -> None:
    fused = fuse(legs, spec)
    assert sorted(key for key, _ in fused) == sorted({key for leg in legs for key in leg.keys})
    assert all(a >= b for (_, a), (_, b) in pairwise(fused))


@given(rankings.flatmap(lambda legs: st.sampled_from([legs, legs[:1]])), specs)
def test_the_legs_contributions_add_up_to_the_score(legs: list[Ranking], spec: FusionSpec) -> None:
    fused = fuse(legs, spec)
    explained = explain(legs, spec, [key for key, _ in fused])
    for key, score in fused:
        assert score == pytest.approx(sum(leg.contribution for leg in explained[key]))


def test_an_explanation_has_the_rank_and_the_score_that_each_leg_gave() -> None:
    dense = Ranking(leg="dense", keys=[7, 8, 9], scores=[0.9, 0.8, 0.7])
    lexical = Ranking(leg="lexical", keys=[8], scores=[12.5])
    spec = FusionSpec(kind="rrf", k=60, dense_weight=0.5, lexical_weight=0.25)
    assert explain([dense, lexical], spec, [9, 8]) == {
        9: (LegScore(leg="dense", rank=3, score=0.7, contribution=0.5 / 63),),
        8: (
            LegScore(leg="dense", rank=2, score=0.8, contribution=0.5 / 62),
            LegScore(leg="lexical", rank=1, score=12.5, contribution=0.25 / 61),
        ),
    }


def test_a_leg_alone_contributes_its_own_scores() -> None:
    alone = Ranking(leg="dense", keys=[5, 3], scores=[0.9, 0.8])
    only = LegScore(leg="dense", rank=2, score=0.8, contribution=0.8)
    assert explain([alone], FusionSpec(), [3]) == {3: (only,)}

"""Blending: the reranker's scores and the fused ones make one ranking, which can be explained."""

from itertools import pairwise
from math import fsum, isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragstone.types import LegScore
from retrieval.query.fusion import Fused
from retrieval.query.reranking import blend

FUSED: list[Fused] = [(1, 0.9), (2, 0.8), (3, 0.7), (4, 0.2)]

scores = st.floats(-1e6, 1e6)
rankings = st.dictionaries(st.integers(0, 50), scores, min_size=1, max_size=20).map(
    lambda found: sorted(found.items(), key=lambda candidate: (-candidate[1], candidate[0]))
)
weights = st.floats(0, 1)


def keys(candidates: list[Fused]) -> list[int]:
    return [key for key, _ in candidates]


def test_the_reranker_alone_decides_at_weight_one() -> None:
    reranked = blend(FUSED, {1: -3.0, 2: 5.0, 3: 1.0, 4: 7.0}, weight=1.0)
    assert keys([*reranked.candidates]) == [4, 2, 3, 1]


def test_fusion_alone_decides_at_weight_zero() -> None:
    assert blend(FUSED, {1: -3.0, 2: 5.0, 3: 1.0, 4: 7.0}, weight=0.0).candidates == FUSED


def test_in_between_both_have_their_share_of_the_normalised_scores() -> None:
    # Fused 1, 6/7, 5/7, 0 and reranked 0, .8, .4, 1: the sums are .4, .82, .53 and .6.
    reranked = blend(FUSED, {1: -3.0, 2: 5.0, 3: 1.0, 4: 7.0}, weight=0.6)
    assert keys([*reranked.candidates]) == [2, 4, 3, 1]


def test_what_was_not_scored_stays_behind_as_fusion_has_it() -> None:
    reranked = blend(FUSED, {1: 0.0, 2: 1.0}, weight=1.0)
    assert keys([*reranked.candidates]) == [2, 1, 3, 4]
    assert reranked.candidates[2:] == FUSED[2:]


def test_a_reranker_that_scored_nothing_changes_nothing() -> None:
    assert blend(FUSED, {}, weight=1.0).candidates == FUSED


def test_equal_scores_order_by_key() -> None:
    reranked = blend([(9, 0.5), (4, 0.5)], {9: 1.0, 4: 1.0}, weight=0.5)
    assert keys([*reranked.candidates]) == [4, 9]


def test_the_reranker_orders_what_fusion_could_not_tell_apart() -> None:
    reranked = blend([(4, 0.5), (9, 0.5)], {9: 1.0, 4: 0.0}, weight=0.5)
    assert keys([*reranked.candidates]) == [9, 4]


def test_a_score_is_explained_by_the_shares_of_the_legs_and_of_the_reranker() -> None:
    reranked = blend(FUSED, {1: -3.0, 2: 5.0, 3: 1.0, 4: 7.0}, weight=0.25)
    fused_legs = [LegScore(leg="dense", rank=1, score=0.6, contribution=0.5)]
    fused_legs.append(LegScore(leg="lexical", rank=3, score=9.1, contribution=0.3))
    dense, lexical, rerank = reranked.explain(2, fused_legs)
    assert (rerank.leg, rerank.rank, rerank.score) == ("rerank", 2, 5.0)
    assert (dense.contribution, lexical.contribution) == pytest.approx((0.375, 0.225))
    assert dict(reranked.candidates)[2] == pytest.approx(0.375 + 0.225 + rerank.contribution)


@given(rankings, st.data(), weights)
def test_every_candidate_comes_out_once_with_what_it_is_made_of(
    fused: list[Fused], data: st.DataObject, weight: float
) -> None:
    scored = data.draw(st.integers(0, len(fused)))
    given_scores = {key: data.draw(scores) for key, _ in fused[:scored]}
    reranked = blend(fused, given_scores, weight=weight)
    assert sorted(keys([*reranked.candidates])) == sorted(keys(fused))
    assert {*keys([*reranked.candidates[:scored]])} == {*given_scores}
    assert all(isfinite(score) for _, score in reranked.candidates)
    was = dict(fused)
    for key, score in reranked.candidates:
        legs = [LegScore(leg="dense", rank=1, score=0.0, contribution=was[key])]
        parts = [leg.contribution for leg in reranked.explain(key, legs)]
        assert score == pytest.approx(fsum(parts), abs=1e-6)


@given(rankings, st.data(), weights)
def test_scores_never_rise_along_the_result(fused: list[Fused], data: st.DataObject, weight: float) -> None:
    given_scores = {key: data.draw(scores) for key, _ in fused[: data.draw(st.integers(0, len(fused)))]}
    shown = [score for _, score in blend(fused, given_scores, weight=weight).candidates]
    assert all(a >= b - 1e-6 for a, b in pairwise(shown))


@given(rankings, st.data(), weights)
def test_the_order_in_which_scores_came_does_not_matter(
    fused: list[Fused], data: st.DataObject, weight: float
) -> None:
    given_scores = {key: data.draw(scores) for key, _ in fused}
    backwards = dict(reversed(given_scores.items()))
    assert blend(fused, given_scores, weight=weight) == blend(fused, backwards, weight=weight)

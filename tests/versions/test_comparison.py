"""How rankings and versions are compared."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragstone.types import Hit
from retrieval.versions.comparison import documents, ndcg, overlap, paired_bootstrap, rank_biased_overlap

rankings = st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=12)


def by_definition(a: Sequence[str], b: Sequence[str], p: float) -> float:
    """RBO_ext of two rankings of one length k: the agreement at k goes on for ever (eq. 30)."""
    agreement = [len({*a[:d]} & {*b[:d]}) / d for d in range(1, len(a) + 1)]
    seen = sum(x * p**d for d, x in enumerate(agreement, start=1))
    return agreement[-1] * p ** len(a) + (1 - p) / p * seen


def test_documents_rank_where_their_best_chunk_does() -> None:
    hits = [Hit(chunk_id=c, document_id=c[0], score=1.0, text="") for c in ("b1", "a1", "b2", "c1", "a2")]
    assert documents(hits) == ("b", "a", "c")


@pytest.mark.parametrize(("a", "b", "share"), [("abc", "cab", 1), ("abcd", "abxy", 0.5), ("abcd", "ab", 0.5)])
def test_overlap_is_the_share_in_common(a: str, b: str, share: float) -> None:
    assert overlap(a, b) == share


def test_overlap_looks_at_the_first_k_alone() -> None:
    assert overlap("abxx", "abyy", k=2) == 1


def test_rankings_of_nothing_are_alike() -> None:
    assert (overlap("", ""), rank_biased_overlap("", "")) == (1, 1)


@given(st.permutations("abcdefghij"), st.permutations("cdefghijkl"))
def test_rank_biased_overlap_is_that_of_the_paper(a: Sequence[str], b: Sequence[str]) -> None:
    assert rank_biased_overlap(a, b, p=0.8) == pytest.approx(by_definition(a, b, 0.8))


@given(rankings, rankings)
def test_rank_biased_overlap_is_a_symmetric_share(a: Sequence[str], b: Sequence[str]) -> None:
    found = rank_biased_overlap(a, b)
    assert 0 <= found <= 1
    assert rank_biased_overlap(b, a) == pytest.approx(found)
    assert rank_biased_overlap(a, a) == pytest.approx(1)


def test_a_difference_at_the_top_weighs_more_than_one_below() -> None:
    assert rank_biased_overlap("abcd", "bacd") < rank_biased_overlap("abcd", "abdc")


def test_ndcg_counts_grades_and_ranks() -> None:
    assert ndcg("abc", {"a": 2, "b": 1}) == 1
    assert ndcg("xa", {"a": 1}) == pytest.approx(0.6309, abs=1e-4)
    assert ndcg("xyz", {"a": 1}) == 0


def test_a_clear_difference_keeps_its_interval_off_zero() -> None:
    interval = paired_bootstrap([0.1, 0.2, 0.15, 0.12, 0.18] * 10)
    assert 0 < interval.low < interval.mean < interval.high


def test_the_bootstrap_is_deterministic() -> None:
    differences = [0.3, -0.2, 0.1, 0.0]
    assert paired_bootstrap(differences) == paired_bootstrap(differences)


@pytest.mark.parametrize("differences", [[], [0.5], [0.5, 0.5]])
def test_without_variation_the_interval_is_the_mean(differences: list[float]) -> None:
    interval = paired_bootstrap(differences)
    assert interval.low == interval.mean == interval.high

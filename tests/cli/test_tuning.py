"""Choosing settings offline, from what legs and rerankers have said of judged queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import numpy as np
import pytest

from ragstone.types import Hit, LegScore, Recipe, SearchResult, Version
from retrieval.cli.tuning import (
    Asked,
    Candidates,
    Choice,
    Reranking,
    Setting,
    best_of,
    candidates_of,
    choose,
    is_train,
    recipe_of,
    setting_of,
)
from retrieval.query.fusion import Ranking
from retrieval.versions.recipe import FusionSpec

QUERIES = [f"q{n}" for n in range(60)]
QRELS = {qid: {f"d{n}": 1} for n, qid in enumerate(QUERIES)}
DOCUMENTS = [f"d{n}" for n in range(60)]
RANDOM = Random(7)


def ranking(leg: str, scores: Sequence[float]) -> Ranking:
    keys = sorted(range(len(scores)), key=lambda key: (-scores[key], key))
    return Ranking(leg=leg, keys=keys, scores=[scores[key] for key in keys])


def guess(answer: int, *, knows: float) -> list[float]:
    """Scores of all documents: noise, and the answer lifted by what is known."""
    return [RANDOM.random() + knows * (key == answer) for key in range(len(DOCUMENTS))]


def asked(*, lexical: float, dense: float, reranker: float = 0.0, version: str = "v1") -> Asked:
    """Legs and a reranker that know so much of the answers."""
    candidates = {
        qid: Candidates(
            legs=[
                ranking("lexical", guess(n, knows=lexical)),
                ranking("dense", guess(n, knows=dense)),
            ],
            reranked=dict(enumerate(guess(n, knows=reranker))),
            documents=DOCUMENTS,
        )
        for n, qid in enumerate(QUERIES)
    }
    return Asked(version, candidates, QRELS)


def version_of(**sections: Mapping[str, object]) -> Version:
    return Version(
        name="v1",
        collection="docs",
        state="serving",
        recipe=Recipe(**sections),
        space="s",
        dim=8,
        applied_seq=0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


# -- the halves ------------------------------------------------------------------------------------


def test_a_query_stays_in_its_half_whatever_others_there_are() -> None:
    train = [qid for qid in QUERIES if is_train(qid, 0)]
    assert 15 < len(train) < 45
    assert [qid for qid in QUERIES[::-1] if is_train(qid, 0)] == train[::-1]
    assert [qid for qid in QUERIES if is_train(qid, 1)] != train


# -- what a leg's answer tells ---------------------------------------------------------------------


def hit(chunk: str, *legs: tuple[str, int, float]) -> Hit:
    scores = tuple(LegScore(leg=leg, rank=rank, score=score, contribution=0.0) for leg, rank, score in legs)
    return Hit(chunk_id=chunk, document_id=chunk[0], score=0.0, text="", legs=scores)


def test_the_legs_own_order_comes_back_from_reranked_answers() -> None:
    dense = SearchResult(
        hits=(hit("b0", ("dense", 2, 0.5), ("rerank", 1, 9.0)), hit("a0", ("dense", 1, 0.6)))
    )
    lexical = SearchResult(hits=(hit("c0", ("lexical", 1, 7.0), ("rerank", 2, 3.0)),))
    seen = candidates_of(dense, lexical)
    assert seen.documents == ["a", "b", "c"]
    assert [(leg.leg, [*leg.keys], [*leg.scores]) for leg in seen.legs] == [
        ("lexical", [2], [7.0]),
        ("dense", [0, 1], [0.6, 0.5]),
    ]
    assert seen.reranked == {1: 9.0, 2: 3.0}


def test_a_document_ranks_where_its_best_chunk_does() -> None:
    legs = [ranking("lexical", [1.0, 3.0, 2.0]), ranking("dense", [1.0, 3.0, 2.0])]
    seen = Candidates(legs=legs, reranked={0: 9.0, 1: 0.0, 2: 0.0}, documents=["a", "b", "b"])
    assert seen.ranked(seen.fused(FusionSpec()), None) == ["b", "a"]
    assert seen.ranked(seen.fused(FusionSpec()), Reranking(depth=3, weight=1.0)) == ["a", "b"]


def test_a_smaller_depth_takes_the_first_candidates_of_each_leg() -> None:
    legs = [ranking("lexical", [3.0, 2.0, 1.0]), ranking("dense", [1.0, 2.0, 3.0])]
    seen = Candidates(legs=legs, reranked={}, documents=["a", "b", "c"])
    assert {key for key, _ in seen.fused(FusionSpec(depth=1))} == {0, 2}


# -- choosing --------------------------------------------------------------------------------------


def test_a_leg_that_knows_nothing_loses_its_weight() -> None:
    choice = choose(asked(lexical=1.5, dense=0.0), reranks=False)
    assert choice.setting.fusion.lexical_weight > 0.5
    assert [step.part for step in choice.steps if step.pays] == ["fusion"]


def test_legs_that_know_the_same_stay_with_the_default() -> None:
    choice = choose(asked(lexical=5.0, dense=5.0), reranks=False)
    assert choice.setting == Setting(version="v1")
    assert not any(step.pays for step in choice.steps)


def test_a_reranker_that_knows_the_answers_is_chosen() -> None:
    choice = choose(asked(lexical=0.4, dense=0.4, reranker=5.0), reranks=True)
    assert choice.setting.rerank is not None
    assert choice.values.mean() == pytest.approx(1.0)


def test_a_reranker_that_does_not_pay_is_not_chosen_and_the_steps_say_so() -> None:
    choice = choose(asked(lexical=1.0, dense=1.0, reranker=0.0), reranks=True)
    assert choice.setting.rerank is None
    [step, *_] = [step for step in choice.steps if step.part == "reranker"]
    assert not step.pays
    assert step.setting.rerank is not None


def test_every_setting_that_is_measured_is_heard_of() -> None:
    heard: list[None] = []
    choose(asked(lexical=5.0, dense=5.0), reranks=False, heard=lambda: heard.append(None))
    assert len(heard) > 20


def chosen(version: str, values: Sequence[float]) -> Choice:
    return Choice(setting=Setting(version=version), values=np.array(values))


def test_another_version_has_to_pay_too() -> None:
    same, better = [0.5, 0.4, 0.6] * 20, [0.7, 0.6, 0.9] * 20
    noisy = [0.9, 0.0, 0.6] * 20
    assert best_of([chosen("v1", same), chosen("v2", better)]).setting.version == "v2"
    assert best_of([chosen("v1", same), chosen("v2", noisy)]).setting.version == "v1"
    assert [step.part for step in best_of([chosen("v1", same), chosen("v2", noisy)]).steps] == ["version"]


# -- recipes ---------------------------------------------------------------------------------------


def test_a_version_s_own_recipe_is_a_setting() -> None:
    version = version_of(
        fusion={"kind": "rrf", "k": 10}, reranker={"kind": "late_interaction", "depth": 30, "weight": 0.7}
    )
    setting = setting_of(version)
    assert setting == Setting(
        version="v1", fusion=FusionSpec(kind="rrf", k=10), rerank=Reranking(depth=30, weight=0.7)
    )
    assert setting_of(replace(version, recipe=recipe_of(version, setting))) == setting


def test_without_late_interaction_no_token_vectors_are_kept() -> None:
    version = version_of(
        tokens={"kind": "lmdb"}, reranker={"kind": "late_interaction"}, chunker={"kind": "tokens"}
    )
    recipe = recipe_of(version, Setting(version="v1"))
    assert (recipe.reranker, recipe.tokens) == ({"kind": "none"}, {"kind": "none"})
    assert recipe.chunker == {"kind": "tokens"}

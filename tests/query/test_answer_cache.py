"""Which answers are given again, and which are not."""

from dataclasses import replace

import pytest

from generator.base import Limits, Passage, Prompt
from ragstone.answers import Done, FinishReason
from retrieval.query.answer_cache import AnswerCache, Answered

PASSAGE = Passage(chunk_id="a#0", document_id="a", text="The lamp is lit at dusk.", score=0.9)
PROMPT = Prompt(question="When is it lit?", passages=(PASSAGE,), tenant="red")
DONE = Done(finish_reason=FinishReason.COMPLETE)
ANSWERED = Answered(text="At dusk. [1]", citations=(), done=DONE)


def kept(answered: Answered = ANSWERED, limits: Limits = Limits()) -> AnswerCache:  # noqa: B008 # frozen
    cache = AnswerCache(10)
    cache.put(PROMPT, limits, answered)
    return cache


def test_the_same_question_over_the_same_passages_is_found() -> None:
    assert kept().get(PROMPT, Limits()) == ANSWERED


def test_scores_that_a_write_elsewhere_has_changed_make_no_difference() -> None:
    scored = replace(PROMPT, passages=(replace(PASSAGE, score=0.7),))
    assert kept().get(scored, Limits()) == ANSWERED


@pytest.mark.parametrize(
    "other",
    [
        replace(PROMPT, tenant="blue"),
        replace(PROMPT, question="Why is it lit?"),
        replace(PROMPT, passages=(replace(PASSAGE, text="The lamp is lit at dawn."),)),
        replace(PROMPT, passages=()),
    ],
    ids=["tenant", "question", "text", "passages"],
)
def test_another_one_is_not(other: Prompt) -> None:
    assert kept().get(other, Limits()) is None


@pytest.mark.parametrize(
    "done",
    [replace(DONE, finish_reason=FinishReason.LENGTH), replace(DONE, passed_over=("model: away",))],
    ids=["cut", "fallback"],
)
def test_an_answer_that_another_try_may_better_is_not_kept(done: Done) -> None:
    assert kept(replace(ANSWERED, done=done)).get(PROMPT, Limits()) is None


def test_an_answer_by_chance_is_kept_only_with_its_seed() -> None:
    assert kept(limits=Limits(temperature=1.0)).get(PROMPT, Limits(temperature=1.0)) is None
    seeded = Limits(temperature=1.0, seed=7)
    assert kept(limits=seeded).get(PROMPT, seeded) == ANSWERED


def test_a_cache_of_no_answers_keeps_none() -> None:
    cache = AnswerCache(0)
    cache.put(PROMPT, Limits(), ANSWERED)
    assert cache.get(PROMPT, Limits()) is None

"""Which answers are given to the same question in other words, and which are not."""

from dataclasses import replace

import numpy as np
import pytest

from generator.base import Limits, Passage, Prompt
from ragstone.answers import Citation, Done, FinishReason
from retrieval.query.answer_cache import Answered
from retrieval.query.similar_answers import Asked, SimilarAnswers

LAMP = Passage(chunk_id="a#0", document_id="a", text="The lamp is lit at dusk.", score=0.9)
TOWER = Passage(chunk_id="b#0", document_id="b", text="The tower is of granite.", score=0.8)
PROMPT = Prompt(question="When is it lit in 1893?", passages=(LAMP, TOWER), tenant="red")
CITATION = Citation(
    chunk_id="a#0", document_id="a", start=0, end=24, answer_start=0, answer_end=11, quote=LAMP.text
)
DONE = Done(finish_reason=FinishReason.COMPLETE)
ANSWERED = Answered(text="At dusk. [1]", citations=(CITATION,), done=DONE)


def vector(cosine: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A unit vector of that cosine with the first question's."""
    return np.array([cosine, np.sqrt(1 - cosine**2)], np.float32)


ASKED = Asked(prompt=PROMPT, limits=Limits(), vector=vector(1.0), space="s1", collection="c1")
REWORDED = replace(ASKED, prompt=replace(PROMPT, question="In 1893, when is it lit?"), vector=vector(0.97))


def kept(answered: Answered = ANSWERED, asked: Asked = ASKED) -> SimilarAnswers:
    cache = SimilarAnswers(10, similarity=0.95)
    cache.put(asked, answered)
    return cache


def changed(**values: object) -> Asked:
    return replace(REWORDED, prompt=replace(REWORDED.prompt, **values))  # type: ignore[arg-type]


def test_the_same_question_in_other_words_has_its_answer_and_how_near_it_is() -> None:
    found = kept().find(REWORDED)
    assert found is not None
    assert (found.text, found.citations) == (ANSWERED.text, ANSWERED.citations)
    assert found.done.similarity == pytest.approx(0.97)


def test_a_question_that_is_less_near_than_asked_for_has_none() -> None:
    assert kept().find(replace(REWORDED, vector=vector(0.94))) is None


@pytest.mark.parametrize(
    "other",
    [
        changed(tenant="blue"),
        changed(language="de"),
        changed(question="In 1894, when is it lit?"),
        changed(question="In -1893, when is it lit?"),
        changed(question="In 1893.5, when is it lit?"),
        replace(REWORDED, limits=Limits(max_tokens=9)),
        replace(REWORDED, space="s2"),
        replace(REWORDED, collection="c2"),
        replace(REWORDED, filter="public = true"),
    ],
    ids=["tenant", "language", "number", "sign", "fraction", "limits", "space", "collection", "filter"],
)
def test_nearness_is_not_enough(other: Asked) -> None:
    assert kept().find(other) is None


@pytest.mark.parametrize(
    ("passages", "found"),
    [
        ((replace(LAMP, score=0.1), TOWER), True),
        ((LAMP,), True),
        ((LAMP, replace(TOWER, chunk_id="c#0", text="The tower is of brick.")), True),
        ((LAMP, replace(TOWER, text="The tower is of brick.")), False),
        ((replace(LAMP, text="The lamp is lit at dawn."), TOWER), False),
        ((TOWER, LAMP), False),
        ((), False),
    ],
    ids=["other score", "fewer", "another", "uncited changed", "cited changed", "moved", "none"],
)
def test_what_the_answer_cites_must_stand_where_its_marks_point(
    passages: tuple[Passage, ...], found: bool
) -> None:
    assert (kept().find(changed(passages=passages)) is not None) == found


def test_numbers_that_have_changed_places_are_not_the_same() -> None:
    between = replace(ASKED, prompt=replace(PROMPT, question="How far from 5 to 10?"))
    back = replace(REWORDED, prompt=replace(PROMPT, question="How far from 10 to 5?"))
    assert kept(asked=between).find(back) is None


def test_the_nearest_answer_that_stands_is_given() -> None:
    cache = kept()
    cache.put(replace(ASKED, vector=vector(0.98)), replace(ANSWERED, text="Nearer. [1]"))
    moved = replace(PROMPT, passages=(TOWER, LAMP))
    cache.put(replace(ASKED, prompt=moved, vector=vector(0.975)), replace(ANSWERED, text="Moved. [2]"))
    found = cache.find(REWORDED)
    assert found is not None
    assert found.text == "Nearer. [1]"


@pytest.mark.parametrize(
    "answered",
    [
        replace(ANSWERED, citations=()),
        replace(ANSWERED, done=replace(DONE, finish_reason=FinishReason.LENGTH)),
        replace(ANSWERED, done=replace(DONE, passed_over=("model: away",))),
    ],
    ids=["cites nothing", "cut", "fallback"],
)
def test_an_answer_that_another_try_may_better_is_not_kept(answered: Answered) -> None:
    assert kept(answered).find(ASKED) is None


def test_an_answer_by_chance_is_not_kept() -> None:
    by_chance = replace(ASKED, limits=Limits(temperature=1.0))
    assert kept(asked=by_chance).find(by_chance) is None

"""Several generators: who answers, who is passed over and why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from generator.base import Condensed, Delta, End, Generated, Limits, Passage, Prompt
from generator.circuit import Circuit
from generator.extractive import ExtractiveGenerator
from generator.fallback import Candidate, FallbackGenerator
from ragstone.answers import FinishReason, Usage
from ragstone.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Overloaded,
)

PROMPT = Prompt(
    question="What guides ships?",
    passages=(Passage(chunk_id="a#0", document_id="a", text="A lighthouse guides ships at night."),),
    tenant="blue",
)


class Scripted:
    """Gives the items of its script, raises its errors, and counts how often it was asked, and left."""

    def __init__(self, *script: Generated | Exception | float) -> None:
        self.script = script
        self.asked = 0
        self.left = 0
        self.closed = False

    async def stream(
        self,
        prompt: Prompt,
        limits: Limits,
        *,
        cache_salt: str = "",
        priority: int = 0,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Generated, None]:
        self.asked += 1
        try:
            for item in self.script:
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, float):
                    await asyncio.sleep(item)
                else:
                    yield item
        except (asyncio.CancelledError, GeneratorExit):
            self.left += 1
            raise

    async def close(self) -> None:
        self.closed = True


def end(reason: FinishReason = FinishReason.COMPLETE) -> End:
    return End(finish_reason=reason, usage=Usage())


def answering(text: str) -> Scripted:
    return Scripted(Delta(text=text), end())


AWAY = BackendUnavailable("nobody is there")


async def answer(
    *candidates: Candidate, prompt: Prompt = PROMPT, deadline_s: float | None = None
) -> tuple[str, End]:
    stream = FallbackGenerator(candidates).stream(prompt, Limits(), deadline_s=deadline_s)
    items = [item async for item in stream]
    last = items[-1]
    assert isinstance(last, End)
    return "".join(item.text for item in items if isinstance(item, Delta)), last


async def test_the_first_that_begins_answers_alone() -> None:
    second = answering("second")
    text, last = await answer(
        Candidate(name="a", generator=answering("first")), Candidate(name="b", generator=second)
    )
    assert (text, last.answered_by, last.passed_over) == ("first", "a", ())
    assert not second.asked


@pytest.mark.parametrize("failure", [AWAY, Overloaded("full"), FailedPrecondition("no such model")])
async def test_one_that_does_not_begin_is_passed_over_and_the_answer_says_why(failure: Exception) -> None:
    text, last = await answer(
        Candidate(name="large", generator=Scripted(failure)),
        Candidate(name="extractive", generator=ExtractiveGenerator()),
    )
    assert text == "A lighthouse guides ships at night. [1]"
    assert last.answered_by == "extractive"
    assert last.passed_over == (f"large: {failure}",)


async def test_a_wrong_request_is_not_given_to_the_next() -> None:
    second = answering("second")
    with pytest.raises(InvalidArgument):
        await answer(
            Candidate(name="a", generator=Scripted(InvalidArgument("the schema is none"))),
            Candidate(name="b", generator=second),
        )
    assert not second.asked


async def test_nobody_takes_over_in_the_middle_of_an_answer() -> None:
    second = answering("second")
    with pytest.raises(BackendUnavailable):
        await answer(
            Candidate(name="a", generator=Scripted(Delta(text="begun"), AWAY)),
            Candidate(name="b", generator=second),
        )
    assert not second.asked


async def test_one_that_is_slow_to_begin_leaves_time_for_the_next() -> None:
    text, last = await answer(
        Candidate(name="slow", generator=Scripted(60.0, Delta(text="late"), end())),
        Candidate(name="b", generator=answering("in time")),
        deadline_s=0.2,
    )
    assert text == "in time"
    assert last.passed_over[0].startswith("slow: did not begin")


@pytest.mark.parametrize(("escalate", "answered_by"), [(True, "large"), (False, "small")])
async def test_a_small_model_without_evidence_hands_over_where_it_is_to(
    escalate: bool, answered_by: str
) -> None:
    _, last = await answer(
        Candidate(name="small", generator=Scripted(end(FinishReason.NO_EVIDENCE)), escalate=escalate),
        Candidate(name="large", generator=answering("found")),
    )
    assert last.answered_by == answered_by


async def test_a_generator_of_other_tenants_is_never_asked() -> None:
    others = answering("not for you")
    text, last = await answer(
        Candidate(name="red only", generator=others, tenants=frozenset({"red"})),
        Candidate(name="all", generator=answering("for all")),
    )
    assert (text, last.passed_over) == ("for all", ())
    assert not others.asked


async def test_a_tenant_without_a_generator_is_told() -> None:
    with pytest.raises(FailedPrecondition, match="no generator is set up for this tenant"):
        await answer(Candidate(name="red", generator=answering("no"), tenants=frozenset({"red"})))


async def test_one_that_failed_often_is_left_alone_and_then_tried_again() -> None:
    now = 0.0
    first = Scripted(AWAY)
    candidates: Sequence[Candidate] = (
        Candidate(name="a", generator=first, circuit=Circuit(failures=2, open_s=10.0, clock=lambda: now)),
        Candidate(name="b", generator=answering("second")),
    )
    for _ in range(4):
        await answer(*candidates)
    assert first.asked == 2
    _, last = await answer(*candidates)
    assert last.passed_over == ("a: left alone for 10.0 s more after 2 failures: nobody is there",)

    now = 11.0
    first.script = (Delta(text="back"), end())
    assert (await answer(*candidates))[0] == "back"
    first.script = (AWAY,)
    await answer(*candidates)
    assert first.asked == 4


async def test_the_last_resort_is_asked_whatever_its_circuit_says() -> None:
    now = 0.0
    only = Scripted(AWAY)
    candidate = Candidate(name="a", generator=only, circuit=Circuit(failures=1, open_s=9, clock=lambda: now))
    for _ in range(3):
        with pytest.raises(BackendUnavailable, match="nobody is there"):
            await answer(candidate)
    assert only.asked == 3


async def test_closing_closes_all() -> None:
    both = answering("a"), answering("b")
    await FallbackGenerator([Candidate(name="x", generator=one) for one in both]).close()
    assert all(one.closed for one in both)


# -- hedging -------------------------------------------------------------------------------------------


async def test_one_that_is_slow_to_begin_is_overtaken_by_the_next_and_left() -> None:
    slow = Scripted(60.0, Delta(text="late"), end())
    text, last = await answer(
        Candidate(name="slow", generator=slow, hedge_s=0.01),
        Candidate(name="b", generator=answering("quick")),
    )
    assert (text, last.answered_by, last.passed_over) == ("quick", "b", ("slow: was slower to begin than b",))
    assert slow.left == 1


async def test_one_that_begins_after_all_before_its_hedge_answers_and_the_hedge_is_left() -> None:
    hedge = Scripted(60.0, Delta(text="late"), end())
    text, last = await answer(
        Candidate(name="a", generator=Scripted(0.1, Delta(text="first"), end()), hedge_s=0.01),
        Candidate(name="hedge", generator=hedge),
    )
    assert (text, last.answered_by, last.passed_over) == ("first", "a", ())
    assert (hedge.asked, hedge.left) == (1, 1)


async def test_one_that_begins_in_time_is_not_hedged() -> None:
    second = answering("second")
    first = Candidate(name="a", generator=Scripted(0.01, Delta(text="first"), end()), hedge_s=60.0)
    assert (await answer(first, Candidate(name="b", generator=second)))[0] == "first"
    assert not second.asked


@pytest.mark.parametrize(
    "outcome",
    [AWAY, InvalidArgument("too long for me"), end(FinishReason.NO_EVIDENCE)],
    ids=["away", "refuses", "no evidence"],
)
async def test_a_hedge_without_an_answer_leaves_it_to_the_one_before(outcome: Exception | End) -> None:
    slow = Scripted(0.1, Delta(text="first"), end())
    text, last = await answer(
        Candidate(name="a", generator=slow, hedge_s=0.01),
        Candidate(name="hedge", generator=Scripted(outcome)),
    )
    assert (text, last.answered_by, last.passed_over) == ("first", "a", ())


async def test_a_hedge_that_fails_is_followed_by_the_next_at_once() -> None:
    stuck = Candidate(name="a", generator=Scripted(60.0), hedge_s=0.01)
    away = Candidate(name="b", generator=Scripted(AWAY))
    text, last = await answer(stuck, away, Candidate(name="c", generator=answering("third")))
    assert (text, last.answered_by) == ("third", "c")
    assert last.passed_over == ("a: was slower to begin than c", "b: nobody is there")


async def test_a_hedge_that_found_no_evidence_says_so_where_the_one_before_fails() -> None:
    _, last = await answer(
        Candidate(name="a", generator=Scripted(0.05, AWAY), hedge_s=0.01),
        Candidate(name="hedge", generator=Scripted(end(FinishReason.NO_EVIDENCE))),
    )
    assert (last.finish_reason, last.answered_by) == (FinishReason.NO_EVIDENCE, "hedge")
    assert last.passed_over == ("a: nobody is there",)


@pytest.mark.parametrize(
    ("verdict", "told"),
    [(end(FinishReason.NO_EVIDENCE), "hedge"), (InvalidArgument("no such schema"), "no such schema")],
    ids=["no evidence", "refuses"],
)
async def test_what_a_hedge_finds_wrong_is_given_to_no_other(verdict: End | Exception, told: str) -> None:
    third = answering("third")
    candidates = (
        Candidate(name="a", generator=Scripted(0.1, AWAY), hedge_s=0.01),
        Candidate(name="hedge", generator=Scripted(verdict)),
        Candidate(name="c", generator=third),
    )
    if isinstance(verdict, End):
        assert (await answer(*candidates))[1].answered_by == told
    else:
        with pytest.raises(InvalidArgument, match=told):
            await answer(*candidates)
    assert not third.asked


async def test_the_last_one_is_an_answer_without_evidence_even_where_it_would_escalate() -> None:
    _, last = await answer(
        Candidate(name="a", generator=Scripted(0.05, AWAY), hedge_s=0.01),
        Candidate(name="b", generator=Scripted(end(FinishReason.NO_EVIDENCE)), escalate=True),
    )
    assert (last.finish_reason, last.answered_by) == (FinishReason.NO_EVIDENCE, "b")


async def test_a_client_that_leaves_while_one_is_stopped_leaves_none_running() -> None:
    class Stubborn(Scripted):
        """Takes its time to stop."""

        async def stream(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Generated, None]:
            try:
                await asyncio.sleep(60)
                yield end()
            finally:
                await asyncio.sleep(0.2)
                self.left += 1

    stubborn, other = Stubborn(), Scripted(60.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await answer(
                Candidate(name="a", generator=stubborn, hedge_s=0.01),
                Candidate(name="b", generator=other, hedge_s=0.01),
                Candidate(name="c", generator=Scripted(Delta(text="quick"), end())),
            )
    assert other.left == 1


async def test_one_that_is_overtaken_often_is_left_alone() -> None:
    stuck = Scripted(60.0)
    first = Candidate(name="a", generator=stuck, hedge_s=0.01, circuit=Circuit(failures=2, open_s=60.0))
    for _ in range(3):
        await answer(first, Candidate(name="b", generator=answering("quick")))
    assert stuck.asked == 2


async def test_when_all_that_were_asked_fail_the_last_failure_is_told() -> None:
    with pytest.raises(BackendUnavailable, match="nobody is there"):
        await answer(
            Candidate(name="a", generator=Scripted(0.05, Overloaded("full"), end()), hedge_s=0.01),
            Candidate(name="b", generator=Scripted(0.1, AWAY)),
        )


async def test_a_client_that_leaves_before_anybody_has_begun_stops_all_that_were_asked() -> None:
    both = Scripted(60.0), Scripted(60.0)
    candidates = [Candidate(name="x", generator=one, hedge_s=0.01) for one in both]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await answer(*candidates)
    assert [one.left for one in both] == [1, 1]


# -- questions that lean on a conversation -------------------------------------------------------------


class Rewriting(Scripted):
    """Also makes questions stand alone: as it is told, or not at all."""

    def __init__(self, outcome: str | Exception | None) -> None:
        super().__init__(end())
        self.outcome = outcome

    async def condense(
        self, prompt: Prompt, *, cache_salt: str = "", deadline_s: float | None = None
    ) -> Condensed | None:
        self.asked += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return None if self.outcome is None else Condensed(text=self.outcome, usage=Usage(), model="m")


async def condensed(*candidates: Candidate) -> tuple[str, str] | None:
    question = await FallbackGenerator(candidates).condense(PROMPT, deadline_s=1.0)
    return None if question is None else (question.text, question.answered_by)


async def test_the_first_that_can_makes_a_question_stand_alone() -> None:
    sentences = Candidate(name="a", generator=ExtractiveGenerator())
    assert await condensed(sentences, Candidate(name="b", generator=Rewriting("Whole?"))) == ("Whole?", "b")


@pytest.mark.parametrize(
    "outcome", ["", AWAY, Overloaded("full", retry_after_s=1.0), DeadlineExceeded("late"), None]
)
async def test_one_that_makes_nothing_of_a_question_leaves_it_to_the_next(
    outcome: str | Exception | None,
) -> None:
    failing = Candidate(name="a", generator=Rewriting(outcome))
    assert await condensed(failing, Candidate(name="b", generator=Rewriting("Whole?"))) == ("Whole?", "b")


async def test_where_none_can_a_question_stays_as_it_is() -> None:
    others = Candidate(name="a", generator=Rewriting("Whole?"), tenants=frozenset({"red"}))
    assert await condensed(others, Candidate(name="b", generator=ExtractiveGenerator())) is None


async def test_one_that_is_left_alone_is_not_asked_to_rewrite_either() -> None:
    away = Rewriting(AWAY)
    circuit = Circuit(failures=1, open_s=60.0)
    generator = FallbackGenerator([Candidate(name="a", generator=away, circuit=circuit)])
    assert [await generator.condense(PROMPT) for _ in range(2)] == [None, None]
    assert away.asked == 1


async def test_a_question_that_was_made_to_stand_alone_closes_no_circuit() -> None:
    circuit = Circuit(failures=2, open_s=60.0)
    circuit.failed("no first token")
    generator = FallbackGenerator([Candidate(name="a", generator=Rewriting("Whole?"), circuit=circuit)])
    assert await generator.condense(PROMPT) is not None
    circuit.failed("no first token")
    assert not circuit.closed


async def test_what_came_to_nothing_is_told_with_what_it_took() -> None:
    question = await FallbackGenerator([Candidate(name="a", generator=Rewriting(""))]).condense(PROMPT)
    assert question is not None
    assert (question.text, question.answered_by) == ("", "a")

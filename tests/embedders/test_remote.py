"""What embedders over the network share: batches, turns, and the circuit breaker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedders.remote.batches import batches
from embedders.remote.circuit import CircuitBreaker
from embedders.remote.transport import Away, Busy
from embedders.remote.turns import TurnLimits, Turns
from ragstone.errors import BackendUnavailable, Overloaded


@given(st.lists(st.integers(1, 50)), st.integers(1, 8), st.integers(1, 100))
def test_every_text_is_in_one_batch_within_the_bounds(
    tokens: list[int], max_texts: int, max_tokens: int
) -> None:
    made = list(batches(tokens, max_texts=max_texts, max_tokens=max_tokens))
    assert sorted(i for batch in made for i in batch) == list(range(len(tokens)))
    for batch in made:
        assert len(batch) <= max_texts
        assert len(batch) == 1 or sum(tokens[i] for i in batch) <= max_tokens


# -- turns ---------------------------------------------------------------------------------------


class Crowd:
    """Callers that take a turn each, note their names, and stay until they are let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.most = 0
        self._inside = 0
        self._gates: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str, bulk: bool = False, tokens: int = 1) -> None:
        for name in names:
            self._gates[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._take(name, tokens, bulk=bulk))
        await settle()

    async def go(self, *names: str) -> None:
        for name in names:
            self._gates[name].set()
            await self._tasks[name]
        await settle()

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await settle()

    async def leave(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _take(self, name: str, tokens: int, *, bulk: bool) -> None:
        async with self.turns.turn(tokens, bulk=bulk):
            self.begun.append(name)
            self._inside += 1
            self.most = max(self.most, self._inside)
            await self._gates[name].wait()
            self._inside -= 1


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def crowd(**limits: Any) -> AsyncIterator[Crowd]:
    turns = Turns(TurnLimits(**{"at_once": 1, "waiting": 100, **limits}))
    came = Crowd(turns)
    try:
        yield came
    finally:
        await came.leave()
        await turns.close()


async def test_no_more_are_in_at_once_than_may_be() -> None:
    async with crowd(at_once=3) as people:
        await people.come(*"abcdef")
        assert people.begun == list("abc")
        await people.go("b")
        assert people.begun == list("abcd")
        assert people.most == 3


async def test_queries_go_before_passages_that_came_first() -> None:
    async with crowd() as people:
        await people.come("first")
        await people.come("passage", bulk=True)
        await people.come("query")
        await people.go("first")
        assert people.begun == ["first", "query"]


async def test_passages_move_although_queries_keep_coming() -> None:
    async with crowd() as people:
        await people.come("passage", bulk=True)
        await people.come("other passage", bulk=True)
        await people.come(*"abcdef")
        for name in ("passage", *"abc"):
            await people.go(name)
        assert people.begun == ["passage", *"abc", "other passage"]


async def test_passages_leave_room_for_a_query() -> None:
    async with crowd(at_once=3) as people:
        await people.come(*"pqrs", bulk=True)
        assert people.begun == list("pq")
        await people.come("query")
        assert people.begun == [*"pq", "query"]


async def test_who_goes_away_while_waiting_holds_nobody_up() -> None:
    async with crowd() as people:
        await people.come("first", "second", "third")
        await people.give_up("second")
        await people.go("first")
        assert people.begun == ["first", "third"]


async def test_who_goes_away_while_inside_makes_room() -> None:
    async with crowd() as people:
        await people.come("first", "second")
        await people.give_up("first")
        assert people.begun == ["first", "second"]


async def test_who_goes_away_as_the_turn_is_given_makes_room() -> None:
    async with crowd() as people:
        for steps in range(1, 10):
            task = asyncio.create_task(people.turns.turn(1, bulk=False).__aenter__())
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.done():
                break
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert steps > 2
        people.turns._leave(bulk=False)
        await people.come("last")
        assert people.begun == ["last"]


async def test_queries_beyond_the_bound_are_told_when_to_come_back() -> None:
    async with crowd(waiting=2) as people:
        for name in "abc":
            await people.come(name)
        with pytest.raises(Overloaded) as caught:
            async with people.turns.turn(1, bulk=False):
                pass
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 0


@pytest.mark.parametrize("rate", [{"requests_per_s": 0.001}, {"tokens_per_s": 0.001}])
async def test_a_rate_holds_back_what_comes_too_soon(rate: dict[str, float]) -> None:
    async with crowd(at_once=10, **rate) as people:
        await people.come(*"abc")
        assert people.begun == ["a"]


async def test_a_request_above_the_rate_of_tokens_goes_when_the_bucket_is_empty() -> None:
    async with crowd(at_once=10, tokens_per_s=100) as people:
        await people.come("a", tokens=100_000)
        assert people.begun == ["a"]


# -- the circuit breaker -----------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def call(circuit: CircuitBreaker, ends: Exception | None = None) -> str:
    """How one call through ``circuit`` ends: refused by it, or as it would have without."""
    try:
        with circuit.call():
            if ends is not None:
                raise ends
    except (Away, Busy, BackendUnavailable, ValueError) as exc:
        return "passed" if exc is ends else "refused"
    return "passed"


def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(failures=2, open_s=10, clock=clock)


@pytest.mark.parametrize("failure", [Away("lost"), BackendUnavailable("too late")])
def test_failures_in_a_row_open_the_circuit(failure: Exception) -> None:
    circuit = breaker(Clock())
    assert [call(circuit, failure) for _ in range(4)] == ["passed", "passed", "refused", "refused"]


@pytest.mark.parametrize("answer", [None, Busy("429", retry_after_s=1), ValueError()])
def test_an_answer_in_between_keeps_it_closed(answer: Exception | None) -> None:
    circuit = breaker(Clock())
    assert [call(circuit, end) for end in [Away("lost"), answer] * 3] == ["passed"] * 6


def test_after_a_while_one_call_tries_and_its_failure_opens_it_anew() -> None:
    clock = Clock()
    circuit = breaker(clock)
    for _ in range(2):
        call(circuit, Away("lost"))
    clock.now_s = 10
    assert [call(circuit, Away("lost")), call(circuit)] == ["passed", "refused"]
    clock.now_s = 20
    assert [call(circuit), call(circuit)] == ["passed", "passed"]


def test_while_one_call_tries_the_others_are_refused() -> None:
    clock = Clock()
    circuit = breaker(clock)
    for _ in range(2):
        call(circuit, Away("lost"))
    clock.now_s = 10
    with circuit.call():
        assert call(circuit) == "refused"
    assert call(circuit) == "passed"


def test_a_try_that_is_cancelled_leaves_the_next_one_to_try() -> None:
    clock = Clock()
    circuit = breaker(clock)
    for _ in range(2):
        call(circuit, Away("lost"))
    clock.now_s = 10
    with pytest.raises(asyncio.CancelledError), circuit.call():
        raise asyncio.CancelledError
    assert call(circuit) == "passed"


def test_the_refusal_says_why_and_for_how_long() -> None:
    circuit = breaker(Clock())
    for _ in range(2):
        call(circuit, Away("the wire is cut"))
    with (
        pytest.raises(BackendUnavailable, match=r"the wire is cut; it is asked again in 10\.0 s"),
        circuit.call(),
    ):
        pass

"""Several generators in order: who is asked first, and who answers when that one does not.

A request may be hedged: asked of the next one too when the one before is slow to begin (Dean and Barroso,
"The Tail at Scale", 2013).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Final

import structlog

from generator.base import Condensed, Condenser, End, Generated, Generator, Limits, Prompt
from generator.circuit import Circuit
from ragstone.answers import FinishReason
from ragstone.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    FailedPrecondition,
    Overloaded,
    RagstoneError,
)

log = structlog.get_logger(__name__)

_FIRST_SHARE: Final = 0.5
"""Of the time that is left: so long a generator may take to begin, when another one stands behind it."""
_PASSED_OVER: Final = (BackendUnavailable, FailedPrecondition, Overloaded)
"""What lets the next one answer. A wrong request stays wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One generator of several."""

    name: str
    generator: Generator
    tenants: frozenset[str] = frozenset()
    """Those that it answers; empty for all."""
    escalate: bool = False
    """Whether the next one is asked when this one finds no evidence: a small model before a large one."""
    hedge_s: float | None = None
    """After so long without a first item the next one is asked as well, and whoever begins first answers."""
    circuit: Circuit = field(default_factory=lambda: Circuit(failures=3, open_s=10.0))


class FallbackGenerator:
    """The first of ``candidates`` that begins an answer gives it: nobody takes over in the middle."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = tuple(candidates)

    async def stream(
        self,
        prompt: Prompt,
        limits: Limits,
        *,
        cache_salt: str = "",
        priority: int = 0,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Generated, None]:
        """What the first one that answers gives; its ``End`` says who that was, and why not one before it.

        Raises what the last one raises, or FailedPrecondition when none is for this tenant; DeadlineExceeded.
        """

        def ask(candidate: Candidate, left_s: float | None) -> AsyncGenerator[Generated, None]:
            return candidate.generator.stream(
                prompt, limits, cache_salt=cache_salt, priority=priority, deadline_s=left_s
            )

        race = _Race(self._for(prompt.tenant), ask, deadline_s)
        begun = await race.winner()
        candidate, passed_over = begun.candidate, race.passed_over
        async with aclosing(begun.stream) as stream:
            yield _signed(begun.first.result(), candidate, passed_over)
            try:
                async for item in stream:
                    yield _signed(item, candidate, passed_over)
            except BackendUnavailable as exc:
                candidate.circuit.failed(exc.message)
                raise

    async def condense(
        self, prompt: Prompt, *, cache_salt: str = "", deadline_s: float | None = None
    ) -> Condensed | None:
        """The first that can does it, else what the last one came to; all but the last have half of the time.

        What is short and may fail without harm closes no circuit, and tries no open one.
        """
        able = [(c, c.generator) for c in self._for(prompt.tenant) if isinstance(c.generator, Condenser)]
        end_s = None if deadline_s is None else monotonic() + deadline_s
        question: Condensed | None = None
        for candidate, generator in able:
            if not candidate.circuit.closed:
                continue
            left_s = None if end_s is None else end_s - monotonic()
            if left_s is not None and candidate is not able[-1][0]:
                left_s *= _FIRST_SHARE
            try:
                made = await generator.condense(prompt, cache_salt=cache_salt, deadline_s=left_s)
            except (*_PASSED_OVER, DeadlineExceeded) as exc:
                log.warning("condenser_passed_over", generator=candidate.name, error=exc.message)
                if isinstance(exc, BackendUnavailable):
                    candidate.circuit.failed(exc.message)
                continue
            if made is not None:
                question = replace(made, answered_by=candidate.name)
                if made.text:
                    break
        return question

    def _for(self, tenant: str) -> Sequence[Candidate]:
        return [c for c in self._candidates if not c.tenants or tenant in c.tenants]

    async def close(self) -> None:
        """Close all of them."""
        for candidate in self._candidates:
            await candidate.generator.close()


_Ask = Callable[[Candidate, float | None], AsyncGenerator[Generated, None]]
"""The stream of one candidate's answer, which has so many seconds left."""


@dataclass(frozen=True, slots=True, eq=False)
class _Attempt:
    """A candidate that was asked, and the first item of what it answers."""

    place: int
    """Among the candidates."""
    candidate: Candidate
    stream: AsyncGenerator[Generated, None]
    first: asyncio.Task[Generated]
    asked_s: float
    """On the monotonic clock."""

    async def close(self) -> None:
        """Of one whose ``first`` is done, or was cancelled."""
        await asyncio.gather(self.first, return_exceptions=True)
        await self.stream.aclose()


class _Race:
    """Candidates that are asked one after the other until one begins: when one fails, or to hedge."""

    def __init__(self, candidates: Sequence[Candidate], ask: _Ask, deadline_s: float | None) -> None:
        self.passed_over: tuple[str, ...] = ()
        """Why those that stand before the winner do not answer; known once there is one."""
        self._waiting = deque(enumerate(candidates))
        self._ask = ask
        self._end_s = None if deadline_s is None else monotonic() + deadline_s
        self._asked: list[_Attempt] = []
        self._spare: list[_Attempt] = []
        """Hedges that found no evidence: an answer only if none before them has another."""
        self._handed_over: list[_Attempt] = []
        self._reasons: dict[int, str] = {}
        self._refusal: RagstoneError | None = None
        """What a hedge says is wrong with the request: true only if none before it takes it."""
        self._failure: RagstoneError = FailedPrecondition("no generator is set up for this tenant")

    async def winner(self) -> _Attempt:
        """The one that answers; all others are given up. Raises as ``FallbackGenerator.stream`` does."""
        try:
            begun = await self._first_to_begin()
        except BaseException:
            await _give_up([*self._asked, *self._spare, *self._handed_over])
            raise
        self._tell(begun)
        others = [*self._asked, *self._spare, *self._handed_over]
        try:
            await _give_up([other for other in others if other is not begun])
        except BaseException:
            await _give_up([begun])
            raise
        return begun

    async def _first_to_begin(self) -> _Attempt:
        newest = self._ask_next()
        while self._asked:
            ready = await self._next_ready(None if newest is None else self._patience_s(newest))
            if ready is not None:
                self._asked.remove(ready)
                if self._begins(ready):
                    return ready
            if ready is None or ready is newest or not self._asked:
                newest = self._ask_next() or newest
        if self._spare:
            return self._spare[0]
        raise self._refusal or self._failure

    def _ask_next(self) -> _Attempt | None:
        """Ask the next one that may be asked; the last one always may. None where nobody is left."""
        while self._waiting:
            place, candidate = self._waiting.popleft()
            last = not self._waiting
            if (reason := candidate.circuit.refusal()) is not None and not last:
                self._reasons[place] = f"{candidate.name}: {reason}"
                continue
            left_s = None if self._end_s is None else self._end_s - monotonic()
            stream = self._ask(candidate, left_s)
            first = asyncio.create_task(_first(stream, candidate, None if last else left_s))
            self._asked.append(_Attempt(place, candidate, stream, first, monotonic()))
            return self._asked[-1]
        return None

    def _patience_s(self, newest: _Attempt) -> float | None:
        """How long the next one waits, if there is one that hedges ``newest``."""
        hedge_s = newest.candidate.hedge_s
        if hedge_s is None or not self._waiting:
            return None
        return max(0.0, newest.asked_s + hedge_s - monotonic())

    async def _next_ready(self, patience_s: float | None) -> _Attempt | None:
        """The first that has begun or failed; None when none has after ``patience_s``."""
        firsts = [attempt.first for attempt in self._asked]
        ready, _ = await asyncio.wait(firsts, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        return next((attempt for attempt in self._asked if attempt.first in ready), None)

    def _begins(self, ready: _Attempt) -> bool:
        """Whether it answers. Raises what is wrong with the request, unless one before it may take that."""
        candidate = ready.candidate
        is_hedge = any(other.place < ready.place for other in self._asked)
        try:
            first = ready.first.result()
        except RagstoneError as exc:
            if isinstance(exc, _PASSED_OVER):
                self._failure = exc
            elif is_hedge:
                # Nobody else is to answer what is wrong, but for those that were asked before.
                self._refusal = exc
                self._waiting.clear()
            else:
                raise
            self._reasons[ready.place] = f"{candidate.name}: {exc.message}"
            log.warning("generator_passed_over", generator=candidate.name, error=exc.message)
            return False
        if not _no_evidence(first):
            return True
        others = bool(self._waiting) or any(other.place > ready.place for other in self._asked)
        if candidate.escalate and others:
            self._handed_over.append(ready)
        elif is_hedge:
            self._spare.append(ready)
            self._waiting.clear()
        else:
            return True
        self._reasons[ready.place] = f"{candidate.name}: found no evidence"
        return False

    def _tell(self, winner: _Attempt) -> None:
        """Whom the winner has overtaken: that counts as a failure, or a circuit would never open."""
        for other in self._asked:
            if other.place < winner.place:
                reason = f"was slower to begin than {winner.candidate.name}"
                other.candidate.circuit.failed(reason)
                self._reasons[other.place] = f"{other.candidate.name}: {reason}"
        before = sorted(place for place in self._reasons if place < winner.place)
        self.passed_over = tuple(self._reasons[place] for place in before)


async def _give_up(attempts: Sequence[_Attempt]) -> None:
    """Stop them all at once; how one ends that nobody wants is of no interest but to the log."""
    for attempt in attempts:
        attempt.first.cancel()
    ends = await asyncio.gather(*(attempt.close() for attempt in attempts), return_exceptions=True)
    for attempt, end in zip(attempts, ends, strict=True):
        if isinstance(end, Exception):
            log.warning("generator_not_stopped", generator=attempt.candidate.name, error=str(end))


async def _first(
    stream: AsyncGenerator[Generated, None], candidate: Candidate, left_s: float | None
) -> Generated:
    """The first item. Counts for the circuit whether there is one."""
    try:
        async with asyncio.timeout(None if left_s is None else max(left_s, 0) * _FIRST_SHARE):
            first = await anext(stream)
    except TimeoutError as exc:
        reason = f"did not begin in half of the {left_s:.3g} s that were left"
        candidate.circuit.failed(reason)
        raise BackendUnavailable(reason) from exc
    except BackendUnavailable as exc:
        candidate.circuit.failed(exc.message)
        raise
    candidate.circuit.answered()
    return first


def _no_evidence(item: Generated) -> bool:
    return isinstance(item, End) and item.finish_reason is FinishReason.NO_EVIDENCE


def _signed(item: Generated, candidate: Candidate, passed_over: Sequence[str]) -> Generated:
    if isinstance(item, End):
        return replace(item, answered_by=candidate.name, passed_over=tuple(passed_over))
    return item

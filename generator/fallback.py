"""Several generators in order: who is asked first, and who answers when that one does not.

A request may be hedged: asked of the next one too when the one before is slow to begin (Dean and Barroso,
"The Tail at Scale", 2013).
"""

from __future__ import annotations

import asyncio
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


Ask = Callable[["Candidate", float | None], AsyncGenerator[Generated, None]]
"""The stream of one candidate's answer, which has so many seconds left."""


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

        passed_over: list[str] = []
        begun = await _first_to_begin(self._for(prompt.tenant), ask, deadline_s, passed_over)
        candidate = begun.candidate
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


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A candidate that was asked, and the first item of what it answers."""

    candidate: Candidate
    stream: AsyncGenerator[Generated, None]
    first: asyncio.Task[Generated]

    async def give_up(self) -> None:
        self.first.cancel()
        await asyncio.gather(self.first, return_exceptions=True)
        await self.stream.aclose()


async def _first_to_begin(
    candidates: Sequence[Candidate], ask: Ask, deadline_s: float | None, passed_over: list[str]
) -> _Attempt:
    """Ask one after the other until one begins: the next when none is left that may, or to hedge.

    Raises as ``FallbackGenerator.stream`` does.
    """
    end_s = None if deadline_s is None else monotonic() + deadline_s
    failure: RagstoneError = FailedPrecondition("no generator is set up for this tenant")
    asked: list[_Attempt] = []
    try:
        for candidate in candidates:
            last = candidate is candidates[-1]
            if (reason := candidate.circuit.refusal()) is not None and not last:
                passed_over.append(f"{candidate.name}: {reason}")
                continue
            left_s = None if end_s is None else end_s - monotonic()
            stream = ask(candidate, left_s)
            first = asyncio.create_task(_first(stream, candidate, None if last else left_s))
            asked.append(_Attempt(candidate, stream, first))
            patience_s = None if last else candidate.hedge_s
            while asked and (ready := await _next_ready(asked, patience_s)) is not None:
                asked.remove(ready)
                try:
                    if not _hands_over(ready, candidates):
                        passed_over += [f"{other.candidate.name}: was slower to begin" for other in asked]
                        return ready
                    reason = "found no evidence"
                except _PASSED_OVER as exc:
                    failure, reason = exc, exc.message
                    log.warning("generator_passed_over", generator=ready.candidate.name, error=reason)
                passed_over.append(f"{ready.candidate.name}: {reason}")
                await ready.give_up()
        raise failure
    finally:
        for other in asked:
            await other.give_up()


async def _next_ready(asked: Sequence[_Attempt], patience_s: float | None) -> _Attempt | None:
    """The first of ``asked`` that has begun or failed; None when none has after ``patience_s``."""
    ready, _ = await asyncio.wait(
        [attempt.first for attempt in asked], timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
    )
    return next((attempt for attempt in asked if attempt.first in ready), None)


def _hands_over(begun: _Attempt, candidates: Sequence[Candidate]) -> bool:
    """Whether what has begun is no answer, and there is somebody else to ask. Raises what it raised."""
    first, candidate = begun.first.result(), begun.candidate
    return candidate.escalate and candidate is not candidates[-1] and _no_evidence(first)


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

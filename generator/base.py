"""The protocol of the generators, and the values that cross it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ragstone.answers import FinishReason, TokenLogprob, Turn, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One retrieved chunk as the generator gets it, numbered from 1 in the order given."""

    chunk_id: str
    document_id: str
    text: str
    title: str = ""
    start: int = 0
    """Where ``text`` begins in its document, in characters."""
    score: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A question and the passages that may answer it, best first."""

    question: str
    passages: Sequence[Passage]
    language: str | None = None
    history: Sequence[Turn] = ()
    """The conversation so far, oldest first."""
    tenant: str = ""
    """Who asks: for choosing a generator, never a part of what a model reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds and form of one generation."""

    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None
    stop: Sequence[str] = ()
    """Texts at which the generation ends; they are not a part of the answer."""
    json_schema: Mapping[str, Any] | None = None
    """The answer is JSON that fits; it has no citations then."""
    logprobs: bool = False
    """Whether ``End`` is to say how likely each token was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """The next piece of text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The text streamed so far, from ``answer_start`` to ``answer_end``, rests on a passage's characters.

    ``start`` and ``end`` are offsets into the passage's text.
    """

    passage: int
    """Index into the prompt's passages, from 0."""
    start: int
    end: int
    answer_start: int
    answer_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The last item of every complete stream."""

    finish_reason: FinishReason
    usage: Usage
    model: str = ""
    """What generated, in its own name."""
    template: str = ""
    """The digest of the prompt's template; empty where there is none."""
    sent: Sequence[int] = ()
    """The passages that the model was given: indexes into the prompt's, in the order in which they stood."""
    removed_marks: int = 0
    """Citations that pointed nowhere, and were taken out of the text."""
    answered_by: str = ""
    """Which generator answered, where there are several."""
    passed_over: Sequence[str] = ()
    """Why those before it did not, one line each."""
    logprobs: Sequence[TokenLogprob] = ()
    """Of a model that tells, where it was asked."""


Generated: TypeAlias = Delta | Quote | End


@dataclass(frozen=True, slots=True, kw_only=True)
class Condensed:
    """A question that stands alone."""

    text: str
    """Empty where nothing came of it."""
    usage: Usage
    model: str
    """What wrote it, in its own name."""
    answered_by: str = ""
    """Which generator, where there are several."""


class Generator(Protocol):
    """A prompt to a stream that ends with exactly one ``End``. Closing the stream stops the work."""

    def stream(
        self,
        prompt: Prompt,
        limits: Limits,
        *,
        cache_salt: str = "",
        priority: int = 0,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Generated, None]:
        """Deltas and quotes as they come, then ``End``.

        Generations of different ``cache_salt`` share no cache. A lower ``priority`` goes first.
        Raises DeadlineExceeded, or BackendUnavailable when the model does not answer.
        """
        ...

    async def close(self) -> None:
        """Release the model."""
        ...


@runtime_checkable
class Condenser(Protocol):
    """A generator that also makes questions stand alone."""

    async def condense(
        self, prompt: Prompt, *, cache_salt: str = "", deadline_s: float | None = None
    ) -> Condensed | None:
        """The question of ``prompt`` with what it refers to in ``history``; None where nobody was asked.

        Raises as ``Generator.stream`` does.
        """
        ...

"""The protocol of the generators, and the values that cross it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ragstone.types import FinishReason, Usage


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
    """A question and the passages that may answer it."""

    question: str
    passages: Sequence[Passage]
    language: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one generation."""

    max_tokens: int = 512


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


Generated: TypeAlias = Delta | Quote | End


class Generator(Protocol):
    """A prompt to a stream that ends with exactly one ``End``. Closing the stream stops the work."""

    def stream(
        self,
        prompt: Prompt,
        limits: Limits,
        *,
        cache_salt: str = "",
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Generated, None]:
        """Deltas and quotes as they come, then ``End``.

        Raises DeadlineExceeded, or BackendUnavailable when the model does not answer.
        """
        ...

    async def close(self) -> None:
        """Release the model."""
        ...

"""Answers as public values: what may be asked of a generation, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """Who said something in a conversation."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Something that was said in a conversation, before the question."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How an answer is generated; None leaves it to the server."""

    max_tokens: int | None = None
    """The length of the answer at most, in the generator's own tokens."""
    temperature: float | None = None
    """0, the server's default, takes the most likely token each time."""
    seed: int | None = None
    stop: Sequence[str] = ()
    """Texts at which the generation ends."""
    json_schema: Mapping[str, Any] | None = None
    """The answer is JSON that fits it, without citations."""
    logprobs: bool = False
    """``Done.logprobs`` has how likely each token was; of a generator that tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standalone:
    """A question that leans on a conversation, as it was searched for."""

    text: str
    condensed_by: str = ""
    """The generator that put it so, by its name in the server's settings; empty where a rule did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """The next piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """``answer[answer_start:answer_end]`` rests on characters ``start:end`` of a document.

    All offsets count Unicode code points; ``quote`` is the cited text. In the answer stands ``[n]``, the
    place of the passage among the hits of ``Contexts``, from 1.
    """

    chunk_id: str
    document_id: str
    start: int
    end: int
    answer_start: int
    answer_end: int
    quote: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the generation cost, in the generator's own tokens."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt: those that the generator had in its cache."""
    completion_tokens: int = 0
    ttft_ms: float = 0.0
    """From the call of the generator to the first piece of text."""
    tpot_ms: float = 0.0
    """From one token to the next, on average."""
    queue_ms: float = 0.0
    """Of ``ttft_ms``, while as many generations ran as may."""
    cost: float | None = None
    """By the server's price table; None where it has no price for the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """What a generator took for a tenant's answers in one day, in UTC."""

    day: date
    tenant: str
    generator: str
    """By its name in the server's settings."""
    model: str
    """In its own name."""
    answers: int
    usage: Usage
    """All tokens and what they cost; the times are means."""


class FinishReason(StrEnum):
    """Why an answer ended."""

    COMPLETE = "complete"
    LENGTH = "length"
    NO_EVIDENCE = "no_evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token that a model wrote, and the natural logarithm of how likely it held it."""

    token: str
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSpan:
    """Characters ``start:end`` of the answer's text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The last event of a complete answer; a stream that ends without it was broken off."""

    finish_reason: FinishReason
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    answered_by: str = ""
    """The generator, by its name in the server's settings."""
    model: str = ""
    """The model, in its own name."""
    passed_over: tuple[str, ...] = ()
    """Why it was not a generator before it, one line each."""
    template: str = ""
    """The digest of the prompt's template; empty where there is none."""
    removed_marks: int = 0
    """Citations of the model that pointed nowhere, and were taken out."""
    grounded: float | None = None
    """The share of the answer's sentences that rest on a passage which they cite; None without any."""
    ungrounded: tuple[AnswerSpan, ...] = ()
    """The other sentences."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """The tokens as the model wrote them, with its own marks, where ``Generation.logprobs`` asks for them."""
    from_cache: bool = False
    """The answer was given before, to the same tenant: nothing was generated. Without ``similarity``,
    question and passages were the very same."""
    similarity: float | None = None
    """Cosine with the question that it was given to, where that, or what was found, was not the very same."""

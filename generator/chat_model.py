"""The protocol of the language models that complete a chat, and the values that cross it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, NamedTuple, Protocol, TypeVar

from generator.base import Limits
from generator.prompt import Count, Message
from ragstone.answers import TokenLogprob
from ragstone.errors import BackendUnavailable, DeadlineExceeded

T = TypeVar("T")

CACHE_TOKENS: Final = 200_000
BLOCK_SIZE: Final = 16
"""Of a prefix cache that does not tell."""


class Served(NamedTuple):
    """What a model is."""

    name: str
    context_tokens: int | None
    """What prompt and answer may hold together, where that is known."""
    is_vllm: bool


class TokenUsage(NamedTuple):
    """Of one completion; ``cached_tokens`` are those of the prompt that were not computed anew."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The next piece of a completion."""

    text: str = ""
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: str | None = None
    """Set in the piece that ends the text: ``length`` where it was cut."""
    usage: TokenUsage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What a model is to complete, and how."""

    messages: Sequence[Message]
    limits: Limits
    cache_salt: str = ""
    priority: int = 0


class Begun(NamedTuple):
    """A completion that has begun."""

    first: Chunk
    rest: AsyncIterator[Chunk]
    close: Callable[[], Awaitable[None]]
    """Stops what is still to come."""


class ChatModel(Protocol):
    """One model, or one replica of it. ``in_flight`` and ``down`` are for choosing among several."""

    url: str
    """Where it is: what tells it from other replicas."""
    in_flight: int

    @property
    def count(self) -> Count:
        """Counts in the model's own tokens, or guesses."""
        ...

    @property
    def down(self) -> bool:
        """Whether it has not answered of late."""
        ...

    async def served(self) -> Served:
        """The model. Raises BackendUnavailable, FailedPrecondition."""
        ...

    async def cache(self, served: Served) -> tuple[int, int]:
        """Tokens that its prefix cache holds, and its block size, or a guess."""
        ...

    async def begin(self, chat: Chat) -> Begun:
        """The completion of ``chat``, once its first piece of text is there; it is to be given to ``end``.

        Raises BackendUnavailable, and what a refusal means.
        """
        ...

    async def end(self, begun: Begun) -> None:
        """Stop what is still generated."""
        ...

    async def close(self) -> None:
        """Release the model."""
        ...


async def within(coming: Awaitable[T], end_s: float | None, patience_s: float, what: str) -> T:
    """What ``coming`` gives. Raises DeadlineExceeded at ``end_s``, BackendUnavailable after a long wait."""
    left_s = float("inf") if end_s is None else end_s - monotonic()
    try:
        async with asyncio.timeout(max(min(left_s, patience_s), 0)):
            return await coming
    except TimeoutError as exc:
        if left_s <= patience_s:
            raise DeadlineExceeded("the deadline passed while the model answered") from exc
        raise BackendUnavailable(f"{what} has been silent for {patience_s:.3g} s") from exc

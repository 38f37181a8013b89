"""Answers that were given before, for the same tenant, question and passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from json import dumps

from cachetools import LRUCache

from generator.base import Limits, Prompt
from ragstone.answers import Citation, Done, FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A whole answer."""

    text: str
    citations: Sequence[Citation]
    done: Done


class AnswerCache:
    """The last ``max_answers`` of them. Not thread-safe: it belongs to the event loop."""

    def __init__(self, max_answers: int) -> None:
        self._answers: LRUCache[bytes, Answered] = LRUCache(max_answers)

    def get(self, prompt: Prompt, limits: Limits) -> Answered | None:
        """The answer to ``prompt``, when it was asked so before."""
        return self._answers.get(_key(prompt, limits)) if repeatable(limits) else None

    def put(self, prompt: Prompt, limits: Limits, answered: Answered) -> None:
        """Keep an answer that came to its end; one that another generator had to give is not kept."""
        if whole(answered) and repeatable(limits) and self._answers.maxsize:
            self._answers[_key(prompt, limits)] = answered


def whole(answered: Answered) -> bool:
    """Whether it came to its end, and was no other generator's to give."""
    return answered.done.finish_reason is FinishReason.COMPLETE and not answered.done.passed_over


def repeatable(limits: Limits) -> bool:
    """Whether the same answer is what asking again should give."""
    return limits.temperature == 0 or limits.seed is not None


def _key(prompt: Prompt, limits: Limits) -> bytes:
    """Of all that an answer depends on.

    The passages stand in it with their texts, so an answer is found only where this search, on this version
    at this ``seq``, gave the very same ones: a write that changes one of them makes it another question.
    Their scores do not: every write changes those a little.
    """
    passages = [replace(passage, score=0.0) for passage in prompt.passages]
    said = dumps([asdict(replace(prompt, passages=passages)), asdict(limits)], sort_keys=True)
    return blake2b(said.encode(), digest_size=20).digest()

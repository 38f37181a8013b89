"""Answers to questions that were asked before in other words (Bang, "GPTCache", 2023).

Vectors alone are a poor judge of that: "in 2019" and "in 2020" are near one another. So an answer is given
again only where its evidence stands too: numbers are the same, and what it cites was found again.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from json import dumps
from typing import Final

import numpy as np
from numpy.typing import NDArray

from generator.base import Limits, Passage, Prompt
from ragstone.answers import Citation
from retrieval.query.answer_cache import Answered, repeatable, whole

Vector = NDArray[np.float32]
"""Of a question, of unit length: ``(dim,)``."""

_NUMBER: Final = re.compile(r"(?:[+-]|(?<!\w))\w*\d(?:[\w.,:/%-]*\w)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question without a conversation before it, as the cache compares it."""

    prompt: Prompt
    limits: Limits
    vector: Vector
    space: str
    """In which ``vector`` lies: in another one a cosine with it means nothing."""
    collection: str
    filter: str = ""
    """What was searched: an answer tells of all that was found there, not only of what it cites."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    scope: str
    numbers: tuple[str, ...]
    vector: Vector
    evidence: Mapping[int, Passage]
    """The passages that the answer cites, by their place among those that were found."""
    read: Mapping[str, str]
    """The texts of all that were found, by chunk."""
    answered: Answered

    def stands(self, passages: Sequence[Passage]) -> bool:
        """Whether the answer's marks point at what they did, and nothing that it read was changed."""
        unchanged = all(self.read.get(one.chunk_id, one.text) == one.text for one in passages)
        return unchanged and all(
            place < len(passages) and _unscored(passages[place]) == passage
            for place, passage in self.evidence.items()
        )


class SimilarAnswers:
    """The last ``max_answers`` of them. Not thread-safe: it belongs to the event loop."""

    def __init__(self, max_answers: int, *, similarity: float) -> None:
        self._similarity = similarity
        self._kept: deque[_Kept] = deque(maxlen=max_answers)

    def find(self, asked: Asked) -> Answered | None:
        """The answer to the nearest question that is near enough; its ``done`` says how near."""
        scope, numbers = _scope(asked), _numbers(asked.prompt)
        kept = [one for one in self._kept if (one.scope, one.numbers) == (scope, numbers)]
        if not kept:
            return None
        cosines = np.stack([one.vector for one in kept]) @ asked.vector
        for place in np.argsort(-cosines, kind="stable").tolist():
            if cosines[place] < self._similarity:
                break
            if kept[place].stands(asked.prompt.passages):
                answered: Answered = kept[place].answered
                done = replace(answered.done, similarity=min(1.0, float(cosines[place])))
                return replace(answered, done=done)
        return None

    def put(self, asked: Asked, answered: Answered) -> None:
        """Keep an answer that rests on something; others as ``AnswerCache.put``."""
        passages = asked.prompt.passages
        evidence = _evidence(passages, answered.citations)
        if evidence and whole(answered) and repeatable(asked.limits):
            read = {passage.chunk_id: passage.text for passage in passages}
            kept = _Kept(_scope(asked), _numbers(asked.prompt), asked.vector, evidence, read, answered)
            self._kept.append(kept)


def _scope(asked: Asked) -> str:
    """What has to be the very same."""
    prompt = asked.prompt
    searched = [prompt.tenant, asked.collection, asked.filter, asked.space, prompt.language]
    return dumps([searched, asdict(asked.limits)], sort_keys=True)


def _numbers(prompt: Prompt) -> tuple[str, ...]:
    """One after the other, with signs and fractions."""
    return tuple(_NUMBER.findall(prompt.question.casefold()))


def _evidence(passages: Sequence[Passage], citations: Sequence[Citation]) -> Mapping[int, Passage]:
    cited = {citation.chunk_id for citation in citations}
    return {i: _unscored(passage) for i, passage in enumerate(passages) if passage.chunk_id in cited}


def _unscored(passage: Passage) -> Passage:
    """Every write changes scores a little."""
    return replace(passage, score=0.0)

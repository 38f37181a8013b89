"""Which sentences of an answer rest on the passages that they cite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from generator.overlap import supported, words_of_meaning
from generator.sentences import Span, sentences
from ragstone.answers import AnswerSpan, Citation

Embed = Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]
"""Texts to unit vectors ``(n, dim)``."""

_WORDS: Final = 0.5
"""Half of a sentence's words of meaning in what it cites: then it rests on that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounding:
    """What was found."""

    share: float | None
    """Of the sentences; None where there are none."""
    ungrounded: tuple[AnswerSpan, ...]


@dataclass(frozen=True, slots=True)
class _Claim:
    span: Span
    text: str
    quotes: tuple[str, ...]


async def ground(
    answer: str, citations: Sequence[Citation], *, embed: Embed | None, similarity: float
) -> Grounding:
    """A sentence is grounded by its words, or else by its vector: cosine ``similarity`` with a quote.

    One that cites nothing is not grounded. Without ``embed`` only words count.
    """
    claims = [_claim(answer, span, citations) for span in sentences(answer)]
    # A mark behind a full stop stands alone.
    claims = [claim for claim in claims if words_of_meaning(claim.text)]
    doubtful = [c for c in claims if c.quotes and supported(c.text, c.quotes) < _WORDS]
    alike = await _alike(doubtful, embed, similarity) if embed is not None and doubtful else set()
    bare = [c for c in claims if not c.quotes or (c in doubtful and c.span not in alike)]
    return Grounding(
        share=1 - len(bare) / len(claims) if claims else None,
        ungrounded=tuple(AnswerSpan(start=c.span.start, end=c.span.end) for c in bare),
    )


def _claim(answer: str, span: Span, citations: Sequence[Citation]) -> _Claim:
    quotes = tuple(c.quote for c in citations if c.answer_start < span.end and span.start < c.answer_end)
    return _Claim(span, answer[span.start : span.end], quotes)


async def _alike(claims: Sequence[_Claim], embed: Embed, similarity: float) -> set[Span]:
    """Of ``claims``, those that are near one of their quotes."""
    texts = [text for claim in claims for text in (claim.text, *claim.quotes)]
    vectors = iter(await embed(texts))
    found = set()
    for claim in claims:
        own = next(vectors)
        if max(float(own @ next(vectors)) for _ in claim.quotes) >= similarity:
            found.add(claim.span)
    return found

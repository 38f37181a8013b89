"""Answers without a language model: the sentences that answer best, word for word, each with its citation."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import Stemmer
import stopwordsiso
from pydantic import BaseModel, Field

from generator.base import Delta, End, Generated, Generator, Limits, Passage, Prompt, Quote
from generator.options import parse_options
from generator.sentences import Span, sentences
from ragstone.answers import FinishReason, Usage
from ragstone.errors import BackendUnavailable, DeadlineExceeded

_INLINE_CHARS: Final = 2_000
"""Up to so many characters are read on the event loop; more take a thread."""
_STOP_WORD: Final = 0.3
"""What a stop word weighs beside another word: it may break ties, and is no evidence."""
_PASSAGE: Final = 0.5
"""What a sentence gets for the words that the rest of its passage shares with the question."""
_RANK: Final = 0.05
_SAME: Final = 0.6
_ENOUGH: Final = 0.5
"""A further sentence must score this share of the best one."""
_WORD: Final = re.compile(r"\w+")
_UNSPACED: Final = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)
_COUNTED: Final = re.compile(r"\S+")


class Options(BaseModel, frozen=True, extra="forbid"):
    """Options of the ``extractive`` generator."""

    max_sentences: int = Field(3, ge=1, le=20)


async def open_generator(options: Mapping[str, Any]) -> Generator:
    """An extractive generator. Raises InvalidArgument for wrong options."""
    parsed = parse_options(Options, options)
    return ExtractiveGenerator(max_sentences=parsed.max_sentences)


class ExtractiveGenerator:
    """Quotes up to ``max_sentences`` sentences, best first, each with its passage's number: `` [1]``."""

    def __init__(self, *, max_sentences: int = 3) -> None:
        self._max_sentences = max_sentences
        self._closed = False

    async def stream(
        self,
        prompt: Prompt,
        limits: Limits,
        *,
        cache_salt: str = "",
        priority: int = 0,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Generated, None]:
        """One delta and one quote a sentence, then ``End``; tokens are words. NO_EVIDENCE comes without text.

        Raises DeadlineExceeded, and BackendUnavailable after ``close``.
        """
        if self._closed:
            raise BackendUnavailable("the generator is closed")
        chosen = await self._choose(prompt, deadline_s)
        chosen, cut = _within(prompt.passages, chosen, limits.max_tokens)
        position = words = 0
        for number, sentence in enumerate(chosen):
            lead = " " if number else ""
            quoted = _text_of(prompt.passages, sentence)
            delta = f"{lead}{quoted} [{sentence.passage + 1}]"
            yield Delta(text=delta)
            begin = position + len(lead)
            yield Quote(
                passage=sentence.passage,
                start=sentence.span.start,
                end=sentence.span.end,
                answer_start=begin,
                answer_end=begin + len(quoted),
            )
            position += len(delta)
            words += count_words(quoted)
        asked = count_words(prompt.question) + sum(count_words(p.text) for p in prompt.passages)
        reason = FinishReason.NO_EVIDENCE
        if chosen:
            reason = FinishReason.LENGTH if cut else FinishReason.COMPLETE
        yield End(
            finish_reason=reason,
            usage=Usage(prompt_tokens=asked, completion_tokens=words),
            model="extractive",
            sent=range(len(prompt.passages)),
        )

    async def close(self) -> None:
        """Nothing is held."""
        self._closed = True

    async def _choose(self, prompt: Prompt, deadline_s: float | None) -> list[Scored]:
        if deadline_s is not None and deadline_s <= 0:
            raise DeadlineExceeded("no time is left for an answer")
        if sum(len(p.text) for p in prompt.passages) <= _INLINE_CHARS:
            return choose(prompt, self._max_sentences)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.to_thread(choose, prompt, self._max_sentences)
        except TimeoutError as exc:
            raise DeadlineExceeded("the deadline passed while sentences were chosen") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A sentence of passage number ``passage`` (from 0), with its terms and its score."""

    passage: int
    span: Span
    terms: frozenset[str]
    score: float


def choose(prompt: Prompt, limit: int) -> list[Scored]:
    """Up to ``limit`` sentences, best first; none where none shares a word of meaning with the question.

    A sentence's score is the sum of the inverse sentence frequencies of the question's terms in it, plus a
    share of what its whole passage has of them. Near-repetitions of a chosen sentence are left out
    (maximal marginal relevance, Carbonell and Goldstein 1998, with a threshold).
    """
    language = prompt.language or "en"
    found = [
        (number, span, frozenset(terms(passage.text[span.start : span.end], language)))
        for number, passage in enumerate(prompt.passages)
        for span in sentences(passage.text)
    ]
    meaning, weights = _question_weights(prompt.question, language, [t for _, _, t in found])
    whole = [frozenset[str]().union(*(t for n, _, t in found if n == i)) for i in range(len(prompt.passages))]
    total = sum(weights.values())
    context = [_PASSAGE * _overlap(weights, t) + _RANK * total / (1 + rank) for rank, t in enumerate(whole)]
    scored = [
        Scored(passage=n, span=span, terms=t, score=_overlap(weights, t) + context[n])
        for n, span, t in found
        if not meaning.isdisjoint(t)
    ]
    scored.sort(key=lambda s: (-s.score, s.passage, s.span.start))
    return _distinct(scored, limit)


def terms(text: str, language: str) -> list[str]:
    """Stemmed words; character 2-grams of what is written without spaces."""
    found: list[str] = []
    for word in _WORD.findall(text.casefold()):
        unspaced = _UNSPACED.search(word)
        if unspaced is None:
            found.append(_stem(word, language))
        elif len(word) < 3:
            found.append(word)
        else:
            found.extend(word[i : i + 2] for i in range(len(word) - 1))
    return found


def count_words(text: str) -> int:
    """Words between white space: this generator's tokens."""
    return sum(1 for _ in _COUNTED.finditer(text))


def _question_weights(
    question: str, language: str, found: Sequence[frozenset[str]]
) -> tuple[frozenset[str], dict[str, float]]:
    """The question's terms that carry its meaning, and the weight of each of all its terms."""
    frequency = Counter(term for sentence in found for term in sentence)
    asked = dict.fromkeys(terms(question, language))
    stop = _stop_terms(language)
    meaning = frozenset(term for term in asked if term not in stop) or frozenset(asked)
    weights = {
        term: math.log1p((len(found) + 0.5) / (frequency[term] + 0.5))
        * (1 if term in meaning else _STOP_WORD)
        for term in asked
    }
    return meaning, weights


def _overlap(weights: Mapping[str, float], present: frozenset[str]) -> float:
    return math.fsum(weight for term, weight in weights.items() if term in present)


def _distinct(scored: Sequence[Scored], limit: int) -> list[Scored]:
    chosen: list[Scored] = []
    for candidate in scored:
        if len(chosen) == limit or (chosen and candidate.score < _ENOUGH * chosen[0].score):
            break
        if all(_similarity(candidate.terms, other.terms) < _SAME for other in chosen):
            chosen.append(candidate)
    return chosen


def _similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard's coefficient."""
    return len(a & b) / max(1, len(a | b))


def _within(
    passages: Sequence[Passage], chosen: Sequence[Scored], max_words: int
) -> tuple[list[Scored], bool]:
    """The first of ``chosen`` that fit, a lone long one cut; and whether anything was left out."""
    fitting: list[Scored] = []
    left = max_words
    for sentence in chosen:
        words = list(_COUNTED.finditer(_text_of(passages, sentence)))
        if len(words) <= left:
            fitting.append(sentence)
            left -= len(words)
            continue
        if not fitting and left > 0:
            start = sentence.span.start
            span = Span(start, start + words[left - 1].end())
            fitting.append(
                Scored(passage=sentence.passage, span=span, terms=sentence.terms, score=sentence.score)
            )
        return fitting, True
    return fitting, False


def _text_of(passages: Sequence[Passage], sentence: Scored) -> str:
    return passages[sentence.passage].text[sentence.span.start : sentence.span.end]


@lru_cache(maxsize=1 << 16)
def _stem(word: str, language: str) -> str:
    # A stemmer is cheap to make and not safe to share between threads; words repeat, so few are made.
    try:
        return str(Stemmer.Stemmer(language, 0).stemWord(word))
    except KeyError:
        return word


@lru_cache(maxsize=64)
def _stop_terms(language: str) -> frozenset[str]:
    if not stopwordsiso.has_lang(language):
        return frozenset()
    return frozenset(term for word in stopwordsiso.stopwords(language) for term in terms(word, language))

"""Citations in a text as it streams: which passage a mark means, and which of its sentences.

A mark is a number of up to three digits in square brackets, or several: ``[1]``, ``[1, 2]``, ``[1; 2]``,
``【1】``. One that points to no passage is removed with the white space before it, and counted, unless it
stands right behind a word, as an index does in code: then it is no mark, and stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import regex

from generator.base import Delta, Passage, Quote
from generator.overlap import words_of_meaning
from generator.sentences import Span, sentences

_MARK: Final = regex.compile(r"(\s*)[\[\u3010]\s*(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\s*[\]\u3011]")
_MAY_BECOME_ONE: Final = regex.compile(r"\s{0,16}(?:[\[\u3010][\s\d,;]{0,48})?$")
"""The end of what came, that is held back: white space, and a bracket that only has what a mark has."""
_NUMBER: Final = regex.compile(r"\d+")
_SENTENCE_CHARS: Final = 2_000
"""A sentence is looked for in so much of the text before its mark."""


class CitationParser:
    """Text in pieces to deltas and quotes.

    ``marks`` tells which of ``passages`` a number in the text means. In the text that comes out the number is
    the passage's place among ``passages``, from 1.
    """

    def __init__(self, passages: Sequence[Passage], marks: Mapping[int, int]) -> None:
        self._passages = passages
        self._marks = marks
        self._held = ""
        self._text = ""
        """What came out so far."""
        self._removed = 0
        self._sentences: dict[int, list[tuple[Span, frozenset[str]]]] = {}

    @property
    def removed_marks(self) -> int:
        """Numbers that pointed to no passage."""
        return self._removed

    def feed(self, text: str) -> list[Delta | Quote]:
        """What the next piece gives; the end that may become a mark is held back, 64 characters at most."""
        text = self._held + text
        tail = _MAY_BECOME_ONE.search(text)
        assert tail is not None
        self._held = text[tail.start() :]
        return list(self._read(text[: tail.start()]))

    def finish(self) -> list[Delta | Quote]:
        """What was held back."""
        text, self._held = self._held, ""
        return list(self._read(text))

    def _read(self, text: str) -> Iterator[Delta | Quote]:
        begin, out, quotes = 0, "", list[Quote]()
        for match in _MARK.finditer(text):
            before = text[begin : match.start()]
            written, cited = self._mark(match, before)
            if written is None:
                continue
            out += before + written
            self._text += before
            claim = self._claim(written)
            self._text += written
            quotes += [self._quote(passage, claim) for passage in cited]
            begin = match.end()
        out += text[begin:]
        self._text += text[begin:]
        if out:
            yield Delta(text=out)
        yield from quotes

    def _mark(self, match: regex.Match[str], before: str) -> tuple[str | None, list[int]]:
        """What stands for a mark, and the passages that it means; None where it is no mark."""
        numbers = [int(number) for number in _NUMBER.findall(match[2])]
        cited = list(dict.fromkeys(self._marks[number] for number in numbers if number in self._marks))
        behind_word = not match[1] and (before or self._text)[-1:].isalnum()
        if not cited and behind_word:
            return None, []
        self._removed += sum(number not in self._marks for number in numbers)
        written = "".join(f"[{passage + 1}]" for passage in cited)
        return (match[1] + written if cited else ""), cited

    def _claim(self, mark: str) -> Span:
        """The sentence before a mark, as offsets into the text; the mark itself where there is none."""
        begin = max(len(self._text) - _SENTENCE_CHARS, 0)
        found = list(sentences(self._text[begin:]))
        if found:
            return Span(begin + found[-1].start, begin + found[-1].end)
        return Span(len(self._text), len(self._text) + len(mark))

    def _quote(self, passage: int, claim: Span) -> Quote:
        text = self._passages[passage].text
        best = self._best_sentence(passage, words_of_meaning(self._text[claim.start : claim.end]))
        start, end = (0, len(text)) if best is None else best
        return Quote(passage=passage, start=start, end=end, answer_start=claim.start, answer_end=claim.end)

    def _best_sentence(self, passage: int, claimed: frozenset[str]) -> Span | None:
        """The first of the passage's sentences with most of the words; None where none has any."""
        if passage not in self._sentences:
            text = self._passages[passage].text
            self._sentences[passage] = [
                (span, words_of_meaning(text[span.start : span.end])) for span in sentences(text)
            ]
        known = self._sentences[passage]
        best = max(known, key=lambda one: len(one[1] & claimed), default=None)
        return None if best is None or not best[1] & claimed else best[0]

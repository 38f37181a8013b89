"""Chunks: where a text is cut so that every piece fits the embedder, and still reads as a piece.

A text is cut before a heading where that leaves no small piece behind, else between paragraphs, else
between sentences; only a sentence that is too long on its own is cut between words, and only a word that
is too long on its own inside. Pure: no I/O, the same spans for the same text everywhere.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

import numpy as np
import regex
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ragstone.errors import InvalidArgument

MIN_TOKENS: Final = 16
"""The smallest ``max_tokens``: title, special tokens and some text must find room."""

_SEPARATOR: Final = " "
_BLOCK_CHARS: Final = 100_000
_CHARS_PER_TOKEN_OF_PROSE: Final = 5
_CHARS_PER_TOKEN: Final = 32
"""Bounds chunks of unbroken text, such as base64: WordPiece sees one unknown token, however long it is."""


@dataclass(frozen=True, slots=True)
class Span:
    """``text[start:end]``, in Unicode code points."""

    start: int
    end: int


class Chunker:
    """Cuts texts into spans of at most ``max_tokens`` tokens, the title and special tokens included.

    ``tokenizer`` is the embedder's; a copy of it is used, without truncation and padding. Left out,
    tokens are estimated: one for every four letters or digits, one for any other character. Neighbours
    overlap by whole sentences of at most ``overlap_tokens`` together.

    Raises InvalidArgument for sizes that cannot work.
    """

    def __init__(
        self, *, max_tokens: int, overlap_tokens: int = 0, tokenizer: Tokenizer | None = None
    ) -> None:
        if max_tokens < MIN_TOKENS:
            raise InvalidArgument.at("chunker.max_tokens", f"must be at least {MIN_TOKENS}, not {max_tokens}")
        if not 0 <= overlap_tokens <= max_tokens // 2:
            raise InvalidArgument.at(
                "chunker.overlap_tokens",
                f"must lie between 0 and half of max_tokens, {max_tokens // 2}, not {overlap_tokens}",
            )
        self._tokens: _Tokens = _EstimatedTokens() if tokenizer is None else _ModelTokens(tokenizer)
        self._fits = max_tokens - self._tokens.special
        self._title_fits = max_tokens // 4
        self._overlap = overlap_tokens

    def split(self, text: str, title: str = "") -> list[Span]:
        """The spans of ``text``, in order; none for white space alone.

        Each begins and ends with a character that is not white space, and together they hold all of
        those. Each fits the embedder as ``passage(title, text[start:end])``.
        """
        whole = _trimmed(text, 0, len(text))
        if whole.start == whole.end:
            return []
        if self._surely_fits(title, text):
            return [whole]
        prefix = self._prefix(title)
        likely = len(text) <= _CHARS_PER_TOKEN_OF_PROSE * self._fits
        if likely and self._tokens.count(prefix + text) <= self._fits:  # twice as fast as with offsets
            return [whole]
        ends = self._tokens.ends(prefix + text)
        if len(ends) <= self._fits:
            return [whole]
        taken = bisect_right(ends, len(prefix))
        cutter = _Cutter(text, prefix, ends[taken:] - len(prefix), self._tokens, self._fits, self._overlap)
        return list(cutter.spans())

    def passage(self, title: str, text: str) -> str:
        """What is embedded for one chunk: the title, cut to a quarter of ``max_tokens``, and the text."""
        return self._prefix(title) + text

    def _surely_fits(self, title: str, text: str) -> bool:
        """Without the tokenizer: a token of ASCII text is at least one character."""
        return len(title) + len(text) + 2 <= self._fits and title.isascii() and text.isascii()

    def _prefix(self, title: str) -> str:
        title = title.strip()
        if title.isascii() and len(title) < self._title_fits:
            return title + _SEPARATOR if title else ""
        while len(ends := self._tokens.ends(title)) > self._title_fits:
            limit = min(int(ends[self._title_fits - 1]), len(title) - 1)  # bytes of one character may differ
            title = title[: _word_border(title, 0, limit)].rstrip()
        return title + _SEPARATOR


class _Cutter:
    """One text that is too long, on its way to spans. ``ends`` int64 ``(tokens,)``: where each token ends."""

    def __init__(
        self, text: str, prefix: str, ends: NDArray[np.int64], tokens: _Tokens, fits: int, overlap: int
    ) -> None:
        self._text = text
        self._prefix = prefix
        self._ends = ends
        self._tokens = tokens
        self._fits = fits
        self._room = fits - tokens.count(prefix)
        self._overlap = overlap
        self._borders = _Borders.of(text)

    def spans(self) -> Iterator[Span]:
        whole = _trimmed(self._text, 0, len(self._text))
        start = reached = whole.start
        while reached < whole.end:
            start, end = self._next(start, reached)
            yield _trimmed(self._text, start, end)
            # Not before what the last chunk but one has: only neighbours overlap.
            floor = max(reached, start + 1)
            reached = _skip_space(self._text, end)
            start = self._overlap_start(floor, reached)

    def _next(self, start: int, reached: int) -> tuple[int, int]:
        """The chunk from ``start`` that reaches beyond ``reached``, or from there when it is in the way."""
        chars = self._room * _CHARS_PER_TOKEN
        while True:
            end = self._sentence_end(start, reached, chars)
            if end is None and start < reached:
                start, chars = reached, self._room * _CHARS_PER_TOKEN
                continue
            if end is None:
                end = _word_border(self._text, start, self._limit(start, chars))
            # Token counts of parts need not add up to those of the whole: what counts is the chunk itself.
            chunk = self._text[start:end].rstrip()
            count = self._tokens.count(self._prefix + chunk)
            if count <= self._fits or len(chunk) == 1:
                return start, end
            chars = max(1, min(len(chunk) - 1, len(chunk) * self._fits // count))

    def _limit(self, start: int, chars: int, share: float = 1.0) -> int:
        """The end of the last token that fits behind ``start`` in that share of the room."""
        last = self._before(start) + max(1, int(self._room * share)) - 1
        end = int(self._ends[last]) if last < len(self._ends) else len(self._text)
        return max(start + 1, min(end, start + chars))

    def _sentence_end(self, start: int, reached: int, chars: int) -> int | None:
        limit = _skip_space(self._text, self._limit(start, chars))
        if limit == len(self._text):
            return limit
        for borders, share in self._borders.by_preference():
            at = bisect_right(borders, limit) - 1
            if at >= 0 and borders[at] > max(reached, self._limit(start, chars, share)):
                return borders[at]
        return None

    def _overlap_start(self, floor: int, end: int) -> int:
        outside = self._before(end) - self._overlap
        earliest = max(floor, int(self._ends[outside - 1]) if outside > 0 else 0)
        at = bisect_left(self._borders.sentences, earliest)
        return min(end, self._borders.sentences[at]) if at < len(self._borders.sentences) else end

    def _before(self, position: int) -> int:
        """The number of tokens that end at or before ``position``."""
        return int(np.searchsorted(self._ends, position, side="right"))


# -- borders ----------------------------------------------------------------------------------

_ABBREVIATION: Final = (
    r"(?<!\b(?:\p{Lu}|al|approx|ca|cf|Dr|e\.g|ed|eds|Eq|et|etc|Fig|Figs|i\.e|Mr|Mrs|Ms|No|Nr|pp|Prof|Ref|"
    r"resp|St|Vol|vs|z\.B|d\.h|bzw|p\.ej|Sr|Sra|M))"
)
_BORDER: Final = regex.compile(
    rf"""
      \n [^\S\n]* \n \s*
    | \n [^\S\n]* (?= (?: [-*+•] | \d{{1,3}}[.)] | \#{{1,6}} ) [ \t] )
    | (?<! [。．！？｡] ) [。．！？｡]+ [\p{{Pe}}\p{{Pf}}]* \s*
    | (?<! [\p{{STerm}}…] ) (?: {_ABBREVIATION} [.] | [[\p{{STerm}}…]--[.]] ) [\p{{STerm}}…]*
      [\p{{Pe}}\p{{Pf}}"']*
      (?: \s? \[ \d [\d\s,–-]* \] )*
      \s++ (?! \p{{Ll}} )
    """,
    regex.VERSION1 | regex.VERBOSE,
)
"""A blank line, a line break before a list item or heading, the end of a sentence with its citations."""
_MARKED_HEADING: Final = regex.compile(r"\#{1,6}[ \t]+\S")
_LONE_LINE: Final = regex.compile(r"[^\n]{1,80}(?<!\p{Po})\n[^\S\n]*\n")


@dataclass(frozen=True, slots=True)
class _Borders:
    """Where a text may be cut, ascending: the first characters of sentences, and which of those open more."""

    sentences: Sequence[int]
    paragraphs: Sequence[int]
    headings: Sequence[int]

    @classmethod
    def of(cls, text: str) -> _Borders:
        sentences: list[int] = []
        paragraphs: list[int] = []
        headings: list[int] = []
        heading_end = _heading_end(text, _skip_space(text, 0), lone=True)
        for found in _BORDER.finditer(text):
            at, blank = found.end(), found[0].count("\n") > 1
            next_heading_end = _heading_end(text, at, lone=blank) if "\n" in found[0] else -1
            if next_heading_end >= 0:
                headings.append(at)
            elif found.start() <= heading_end:
                continue  # Inside or right behind a heading, which stays with what it heads.
            if blank:
                paragraphs.append(at)
            sentences.append(at)
            heading_end = next_heading_end
        return cls(sentences, paragraphs, headings)

    def by_preference(self) -> tuple[tuple[Sequence[int], float], ...]:
        """Better borders are taken from smaller shares of a full chunk on."""
        return (self.headings, 0.25), (self.paragraphs, 0.5), (self.sentences, 0.25)


def _heading_end(text: str, at: int, *, lone: bool) -> int:
    """The end of the heading line at ``at``, marked, or between blank lines; -1 when there is none."""
    if _MARKED_HEADING.match(text, at) or (lone and _LONE_LINE.match(text, at)):
        return text.find("\n", at) % (len(text) + 1)
    return -1


def _word_border(text: str, start: int, limit: int) -> int:
    """The last place up to ``limit`` between two words, or when there is none, two characters."""
    if limit == len(text) or text[limit].isspace():
        return limit
    border = limit
    while border > start and not text[border - 1].isspace():
        border -= 1
    if border > start:
        return border
    while limit > start + 1 and unicodedata.combining(text[limit]):
        limit -= 1
    return limit


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _trimmed(text: str, start: int, end: int) -> Span:
    start = min(end, _skip_space(text, start))
    while end > start and text[end - 1].isspace():
        end -= 1
    return Span(start, end)


# -- tokens -----------------------------------------------------------------------------------


class _Tokens(Protocol):
    """Where tokens are. ``special`` tokens stand around every text and are not counted with it."""

    special: int

    def ends(self, text: str) -> NDArray[np.int64]:
        """The end of each token, ascending: int64 ``(tokens,)``."""
        ...

    def count(self, text: str) -> int:
        """The number of tokens."""
        ...


class _ModelTokens:
    """The tokens of a model's own tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.special = int(self._tokenizer.num_special_tokens_to_add(False))

    def ends(self, text: str) -> NDArray[np.int64]:
        blocks = [self._block(text, block) for block in _blocks(text)]
        return np.concatenate(blocks) if blocks else np.empty(0, np.int64)

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def _block(self, text: str, block: Span) -> NDArray[np.int64]:
        encoding = self._tokenizer.encode(text[block.start : block.end], add_special_tokens=False)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        return np.maximum.accumulate(offsets[:, 1]) + block.start


class _EstimatedTokens:
    """Four letters or digits a token, one any other character; where words have no spaces, each letter."""

    special = 2
    _PATTERN: Final = regex.compile(
        r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]|[\p{L}\p{N}\p{M}]{1,4}|\S"
    )

    def ends(self, text: str) -> NDArray[np.int64]:
        return np.fromiter((found.end() for found in self._PATTERN.finditer(text)), np.int64)

    def count(self, text: str) -> int:
        return len(self._PATTERN.findall(text))


def _blocks(text: str) -> Iterator[Span]:
    """Pieces that end before white space, so that the memory of tokenizing does not grow with the text."""
    start = 0
    while start < len(text):
        end = start + _BLOCK_CHARS
        space = regex.search(r"\s", text, pos=end, endpos=end + _BLOCK_CHARS)
        end = min(len(text), space.start() if space else end)
        yield Span(start, end)
        start = end


# -- what else a chunk needs ------------------------------------------------------------------


def context_window(text: str, start: int, end: int, *, chars: int) -> tuple[int, int]:
    """``text[start:end]`` widened evenly to at most ``chars`` characters, on word borders.

    The whole text when that fits; the span itself when it is longer already.
    """
    if len(text) <= chars:
        return 0, len(text)
    spare = chars - (end - start)
    if spare <= 0:
        return start, end
    # What one side cannot use goes to the other.
    before = min(start, max(spare // 2, spare - (len(text) - end)))
    low, high = start - before, min(len(text), end + spare - before)
    while low < start and low > 0 and not text[low - 1].isspace():
        low += 1
    while high > end and high < len(text) and not text[high].isspace():
        high -= 1
    window = _trimmed(text, low, high)
    return min(start, window.start), max(end, window.end)


def chunk_id(document_id: str, ordinal: int, text: str, chunking: str) -> str:
    """The id of a chunk: a function of its place, its text and ``chunking``, the name of what cut it."""
    digest = blake2b(f"{chunking}\0{text}".encode(), digest_size=4).hexdigest()
    return f"{document_id}#{ordinal}-{digest}"

"""Where sentences begin and end, by punctuation that Unicode's writing systems share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple


class Span(NamedTuple):
    """Characters ``start:end`` of a text."""

    start: int
    end: int


_CLOSERS: Final = r"[\"'”’»›」』）】》〉)\]]*"
# Full stops that need white space behind them, and those that end a sentence by themselves.
_SPACED: Final = r"[.!?…؟۔։።።፧।॥]+"
_UNSPACED: Final = r"[。！？｡．]+"
# Scripts that write no full stop set sentences and clauses apart by white space alone.
_STOPLESS: Final = r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
_BOUNDARY: Final = re.compile(
    rf"(?P<spaced>{_SPACED}){_CLOSERS}(?:\[\d+\])*(?=\s|$)"
    rf"|{_UNSPACED}{_CLOSERS}"
    r"|(?=\n\s*\n)"
    rf"|(?<={_STOPLESS})(?=\s+{_STOPLESS})"
)
_LAST_WORD: Final = re.compile(r"[^\s(\[\"'“‘«]+$")
_INITIALS: Final = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")
_ABBREVIATIONS: Final = frozenset(
    """
    mr mrs ms dr prof rev hon sr jr st mt ft gen col maj capt lt sgt gov sen rep pres vs etc eg ie cf al ca
    approx est dept univ inc ltd corp bros nos vol pp eds fig figs eq sec ch para jan feb mar apr
    jun jul aug sep sept oct nov dec bzw usw vgl nr str tel abb mme mlle env sig sra dott
    """.split()
)


def sentences(text: str) -> Iterator[Span]:
    """The sentences of ``text`` in order, without the white space around them; they hold all the rest."""
    begin = 0
    for match in _BOUNDARY.finditer(text):
        if match["spaced"] == "." and _goes_on(text, begin, match.start(), match.end()):
            continue
        yield from _trimmed(text, begin, match.end())
        begin = match.end()
    yield from _trimmed(text, begin, len(text))


def _goes_on(text: str, begin: int, stop: int, end: int) -> bool:
    """Whether the full stop at ``stop`` ends no sentence: abbreviation, initial, or a small letter next."""
    following = text[end : end + 8].lstrip()[:1]
    if following.islower():
        return True
    word = _LAST_WORD.search(text, max(begin, stop - 24), stop)
    if word is None:
        return False
    initials = _INITIALS.fullmatch(word[0]) is not None and word[0].isupper()
    return initials or word[0].casefold() in _ABBREVIATIONS


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield Span(start, end)

"""What two texts have in common, by their words of meaning; for citations, where no model is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import regex

_WORD: Final = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_UNSPACED: Final = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_SHORT: Final = 4
"""Words of fewer letters are, in most languages, those that carry no meaning; numbers are kept."""
_STEM: Final = 6
"""Letters that tell a word from others, whatever its ending."""
_MARKS: Final = regex.compile(r"\[\d+\]")


def words_of_meaning(text: str) -> frozenset[str]:
    """Stems of the longer words, and numbers, of ``text``; of scripts without spaces, pairs of characters."""
    words = _WORD.findall(_MARKS.sub(" ", text).casefold())
    found: set[str] = set()
    for word in words:
        if _UNSPACED.search(word):
            found.update(word[i : i + 2] for i in range(max(len(word) - 1, 1)))
        elif len(word) >= _SHORT or word.isnumeric():
            found.add(word[:_STEM])
    return frozenset(found) or frozenset(words)


def supported(sentence: str, quoted: Sequence[str]) -> float:
    """The share of a sentence's words of meaning that stand in ``quoted``, 0 to 1; 0 where it has none."""
    claimed = words_of_meaning(sentence)
    if not claimed:
        return 0.0
    there = frozenset().union(*map(words_of_meaning, quoted)) if quoted else frozenset()
    return len(claimed & there) / len(claimed)

"""Passages that say again what a better one says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_CONTAINED: Final = 0.9
"""Of a passage's shingles; more of them in a better passage make it a repetition."""
_SIMILAR: Final = 0.7
"""Of a passage's words as they are written, with punctuation: fewer, and it is not looked at closely."""
_SHINGLE: Final = 3
_LONG_WORD: Final = 16
"""Texts whose words have more characters on average are written without spaces."""
_UNSPACED: Final = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_UNIT: Final = re.compile(rf"[^\W{_UNSPACED}]+|\w")
"""A word, or a character of what is written without spaces."""


def distinct(texts: Sequence[str]) -> list[int]:
    """The indexes of the texts, best first, without those that a better one repeats or contains.

    Texts are compared without case and white space. One is left out when it is a part of a better one, or
    when 90 % of its 3-word shingles (Broder 1997, containment) are in a better one; overlapping chunks, which
    share their borders only, stay. A worse text that contains a better one stays: it says more.
    """
    kept: list[int] = []
    seen: list[tuple[str, frozenset[str]]] = []
    for at, text in enumerate(texts):
        plain = f" {' '.join(text.casefold().split())} "
        units = frozenset(plain.split() if plain.count(" ", 1, -1) * _LONG_WORD > len(plain) else plain)
        # Sets of words, or of characters, are cheap to compare.
        if not any(
            len(units & theirs) >= _SIMILAR * len(units) and (plain in better or _contained(plain, better))
            for better, theirs in seen
        ):
            kept.append(at)
            seen.append((plain, units))
    return kept


def _contained(text: str, better: str) -> bool:
    shingles = _shingles(text)
    return len(shingles & _shingles(better)) >= _CONTAINED * len(shingles) > 0


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    units = _UNIT.findall(text)
    return frozenset(zip(*(units[i:] for i in range(_SHINGLE)), strict=False))

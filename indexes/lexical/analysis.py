"""From text to terms: an analyser that follows the language.

- A language with a Snowball stemmer: words, without stop words, stemmed.
- Any other: words cut into character 4-grams with their edges marked, which need to know nothing of it.
- Scripts that put no spaces between words, inside any language: 2-grams of Chinese, Japanese and
  Korean, 3-grams of Thai, Lao, Khmer and Burmese.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator
from typing import Final

import regex
import Stemmer

from indexes.lexical.languages import STEMMERS, detect_language, normalise, primary_code, stop_words

__all__ = ["Analyser", "detect_language"]

# Marks belong to words: without them the vowels of Hindi would cut each word to pieces.
_WORD: Final = regex.compile(r"[\p{L}\p{N}\p{M}]+")
_UNSPACED: Final = regex.compile(
    r"(?P<pairs>[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}])|[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
)
_ACCENTS: Final = regex.compile("[\u0300-\u036f]+")
_EDGE: Final = "_"
"""No word holds it, so a gram at an edge never meets one from the middle."""

_MAX_WORD_CHARS: Final = 64


class Analyser:
    """Makes terms of texts, the same for documents and for queries. Thread-safe."""

    def __init__(self) -> None:
        self._stemmers: dict[str, Stemmer.Stemmer] = {}
        # A Snowball stemmer keeps its word in itself while it works.
        self._lock = threading.Lock()

    def terms(self, text: str, language: str) -> list[str]:
        """The terms of ``text``, repeated as often as they occur; no term holds white space.

        ``language`` is an ISO 639-1 code, "" where it is unknown. The order of the terms has no meaning.
        """
        words = _WORD.findall(normalise(text))
        grams: list[str] = []
        if not text.isascii() and _UNSPACED.search(text):
            words, grams = _split_unspaced(words)
        code = primary_code(language)
        if code in STEMMERS:
            return grams + self._stems(words, code)
        return grams + [gram for word in words for gram in _ngrams(f"{_EDGE}{word[:_MAX_WORD_CHARS]}{_EDGE}", 4)]

    def _stems(self, words: list[str], language: str) -> list[str]:
        ignored = stop_words(language)
        kept = [word[:_MAX_WORD_CHARS] for word in words if word not in ignored]
        with self._lock:
            if language not in self._stemmers:
                self._stemmers[language] = Stemmer.Stemmer(STEMMERS[language])
            stems: list[str] = self._stemmers[language].stemWords(kept)
        return _without_accents(stems)


def _split_unspaced(words: list[str]) -> tuple[list[str], list[str]]:
    """Words with spaces around them, and the grams of those that may be whole sentences."""
    spaced: list[str] = []
    grams: list[str] = []
    for word in words:
        match = None if word.isascii() else _UNSPACED.search(word)
        if match is None:
            spaced.append(word)
        else:
            grams.extend(_ngrams(word, 2 if match["pairs"] else 3))
    return spaced, grams


def _ngrams(word: str, n: int) -> Iterator[str]:
    for start in range(max(1, len(word) - n + 1)):
        yield word[start : start + n]


def _without_accents(words: list[str]) -> list[str]:
    """``words`` with Latin, Greek and Cyrillic letters bare: many people type them so."""
    joined = " ".join(words)
    if joined.isascii():
        return words
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", joined))
    return unicodedata.normalize("NFC", bare).split()

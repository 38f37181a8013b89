"""From text to terms: an analyser that follows the language.

- A language with a Snowball stemmer: words, without stop words, stemmed.
- A language without one: words cut into character 4-grams with their edges marked.
- An unknown language: words as they are.
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

from indexes.lexical.languages import STEMMERS, UNKNOWN, detect_language, normalise, primary_code, stop_words

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
_MAX_REMEMBERED: Final = 50_000


class Analyser:
    """Makes terms of texts, the same for documents and for queries. Thread-safe."""

    def __init__(self) -> None:
        self._stems = {language: _Stems(language) for language in STEMMERS}

    def terms(self, text: str, language: str) -> list[str]:
        """The terms of ``text``, repeated as often as they occur; no term holds white space.

        ``language`` is an ISO 639-1 code, "" where it is unknown. The order of the terms has no meaning.
        """
        words = _WORD.findall(normalise(text))
        grams: list[str] = []
        if not text.isascii() and _UNSPACED.search(text):
            words, grams = _split_unspaced(words)
        code = primary_code(language)
        if code == UNKNOWN:
            return grams + [bare for word in words if (bare := _without_accents(word[:_MAX_WORD_CHARS]))]
        if code not in self._stems:
            marked = (f"{_EDGE}{word[:_MAX_WORD_CHARS]}{_EDGE}" for word in words)
            return grams + [gram for word in marked for gram in _ngrams(word, 4)]
        stems = self._stems[code]
        return grams + [stem for word in words if (stem := stems[word])]


class _Stems(dict[str, str]):
    """Word -> its stem, "" for a stop word; worked out once and remembered."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self._language = language
        self._stemmer = Stemmer.Stemmer(STEMMERS[language], 0)
        # A Snowball stemmer keeps the word in itself while it works.
        self._lock = threading.Lock()

    def __missing__(self, word: str) -> str:
        with self._lock:
            if len(self) >= _MAX_REMEMBERED:
                self.clear()
            is_stop_word = word in stop_words(self._language)
            stem = "" if is_stop_word else _without_accents(self._stemmer.stemWord(word[:_MAX_WORD_CHARS]))
            self[word] = stem
        return stem


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


def _without_accents(word: str) -> str:
    """``word`` with its Latin, Greek or Cyrillic letters bare: many people type them so."""
    if word.isascii():
        return word
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", word)))

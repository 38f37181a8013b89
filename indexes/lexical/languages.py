"""Which language a text is in, and what is known of that language: a stemmer and stop words.

Codes are ISO 639-1; "" stands for a language that is unknown, or that nothing here knows.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping
from typing import Final

import numpy as np
import stopwordsiso
import tantivy
from py3langid import langid

UNKNOWN: Final = ""

STEMMERS: Final[Mapping[str, str]] = {
    "ar": "arabic",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "ne": "nepali",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}
"""ISO 639-1 -> the name of its Snowball algorithm (Porter 2001)."""

_OTHERS: Final = "am bg bn gu he ja ka km kn ko lo lv ml mr ms my pa si sk sl te th uk ur vi zh"

LANGUAGES: Final = frozenset((*STEMMERS, *_OTHERS.split()))
"""What detection chooses from. Fewer choices make fewer mistakes on short text."""

_ALIASES: Final = {"nb": "no", "nn": "no", "iw": "he", "in": "id"}

_SAMPLES: Final = ((100, 0.95), (600, 0.5))
"""Characters to look at, and the probability that is enough; the longer sample only in doubt."""
_QUERY_CHARS: Final = 200

_SNOWBALL_STOP_WORDS: Final = {
    "da": "danish",
    "de": "german",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ru": "russian",
    "sv": "swedish",
}

# The lists at hand for English are either 33 words without a single question word, or more than 1,200
# words that carry meaning; these closed classes lie between them, and rank better than both.
_ENGLISH_STOP_WORDS: Final = """
    a an the this that these those such each any all both few more most some other same own only
    i me my we us our you your he him his she her it its they them their
    is am are was were be been being do does did have has had can could will would should
    about after again against at before between but by during for from further if in into of off on once
    or over so than then there here through to too under until up very with while because as and no not
    nor just how what when where which who whom whose why
"""


def primary_code(language: str | None) -> str:
    """The ISO 639-1 code of a language tag (``en-GB`` -> ``en``); "" for what ``LANGUAGES`` lacks."""
    code = (language or "").replace("_", "-").partition("-")[0].lower()
    code = _ALIASES.get(code, code)
    return code if code in LANGUAGES else UNKNOWN


def detect_language(text: str, hint: str | None = None) -> str:
    """The language of ``text``: the hint's if there is one, else detected; "" when unsure.

    Looks at a sample from the middle: the head of a document is often a list of names.
    """
    if hint:
        return primary_code(hint)
    for chars, enough in _SAMPLES:
        start = max(0, (len(text) - chars) // 2)
        language, probability = _identifier().classify(text[start : start + chars])
        if probability >= enough:
            return str(language)
    return UNKNOWN


def likely_languages(text: str, shares: Mapping[str, float], *, at_least: float, at_most: int) -> list[str]:
    """The languages in which a short text may well be, most likely first.

    ``shares`` (language -> any positive weight) is the prior: how much there is to find in each. A
    language is named when its posterior probability is ``at_least``; the likeliest one always is.
    """
    known = {language: share for language, share in shares.items() if language in LANGUAGES}
    if len(known) < 2:
        return list(known)
    likelihood = dict(_identifier().rank(text[:_QUERY_CHARS]))
    posterior = {language: share * likelihood[language] for language, share in known.items()}
    total = sum(posterior.values())
    best = sorted(known, key=lambda language: (-posterior[language], language))[:at_most]
    return best[:1] + [language for language in best[1:] if posterior[language] >= at_least * total]


@functools.cache
def stop_words(language: str) -> frozenset[str]:
    """Words of ``language`` that carry no meaning of their own, normalised as text is.

    Short lists where there are good ones (Snowball's, as tantivy ships them): long ones lose more
    questions than they win.
    """
    if language == "en":
        return frozenset(_ENGLISH_STOP_WORDS.split())
    if not stopwordsiso.has_lang(language):
        return frozenset()
    words = {normalise(word) for word in stopwordsiso.stopwords(language)}
    if language in _SNOWBALL_STOP_WORDS:
        words -= _survivors(words, _SNOWBALL_STOP_WORDS[language])
    return frozenset(words)


def normalise(text: str) -> str:
    """NFKC and case folding: what looks or reads the same becomes the same."""
    return unicodedata.normalize("NFKC", text).casefold()


def _survivors(words: set[str], language: str) -> set[str]:
    """Those of ``words`` that Snowball's stop words let through: the lists themselves cannot be read."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    return set(builder.filter(tantivy.Filter.stopword(language)).build().analyze(" ".join(words)))


@functools.cache
def _identifier() -> langid.LanguageIdentifier:
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    identifier.set_languages(sorted(LANGUAGES))
    # Half precision, as the model is stored, is converted again on every call: five times slower.
    identifier.nb_ptc = np.ascontiguousarray(identifier.nb_ptc, dtype=np.float32)
    return identifier

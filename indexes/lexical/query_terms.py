"""From a query to the terms that are looked up, in each language where they may be found.

Every document belongs to the group of its language, and its terms carry the group's name: so that
"die" is a stop word among German documents and a verb among English ones, and how rare a term is
does not depend on how much there is in other languages.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from indexes.lexical.analysis import Analyser
from indexes.lexical.languages import UNKNOWN, likely_languages, primary_code, stop_words

_LIKELY: Final = 0.1
_MAX_LANGUAGES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupQuery:
    """What a query asks of one language's documents: terms, how often each, and their common weight."""

    language: str
    terms: Counter[str]
    weight: float


def group_queries(
    query: str, language: str | None, documents: Mapping[str, int], analyser: Analyser
) -> list[GroupQuery]:
    """``query`` for each group that may answer it; ``documents`` counts those in each language.

    Documents in no known language are always asked. Where one analysis makes more terms than another
    of the same text, each of them weighs less, so that scores of two groups compare.
    """
    groups = _groups(query, language, documents)
    bags = {group: Counter(analyser.terms(query, group)) for group in groups}
    if UNKNOWN in bags:
        # Words in no known language keep their stop words; those of the query's language ask nothing.
        for word in bags[UNKNOWN].keys() & stop_words(groups[0]):
            del bags[UNKNOWN][word]
    size = next((bag.total() for bag in bags.values() if bag), 0)
    return [
        GroupQuery(language=group, terms=bag, weight=size / bag.total()) for group, bag in bags.items() if bag
    ]


def language_of(query: str, language: str | None, documents: Mapping[str, int]) -> str:
    """The language that a query is most likely in, among those of ``documents``; "" where nobody can tell."""
    group = next(iter(_groups(query, language, documents)), UNKNOWN)
    return "" if group == UNKNOWN else group


def idf(documents: int, containing: int) -> float:
    """BM25's inverse document frequency as Lucene and tantivy have it: never negative."""
    return math.log1p((documents - containing + 0.5) / (containing + 0.5))


def _groups(query: str, language: str | None, documents: Mapping[str, int]) -> list[str]:
    hint = primary_code(language)
    if hint in documents and hint != UNKNOWN:
        groups = [hint]
    else:
        groups = likely_languages(query, documents, at_least=_LIKELY, at_most=_MAX_LANGUAGES)
    return [*groups, UNKNOWN] if UNKNOWN in documents else groups

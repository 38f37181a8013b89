"""BM25 on rank-bm25: all in memory, every document scored for every query. The reference.

Plain ``BM25Okapi`` gives a term that stands in over half of the documents a negative weight, which it then
replaces by a share of the average one. That is of no use in small collections, so the weight here is
Lucene's, which tantivy shares; the rest of the formula is the same in all three.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pyroaring import BitMap64
from rank_bm25 import BM25Okapi

from indexes.base import IndexStats, Keys, Neighbours, TextBatch
from indexes.directory import Directory
from indexes.lexical.analysis import Analyser
from indexes.lexical.options import OkapiOptions, parse_options
from indexes.lexical.query_terms import GroupQuery, group_queries, idf, language_of
from ragstone.errors import CorruptIndex, FailedPrecondition, NotFound

_FILE: Final = "okapi.json"


async def open_index(*, directory: Directory, options: Mapping[str, object]) -> OkapiIndex:
    """Load the last checkpoint in ``directory``, or begin empty.

    Raises InvalidArgument for wrong options and CorruptIndex for a damaged checkpoint.
    """
    parsed = parse_options(OkapiOptions, options)
    return await asyncio.to_thread(OkapiIndex, directory, parsed)


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    language: str


class _Bm25(BM25Okapi):  # type: ignore[misc]
    """BM25 of one language's documents, in ascending order of ``keys`` ``(n,)``."""

    def __init__(self, keys: Keys, corpus: list[list[str]], options: OkapiOptions) -> None:
        self.keys = keys
        super().__init__(corpus, k1=options.k1, b=options.b)

    def _calc_idf(self, nd: dict[str, int]) -> None:
        self.idf = {term: idf(self.corpus_size, containing) for term, containing in nd.items()}


@dataclass(frozen=True, slots=True)
class _Snapshot:
    seq: int
    texts: Mapping[int, _Text]
    groups: Mapping[str, _Bm25]
    documents: Mapping[str, int]


class OkapiIndex:
    """A lexical follower for small collections and for tests."""

    def __init__(self, directory: Directory, options: OkapiOptions) -> None:
        self._directory = directory
        self._options = options
        self._analyser = Analyser()
        self._applying = asyncio.Lock()
        self._is_closed = False
        self._snapshot = self._freeze(*self._load())

    @property
    def applied_seq(self) -> int:
        """The last journal position that a search sees."""
        return self._snapshot.seq

    async def apply(self, batch: TextBatch, *, seq: int) -> None:
        """Make ``batch`` visible. Does nothing when ``seq <= applied_seq``."""
        self._require_open()
        async with self._applying:
            await asyncio.to_thread(self._apply, batch, seq)

    async def search(
        self, query: str, k: int, *, allow: BitMap64 | None = None, language: str | None = None
    ) -> Neighbours:
        """The best ``k`` keys for one query: arrays of shape ``(1, k)``. Any text is a valid query."""
        self._require_open()
        return await asyncio.to_thread(self._search, query, k, allow, language)

    def language_of(self, query: str, language: str | None) -> str:
        """The language that ``query`` is most likely in; "" where nobody can tell."""
        return language_of(query, self._options.fixed_language or language, self._snapshot.documents)

    async def checkpoint(self) -> int:
        """Write all that is applied to one file; the ``seq`` it holds."""
        self._require_open()
        return await asyncio.to_thread(self._save)

    def stats(self) -> IndexStats:
        """What the index holds now."""
        snapshot = self._snapshot
        return IndexStats(live=len(snapshot.texts), details={"languages": dict(snapshot.documents)})

    async def close(self) -> None:
        """Refuse further calls. Does not checkpoint."""
        self._is_closed = True

    def _require_open(self) -> None:
        if self._is_closed:
            raise FailedPrecondition("the lexical index is closed")

    def _apply(self, batch: TextBatch, seq: int) -> None:
        if seq <= self._snapshot.seq:
            return
        texts = dict(self._snapshot.texts)
        for key in batch.deleted.tolist():
            texts.pop(key, None)
        languages = self._options.languages_of(batch)
        for key, text, language in zip(batch.keys.tolist(), batch.texts, languages, strict=True):
            texts[key] = _Text(text, language)
        self._snapshot = self._freeze(seq, texts)

    def _freeze(self, seq: int, texts: Mapping[int, _Text]) -> _Snapshot:
        keys: dict[str, list[int]] = {}
        for key in sorted(texts):
            keys.setdefault(texts[key].language, []).append(key)
        groups = {}
        for language, members in keys.items():
            corpus = [self._analyser.terms(texts[key].text, language) for key in members]
            if any(corpus):
                groups[language] = _Bm25(np.array(members, dtype=np.int64), corpus, self._options)
        return _Snapshot(seq, texts, groups, {language: len(members) for language, members in keys.items()})

    def _search(self, query: str, k: int, allow: BitMap64 | None, language: str | None) -> Neighbours:
        snapshot = self._snapshot
        hint = self._options.fixed_language or language
        ranked = sorted(
            (-score, key)
            for group in group_queries(query, hint, snapshot.documents, self._analyser)
            if group.language in snapshot.groups
            for key, score in _scored(snapshot.groups[group.language], group)
            if allow is None or key in allow
        )[: max(k, 0)]
        padding = k - len(ranked)
        keys = [key for _, key in ranked] + [-1] * padding
        scores = [-score for score, _ in ranked] + [-np.inf] * padding
        return Neighbours(np.array([keys], dtype=np.int64), np.array([scores], dtype=np.float32))

    def _save(self) -> int:
        snapshot = self._snapshot
        rows = [[key, each.language, each.text] for key, each in snapshot.texts.items()]
        content = json.dumps({"seq": snapshot.seq, "texts": rows})
        self._directory.atomic_write(_FILE, content.encode())
        return snapshot.seq

    def _load(self) -> tuple[int, dict[int, _Text]]:
        try:
            content: Any = json.loads(self._directory.read(_FILE))
            texts = {int(key): _Text(str(text), str(language)) for key, language, text in content["texts"]}
            return int(content["seq"]), texts
        except NotFound:
            return 0, {}
        except (ValueError, TypeError, KeyError) as exc:
            raise CorruptIndex("the checkpoint of the lexical index is damaged") from exc


def _scored(bm25: _Bm25, group: GroupQuery) -> list[tuple[int, float]]:
    """Key and score of each document that holds a term of the query; scores rounded to float32."""
    scores = group.weight * bm25.get_scores(list(group.terms.elements()))
    (hits,) = np.nonzero(scores > 0)
    return list(zip(bm25.keys[hits].tolist(), scores[hits].astype(np.float32).tolist(), strict=True))

"""Two versions are asked the same queries, beside live traffic, and their answers are compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final

import numpy as np

from ragstone.errors import FailedPrecondition, RagstoneError
from ragstone.types import Comparison, GoldenQuery, MeasuredVersion, Mode, Query, QuerySource, SearchResult
from retrieval.store.documents import Documents
from retrieval.store.golden import GoldenQueries
from retrieval.versions.asking import Ask
from retrieval.versions.comparison import K, documents, ndcg, overlap, paired_bootstrap, rank_biased_overlap
from retrieval.versions.snapshots import OpenCollection, Snapshot

Rest = Callable[[float], Awaitable[None]]

_HITS: Final = 30
"""Enough chunks, most often, for ten documents."""
_CHUNKS: Final = 32


@dataclass(frozen=True, slots=True)
class Question:
    """A query, and the documents that answer it, by their grades, where these are known."""

    query: Query
    relevant: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions, and where they come from."""

    source: QuerySource
    questions: Sequence[Question]


@dataclass(frozen=True, slots=True)
class _Answer:
    """The documents that a version found, and how long it took; None where it failed."""

    documents: Sequence[str]
    ms: float | None


class Measuring:
    """Compares versions, for all collections."""

    def __init__(self, *, ask: Ask, golden: GoldenQueries, texts: Documents) -> None:
        self._ask = ask
        self._golden = golden
        self._texts = texts

    async def questions(self, collection: OpenCollection, source: QuerySource | None = None) -> Asked:
        """The questions of a source; without one, of the first that has any: recorded, golden, chunks.

        Raises FailedPrecondition when the ``source`` that was named has none.
        """
        for name in (source,) if source else (QuerySource.RECORDED, QuerySource.GOLDEN, QuerySource.CHUNKS):
            if questions := await self._of(collection, name):
                return Asked(name, questions)
        if source:
            raise FailedPrecondition(_NONE[source].format(collection.row.name))
        return Asked(QuerySource.CHUNKS, ())

    async def golden(self, collection: OpenCollection) -> Asked:
        """The golden queries of a collection, which may have none."""
        return Asked(QuerySource.GOLDEN, await self._of(collection, QuerySource.GOLDEN))

    async def compare(self, a: Snapshot, b: Snapshot, asked: Asked, *, rest: Rest) -> Comparison:
        """Ask both every question that both can be asked, by turns, one search at a time.

        ``rest`` is awaited after each question, with the seconds that it took.
        """
        able = [question for question in asked.questions if _can_ask(question.query, a, b)]
        pairs: list[tuple[Question, _Answer, _Answer]] = []
        for number, question in enumerate(able):
            began = perf_counter()
            # By turns who is first: the second one finds a warmer machine.
            first, second = (a, b) if number % 2 else (b, a)
            answers = {one.version.id: await self._answer(one, question.query) for one in (first, second)}
            pairs.append((question, answers[a.version.id], answers[b.version.id]))
            await rest(perf_counter() - began)
        skipped = len(asked.questions) - len(able)
        return await asyncio.to_thread(
            _compared, a.version.name, b.version.name, asked.source, skipped, pairs
        )

    async def _of(self, collection: OpenCollection, source: QuerySource) -> Sequence[Question]:
        if source is QuerySource.RECORDED:
            return [Question(query) for query in collection.recording.queries()]
        if source is QuerySource.GOLDEN:
            return questions_of(await self._golden.of(collection.row.id))
        version = collection.snapshot.version
        texts = await self._texts.sample_texts(collection.row.id, version.chunking, count=_CHUNKS)
        return [Question(Query(text=text)) for text in texts if text]

    async def _answer(self, snapshot: Snapshot, query: Query) -> _Answer:
        began = perf_counter()
        try:
            result: SearchResult = await self._ask(snapshot, replace(query, k=max(query.k, _HITS)))
        except RagstoneError:
            return _Answer((), None)
        if result.degraded:
            return _Answer((), None)
        return _Answer(documents(result.hits), (perf_counter() - began) * 1e3)


def questions_of(queries: Sequence[GoldenQuery]) -> list[Question]:
    """Golden queries as questions in the version's own way to search."""
    return [Question(Query(text=query.text), query.relevant) for query in queries]


_NONE: Final = {
    QuerySource.GIVEN: "no queries were given",
    QuerySource.RECORDED: "nobody has searched {} since the server started: there are no live queries yet",
    QuerySource.GOLDEN: "{0} has no golden queries; `ragstone collections golden {0}` sets them",
    QuerySource.CHUNKS: "{} has no chunks to ask with",
}


def _can_ask(query: Query, a: Snapshot, b: Snapshot) -> bool:
    if query.vector is not None:
        return a.version.space == b.version.space
    brought = any(one.parts.recipe.embedder.kind == "precomputed" for one in (a, b))
    return query.mode is Mode.LEXICAL or not brought


def _compared(
    a: str, b: str, source: QuerySource, skipped: int, pairs: Sequence[tuple[Question, _Answer, _Answer]]
) -> Comparison:
    """Pure, but slow. A version that failed at a query has found nothing; where both did, nobody knows."""
    told = [(ours.documents, theirs.documents) for _, ours, theirs in pairs if (ours.ms, theirs.ms) != _BOTH]
    judged = [(question.relevant, ours, theirs) for question, ours, theirs in pairs if question.relevant]
    ours = [ndcg(answer.documents, relevant) for relevant, answer, _ in judged]
    theirs = [ndcg(answer.documents, relevant) for relevant, _, answer in judged]
    return Comparison(
        a=_measured(a, [answer for _, answer, _ in pairs], ours),
        b=_measured(b, [answer for _, _, answer in pairs], theirs),
        source=source,
        queries=len(pairs),
        skipped=skipped,
        overlap=_mean([overlap(one, other) for one, other in told]),
        rank_biased_overlap=_mean([rank_biased_overlap(one[:K], other[:K]) for one, other in told]),
        judged=len(judged),
        ndcg_delta=paired_bootstrap(np.subtract(theirs, ours).tolist()) if judged else None,
    )


_BOTH: Final = (None, None)


def _measured(version: str, answers: Sequence[_Answer], scores: Sequence[float]) -> MeasuredVersion:
    ms = [answer.ms for answer in answers if answer.ms is not None]
    p50, p95 = np.percentile(ms, [50, 95]) if ms else (0.0, 0.0)
    return MeasuredVersion(
        version=version,
        failed=len(answers) - len(ms),
        p50_ms=round(float(p50), 3),
        p95_ms=round(float(p95), 3),
        ndcg=_mean(scores) if scores else None,
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0

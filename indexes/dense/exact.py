"""Exact search: every allowed row is compared with the query, one thread, no BLAS.

The kernels are FAISS's own, the same that re-scoring uses, so a row scores bit for bit the same whether a
graph found it or a scan, alone or in a batch. (A BLAS product would also spin up threads of its own.)
"""

from __future__ import annotations

from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

from indexes.base import Keys, Metric, Neighbours, SearchParams, Vectors
from indexes.dense.rows import Rows, RowSet
from indexes.dense.structures import CPU, Plan

Scores = NDArray[np.float32]

_QUERIES_AT_ONCE: Final = 16
"""With many more FAISS multiplies matrices, whose scores differ in their last bits."""
_ROWS_AT_ONCE: Final = 2_048
"""Of a batch of queries: as many as stay in a core's cache while all queries meet them."""
_ROWS_PER_HIT: Final = 64
"""At least so many at once for each row wanted: putting in order what the blocks found costs time as well."""
_GATHER_BELOW: Final = 0.1
"""Asking a bitmap at every row beats picking more than this share of them one by one."""


class ExactIndex:
    """A FrozenIndex that scans. ``vectors`` ``(rows, dim)`` may be memory-mapped and are never written."""

    device: Final = CPU

    def __init__(self, vectors: Vectors, metric: Metric) -> None:
        self._vectors = vectors
        self._metric = metric

    def search(self, queries: Vectors, k: int, allow: RowSet | None, params: SearchParams) -> Neighbours:
        """Rows of the best ``k`` for each of ``queries``; always exact, whatever ``params`` say."""
        return nearest(queries, self._vectors, k, self._metric, allow=allow)

    def plan(self, k: int, allow: RowSet | None, params: SearchParams) -> Plan:
        """A scan of all rows that count."""
        return Plan(None, len(self._vectors) if allow is None else allow.count)


def nearest(
    queries: Vectors,
    vectors: Vectors,
    k: int,
    metric: Metric,
    *,
    ids: Rows | None = None,
    allow: RowSet | None = None,
) -> Neighbours:
    """The best ``k`` of ``vectors`` ``(n, dim)`` for each of ``queries``, among ``allow`` when given.

    Keys are ``ids`` ``(n,)``, or places in ``vectors``; equal scores are in ascending order of their keys.
    """
    if allow is not None and allow.count <= _GATHER_BELOW * len(vectors):
        return stack([_gather(query, vectors, k, metric, ids, allow.rows) for query in queries], k)
    # One more than wanted: it scores less than the last, or else the keys decide which of them is in.
    rows, scores = _scan(queries, vectors, k + 1, metric, allow)
    keys = rows if ids is None else np.where(rows < 0, -1, ids[rows])
    keys, scores = top(keys, scores, k + 1)
    found = Neighbours(keys[:, :k], scores[:, :k])
    for tied in np.flatnonzero((scores[:, k - 1] == scores[:, k]) & (keys[:, k] >= 0)):
        among = np.arange(len(vectors)) if allow is None else allow.rows
        found.keys[tied], found.scores[tied] = _gather(queries[tied], vectors, k, metric, ids, among)
    return found


def _gather(
    query: Vectors, vectors: Vectors, k: int, metric: Metric, ids: Rows | None, rows: Rows
) -> tuple[Rows, Scores]:
    return best(rows if ids is None else ids[rows], score_rows(query, vectors, rows, metric), k)


def _scan(
    queries: Vectors, vectors: Vectors, k: int, metric: Metric, allow: RowSet | None
) -> tuple[Rows, Scores]:
    """At least the best ``k`` of all rows for each query, in some order: ``(n, m)``, padded with -1.

    A batch of queries fetches each row from memory once, not once for each of them.
    """
    k = min(k, len(vectors) if allow is None else allow.count)
    whole = allow is not None or len(queries) == 1
    at_once = max(1, len(vectors) if whole else max(_ROWS_AT_ONCE, _ROWS_PER_HIT * k))
    starts = range(0, len(vectors), at_once)
    rows = np.full((len(queries), len(starts) * k), -1, dtype=np.int64)
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    for place, start in enumerate(starts):
        block = vectors[start : start + at_once]
        count = min(k, len(block))
        for first in range(0, len(queries), _QUERIES_AT_ONCE):
            some = queries[first : first + _QUERIES_AT_ONCE]
            here = slice(first, first + len(some)), slice(place * k, place * k + count)
            rows[here], scores[here] = _knn(some, block, count, metric, allow)
            rows[here] += start
    return rows, scores


def _knn(
    queries: Vectors, vectors: Vectors, k: int, metric: Metric, allow: RowSet | None
) -> tuple[Rows, Scores]:
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    asked, compared, values, places = map(faiss.swig_ptr, (queries, vectors, scores, rows))
    sizes = vectors.shape[1], len(queries), len(vectors), k
    selector = None if allow is None else allow.selector
    if metric is Metric.L2:
        faiss.knn_L2sqr(asked, compared, *sizes, values, places, None, selector)
        return rows, np.negative(scores, out=scores)
    faiss.knn_inner_product(asked, compared, *sizes, values, places, selector)
    return rows, scores


def score_rows(query: Vectors, vectors: Vectors, rows: Rows, metric: Metric) -> Scores:
    """The score of ``vectors[rows]`` for one query ``(dim,)``, without copying them: ``(len(rows),)``."""
    scores = np.empty(len(rows), dtype=np.float32)
    kernel = faiss.fvec_L2sqr_by_idx if metric is Metric.L2 else faiss.fvec_inner_products_by_idx
    pointers = [faiss.swig_ptr(array) for array in (scores, query, vectors, rows)]
    if len(rows):
        kernel(*pointers, vectors.shape[1], 1, len(rows))
    return np.negative(scores, out=scores) if metric is Metric.L2 else scores


def rescore(queries: Vectors, vectors: Vectors, rows: Rows, metric: Metric) -> Scores:
    """The scores of ``vectors[rows[i]]`` for query ``i``, ``(n, m)`` as ``rows``; -inf where a row is -1."""
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    kernel = faiss.fvec_L2sqr_by_idx if metric is Metric.L2 else faiss.fvec_inner_products_by_idx
    pointers = [faiss.swig_ptr(array) for array in (scores, queries, vectors, rows)]
    kernel(*pointers, vectors.shape[1], *rows.shape)
    if metric is Metric.L2:
        scores = np.negative(scores, out=scores)
        scores[rows < 0] = -np.inf
    return scores


def best(ids: Rows | None, scores: Scores, k: int) -> tuple[Rows, Scores]:
    """The ``k`` highest ``scores`` in order, equal ones by ascending id; ``ids`` ``None`` are the places."""
    places = np.arange(len(scores))
    if k < len(scores):
        # FAISS lets other threads go on meanwhile, NumPy's partition does not.
        threshold = faiss.kmax(scores.reshape(1, -1), k)[0][0, -1]
        places = np.flatnonzero(scores >= threshold)
    found = places if ids is None else ids[places]
    order = np.lexsort((found, -scores[places]))[:k]
    return found[order], scores[places[order]]


def stack(found: list[tuple[Rows, Scores]], k: int) -> Neighbours:
    """One row for each query, padded to ``k``."""
    keys: Keys = np.full((len(found), k), -1, dtype=np.int64)
    scores: Scores = np.full((len(found), k), -np.inf, dtype=np.float32)
    for row, (ids, values) in enumerate(found):
        keys[row, : len(ids)] = ids
        scores[row, : len(ids)] = values
    return Neighbours(keys, scores)


def merge(parts: list[Neighbours], queries: int, k: int) -> Neighbours:
    """The best ``k`` of several disjoint results, ties by ascending key."""
    if len(parts) == 1:
        return parts[0]
    keys = np.concatenate([part.keys for part in parts] or [np.empty((queries, 0), np.int64)], axis=1)
    scores = np.concatenate([part.scores for part in parts] or [np.empty((queries, 0), np.float32)], axis=1)
    return Neighbours(*top(keys, scores, k))


def top(ids: Rows, scores: Scores, k: int) -> tuple[Rows, Scores]:
    """The best ``k`` of each row of ``ids`` ``(n, m)``, equal ones by ascending id, padded to ``k``.

    An id that is missing is -1, with the score -inf.
    """
    short = k - ids.shape[1]
    if short > 0:
        ids = np.pad(ids, ((0, 0), (0, short)), constant_values=-1)
        scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    row = np.arange(len(ids))[:, None]
    return ids[row, order], scores[row, order]

"""Exact search: every allowed row is compared with the query, one thread, no BLAS.

The kernels are FAISS's own, the same that its graphs use, so a row scores bit for bit the same whether a
graph found it or a scan, alone or in a batch. (A BLAS product would also spin up threads of its own.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

from indexes.base import Keys, Metric, Neighbours, SearchParams, Vectors
from indexes.dense.rows import Rows, RowSet
from indexes.dense.structures import Plan

Scores = NDArray[np.float32]

_ROWS_AT_ONCE: Final = 1_024
"""Of a batch of queries: as many as stay in a core's cache while all queries meet them."""
_SCORES_AT_ONCE: Final = 2**24
_GATHER_BELOW: Final = 0.5
"""Scanning all rows in order beats picking more than this share of them one by one."""


class ExactIndex:
    """A FrozenIndex that scans. ``vectors`` ``(rows, dim)`` may be memory-mapped and are never written."""

    def __init__(self, vectors: Vectors, metric: Metric) -> None:
        self._vectors = vectors
        self._metric = metric

    def search(self, queries: Vectors, k: int, allow: RowSet | None, params: SearchParams) -> Neighbours:
        """Rows of the best ``k`` for each of ``queries``; always exact, whatever ``params`` say."""
        if allow is None and len(queries) > 1:
            return stack(list(self._scan_together(queries, k)), k)
        rows = None if allow is None else allow.rows
        found = [best(*self._scan(query, rows), k) for query in queries]
        return stack(found, k)

    def _scan_together(self, queries: Vectors, k: int) -> Iterator[tuple[Rows, Scores]]:
        """Each row is fetched from memory once for many queries, not once for each."""
        rows = len(self._vectors)
        together = max(1, _SCORES_AT_ONCE // max(1, rows))
        for first in range(0, len(queries), together):
            asked = queries[first : first + together]
            scores = np.empty((len(asked), rows), dtype=np.float32)
            for start in range(0, rows, _ROWS_AT_ONCE):
                block = self._vectors[start : start + _ROWS_AT_ONCE]
                for query, row in zip(asked, scores, strict=True):
                    row[start : start + len(block)] = score_all(query, block, self._metric)
            yield from (best(None, row, k) for row in scores)

    def plan(self, k: int, allow: RowSet | None, params: SearchParams) -> Plan:
        """A scan of all rows that count."""
        return Plan(None, len(self._vectors) if allow is None else allow.count)

    def _scan(self, query: Vectors, rows: Rows | None) -> tuple[Rows | None, Scores]:
        if rows is None:
            return None, score_all(query, self._vectors, self._metric)
        if len(rows) > _GATHER_BELOW * len(self._vectors):
            return rows, score_all(query, self._vectors, self._metric)[rows]
        return rows, score_rows(query, self._vectors, rows, self._metric)


def score_all(query: Vectors, vectors: Vectors, metric: Metric) -> Scores:
    """The score of each of ``vectors`` ``(n, dim)`` for one query ``(dim,)``: ``(n,)``."""
    count, dim = vectors.shape
    scores = np.empty(count, dtype=np.float32)
    kernel = faiss.fvec_L2sqr_ny if metric is Metric.L2 else faiss.fvec_inner_products_ny
    if count:
        kernel(faiss.swig_ptr(scores), faiss.swig_ptr(query), faiss.swig_ptr(vectors), dim, count)
    return np.negative(scores, out=scores) if metric is Metric.L2 else scores


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

"""Approximate search in one segment: candidates from a FAISS structure, scored with the raw vectors.

Each search is planned: it walks the structure as wide as its tuning and its filter ask for, or compares
with every row that counts, whichever costs less by what was measured when the segment was built.
"""

from __future__ import annotations

from typing import Final

import faiss
import numpy as np

from indexes.base import Metric, Neighbours, SearchParams, Vectors
from indexes.dense.exact import ExactIndex, Scores, rescore, top
from indexes.dense.manifest import Tuning
from indexes.dense.rows import Rows, RowSet
from indexes.dense.structures import Plan, Structure

_SMALLEST_SHARE: Final = 1e-4
"""Below this share of allowed rows no structure beats a scan of them."""


class ApproximateIndex:
    """A FrozenIndex over ``vectors`` ``(rows, dim)``.

    ``order`` ``(nodes,)`` has the row of each node of the structure, where these are not the same.
    """

    def __init__(
        self,
        structure: Structure,
        vectors: Vectors,
        metric: Metric,
        tuning: Tuning,
        *,
        order: Rows | None = None,
    ) -> None:
        self._structure = structure
        self._vectors = vectors
        self._exact = ExactIndex(vectors, metric)
        self._metric = metric
        self._tuning = tuning
        self._order = order

    def search(self, queries: Vectors, k: int, allow: RowSet | None, params: SearchParams) -> Neighbours:
        """Rows of the best ``k`` for each of ``queries``."""
        plan = self.plan(k, allow, params)
        if plan.effort is None:
            return self._exact.search(queries, k, allow, params)
        rows, scores = self._walk(queries, k, plan.effort, allow)
        if len(rows) and (rows[:, -1] < 0).any():
            # Deleted or filtered rows can cut off a part of a graph, or fill all lists that were read.
            return self._exact.search(queries, k, allow, params)
        return Neighbours(rows, scores)

    def plan(self, k: int, allow: RowSet | None, params: SearchParams) -> Plan:
        """What a search will do."""
        rows = len(self._vectors)
        allowed = rows if allow is None else allow.count
        if params.exact or allowed <= max(k, _SMALLEST_SHARE * rows):
            return Plan(None, allowed)
        effort = params.effort or self._tuning.effort
        if allowed < rows:
            effort = self._structure.widened(effort, allowed / rows)
        walk_us = self._tuning.walk_us(max(effort, k))
        return Plan(None if allowed * self._tuning.scan_us < walk_us else effort, allowed)

    def _walk(self, queries: Vectors, k: int, effort: int, allow: RowSet | None) -> tuple[Rows, Scores]:
        structure = self._structure
        fetched = min(structure.fetched(k), len(self._vectors))
        selector = None if allow is None else allow.selector
        faiss.omp_set_num_threads(1)
        scores, rows = structure.index.search(
            queries, fetched, params=structure.parameters(effort, fetched, selector)
        )
        if self._order is not None:
            rows = np.where(rows < 0, -1, self._order[rows])
        if not structure.exact_scores:
            scores = rescore(queries, self._vectors, rows, self._metric)
        elif self._metric is Metric.L2:
            scores = np.negative(scores, out=scores)
        return top(rows, scores, k)

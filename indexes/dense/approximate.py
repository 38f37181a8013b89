"""Approximate search in one segment: candidates from a FAISS structure, scored with the raw vectors.

Each search is planned: it walks the structure as wide as its tuning and its filter ask for, or compares
with every row that counts, whichever costs less by what was measured when the segment was built.
"""

from __future__ import annotations

from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

from indexes.base import Metric, Neighbours, SearchParams, Vectors
from indexes.dense.exact import ExactIndex, Scores, rescore, top
from indexes.dense.manifest import Tuning
from indexes.dense.rows import Rows, RowSet
from indexes.dense.structures import CPU, Plan, Structure

Enough = NDArray[np.bool_]

_EXACT: Final = SearchParams(exact=True)
_SPARE: Final = 10
"""Candidates for re-scoring beyond those for each row wanted."""
_WIDER: Final = 4
_SMALLEST_SHARE: Final = 1e-4
"""Below this share of allowed rows no structure beats a scan of them."""


class ApproximateIndex:
    """A FrozenIndex over ``vectors`` ``(rows, dim)``.

    ``order`` ``(nodes,)`` has the row of each node of the structure, where these are not the same.
    """

    device: Final = CPU

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
        return self._walk_far_enough(queries, k, plan.effort, allow)

    def plan(self, k: int, allow: RowSet | None, params: SearchParams) -> Plan:
        """What a search will do, unless it has to look wider."""
        rows = len(self._vectors)
        allowed = rows if allow is None else allow.count
        if params.exact or allowed <= max(k, _SMALLEST_SHARE * rows):
            return Plan(None, allowed)
        if params.effort is None and self._tuning.falls_short:
            return Plan(None, allowed)
        effort = params.effort or self._tuning.effort
        if allowed < rows:
            effort = self._structure.widened(effort, allowed / rows)
        return Plan(None if self._scan_is_cheaper(allowed, max(effort, k)) else effort, allowed)

    def candidates(self, k: int, effort: int, allow: RowSet | None) -> tuple[int, int]:
        """How many rows that count a walk is to find for ``k``, and how many it fetches for that."""
        structure, rows = self._structure, len(self._vectors)
        wanted = min(k if structure.exact_scores else self._tuning.oversampling * k + _SPARE, rows)
        if allow is None or structure.selects:
            return wanted, wanted
        return wanted, min(structure.fetched(effort, wanted, allow.count / rows), rows)

    def walk(
        self, queries: Vectors, k: int, effort: int, allow: RowSet | None = None
    ) -> tuple[Neighbours, Enough]:
        """What one walk finds, and which of ``queries`` saw enough rows that count."""
        structure = self._structure
        wanted, fetched = self.candidates(k, effort, allow)
        after = allow is not None and not structure.selects
        selector = None if after or allow is None else allow.selector
        faiss.omp_set_num_threads(1)
        scores, rows = structure.index.search(
            queries, fetched, params=structure.parameters(effort, fetched, selector)
        )
        if self._order is not None:
            rows = np.where(rows < 0, -1, self._order[rows])
        if after:
            assert allow is not None
            rows, scores = _first_in(allow, rows, scores, wanted)
        if not structure.exact_scores:
            scores = rescore(queries, self._vectors, rows, self._metric)
        elif self._metric is Metric.L2:
            scores = np.negative(scores, out=scores)
        enough = rows[:, -1 if after else min(k, wanted) - 1] >= 0
        return Neighbours(*top(rows, scores, k)), enough

    def _walk_far_enough(self, queries: Vectors, k: int, effort: int, allow: RowSet | None) -> Neighbours:
        """Walk again, wider, for queries that saw few rows that count, or scan where that is cheaper.

        Such rows may lie apart from a query, beyond many that were deleted or that a filter forbids.
        """
        allowed = len(self._vectors) if allow is None else allow.count
        found, enough = self.walk(queries, k, effort, allow)
        if not enough.all():
            again = np.ascontiguousarray(queries[~enough])
            if effort >= len(self._vectors) or self._scan_is_cheaper(allowed, effort * _WIDER):
                better = self._exact.search(again, k, allow, _EXACT)
            else:
                better = self._walk_far_enough(again, k, effort * _WIDER, allow)
            found.keys[~enough], found.scores[~enough] = better.keys, better.scores
        return found

    def _scan_is_cheaper(self, allowed: int, effort: int) -> bool:
        return allowed * self._tuning.scan_us < self._tuning.walk_us(effort)


def _first_in(allow: RowSet, rows: Rows, scores: Scores, count: int) -> tuple[Rows, Scores]:
    """The first ``count`` of each row of ``rows`` that are in ``allow``, in their order, padded with -1."""
    inside = (rows >= 0) & allow.mask[rows]
    order = np.argsort(~inside, axis=1, kind="stable")[:, :count]
    query = np.arange(len(rows))[:, None]
    kept = inside[query, order]
    return np.where(kept, rows[query, order], -1), np.where(kept, scores[query, order], np.inf)

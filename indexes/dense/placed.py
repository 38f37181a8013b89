"""Search in a segment that lies in a GPU's memory, with the CPU for all that the GPU cannot answer.

The GPU only names candidates: the CPU scores them with the raw vectors, as it scores its own, so that
segments here and there can be merged, and a score does not depend on the machine.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from indexes.base import Metric, Neighbours, SearchParams, Vectors
from indexes.dense.approximate import ApproximateIndex
from indexes.dense.devices import PlacedStructure
from indexes.dense.manifest import Tuning
from indexes.dense.rows import RowSet
from indexes.dense.structures import FrozenIndex, Plan
from ragstone.errors import OutOfMemory

Sure = NDArray[np.bool_]

_LEAST_SHARE: Final = 0.25
"""Where a filter allows fewer rows than this, most of what a GPU would fetch is thrown away."""
_SPARE: Final = 10
_FLAT: Final = Tuning(effort=1, oversampling=1, rows=0, recall=1.0, target=None, scan_us=0.0, curve=())

log = structlog.get_logger(__name__)


class PlacedIndex:
    """A FrozenIndex: asks ``structure``, and ``host`` for what that cannot answer, or not surely."""

    def __init__(
        self,
        structure: PlacedStructure,
        host: FrozenIndex,
        vectors: Vectors,
        metric: Metric,
        tuning: Tuning,
    ) -> None:
        self.device: Final[str] = structure.device
        self._structure = structure
        self._host = host
        self._rows = len(vectors)
        self._tuning = tuning
        self._candidates = ApproximateIndex(structure, vectors, metric, tuning)

    def search(self, queries: Vectors, k: int, allow: RowSet | None, params: SearchParams) -> Neighbours:
        """Rows of the best ``k`` for each of ``queries``."""
        effort = self._effort(k, allow, params)
        if effort is None:
            return self._host.search(queries, k, allow, params)
        try:
            found, sure = self._ask(queries, k, effort, allow)
        except OutOfMemory as error:
            if self._structure.required:
                raise
            log.warning("search_on_cpu", device=self.device, reason=error.message)
            return self._host.search(queries, k, allow, params)
        if not sure.all():
            better = self._host.search(np.ascontiguousarray(queries[~sure]), k, allow, params)
            found.keys[~sure], found.scores[~sure] = better.keys, better.scores
        return found

    def plan(self, k: int, allow: RowSet | None, params: SearchParams) -> Plan:
        """What a search will do, unless it has to ask the CPU after all."""
        effort = self._effort(k, allow, params)
        if effort is None:
            return self._host.plan(k, allow, params)
        return Plan(self._shown(effort), self._rows if allow is None else allow.count, self.device)

    def _effort(self, k: int, allow: RowSet | None, params: SearchParams) -> int | None:
        """The effort on the device; None if the CPU answers."""
        allowed = self._rows if allow is None else allow.count
        share = allowed / self._rows
        if params.exact or share < _LEAST_SHARE or k + _SPARE >= allowed:
            return None
        effort = params.effort or self._tuning.effort
        if share < 1:
            effort = self._structure.widened(effort, share)
        _, fetched = self._candidates.candidates(k + _SPARE, effort, allow)
        return effort if fetched <= self._structure.most else None

    def _ask(self, queries: Vectors, k: int, effort: int, allow: RowSet | None) -> tuple[Neighbours, Sure]:
        """What the device finds, and for which of ``queries`` that is enough."""
        return self._candidates.walk(queries, k, effort, allow)

    def _shown(self, effort: int) -> int | None:
        return effort


class PlacedFlat(PlacedIndex):
    """A FrozenIndex that compares with every row, and is as exact as a scan on the CPU.

    A GPU's scores differ from the CPU's in their last bits, so a row that it does not name may be as good as
    the last one wanted. That cannot be where the worst of a few spare candidates is worse by more than both
    may be wrong; else the CPU scans.
    """

    def __init__(
        self, structure: PlacedStructure, host: FrozenIndex, vectors: Vectors, metric: Metric
    ) -> None:
        super().__init__(structure, host, vectors, metric, _FLAT)
        self._metric = metric
        self._error = vectors.shape[1] * float(np.finfo(np.float32).eps)
        self._longest = _longest(vectors)

    def _ask(self, queries: Vectors, k: int, effort: int, allow: RowSet | None) -> tuple[Neighbours, Sure]:
        found, enough = self._candidates.walk(queries, k + _SPARE, effort, allow)
        lengths = np.linalg.norm(queries, axis=1)
        size = (lengths + self._longest) ** 2 if self._metric is Metric.L2 else lengths * self._longest
        with np.errstate(invalid="ignore"):  # of two that are missing
            sure = found.scores[:, k - 1] - found.scores[:, -1] > 2 * self._error * size
        return Neighbours(found.keys[:, :k].copy(), found.scores[:, :k].copy()), sure & enough

    def _shown(self, effort: int) -> int | None:
        return None


_ROWS_AT_ONCE: Final = 16_384


def _longest(vectors: Vectors) -> float:
    """The largest norm."""
    starts = range(0, len(vectors), _ROWS_AT_ONCE)
    norms = (np.linalg.norm(vectors[start : start + _ROWS_AT_ONCE], axis=1).max() for start in starts)
    return float(max(norms, default=0.0))

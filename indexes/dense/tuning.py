"""From a recall target to the cheapest search that reaches it, by measuring a segment as it is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Final, TypeVar

import numpy as np

from indexes.base import Metric, Neighbours, SearchParams, Vectors
from indexes.dense.approximate import ApproximateIndex
from indexes.dense.devices import PlacedStructure
from indexes.dense.exact import ExactIndex
from indexes.dense.manifest import Point, Tuned, Tuning
from indexes.dense.rows import Rows, RowSet
from indexes.dense.structures import Structure
from ragstone.errors import OutOfMemory

_T = TypeVar("_T")

FEW_ROWS: Final = 1_000
"""Fewer new rows than this are too few to measure with."""
_SAMPLE: Final = 400
_RUN: Final = 20
_SAMPLED_SHARE: Final = 0.1
_K: Final = 10
_LEAST_K: Final = 3
_MARGIN: Final = 0.3
"""Queries lie further from their neighbours than rows do, which often come from one text with them. So rows
have to miss less by this share than queries may (measured on sentences of unseen texts)."""
_ENOUGH: Final = 0.998
"""The curve ends here, or at the target above it."""
_NEAR: Final = 4
"""Efforts that lie so near, or within a sixteenth, are not told apart: the sample could not."""


def sample(first: int, rows: int) -> Rows:
    """Rows out of ``first .. rows - 1`` to measure with, ascending: a tenth of them, at most 400.

    They come in runs: rows side by side are often of one text, and a query is of none that is there.
    """
    count = min(_SAMPLE, int(_SAMPLED_SHARE * (rows - first)))
    runs = np.array_split(np.arange(first, rows), max(1, count // _RUN))
    return np.concatenate([run[: count // len(runs)] for run in runs])


def tune(
    structure: Structure,
    vectors: Vectors,
    metric: Metric,
    asked: Rows,
    *,
    target: float,
    shards: int,
    effort: int | None,
    order: Rows | None = None,
    placed: PlacedStructure | None = None,
) -> Tuned:
    """Recall@10 and time of some efforts, and the cheapest of them that reaches ``target``.

    The rows ``asked`` of ``vectors`` ask for their neighbours, themselves left out. A graph finds the
    neighbours of its own nodes more easily than those of a new vector, so its builder leaves them out of it
    at first: then ``order`` has the rows of the nodes that it has so far. One of several ``shards`` has to
    find only its share of ten neighbours. A given ``effort`` is measured and taken. Where none reaches the
    target, the one with the best recall is the answer. ``placed``, the same structure on a GPU, is asked
    the same.
    """
    k = max(_LEAST_K, -(-_K // shards))
    queries = np.ascontiguousarray(vectors[asked])
    there = None if order is None else _row_set(order, len(vectors))
    exactly = partial(ExactIndex(vectors, metric).search, queries, k + 1, there, SearchParams(exact=True))
    truth, scan_us = _timed(exactly, queries)
    exam = _Exam(vectors, metric, asked, order, queries, truth, k, target, effort, scan_us / len(vectors))
    cpu = exam.take(structure)
    if placed is None:
        return Tuned(cpu=cpu)
    try:
        return Tuned(cpu=cpu, gpu=exam.take(placed))
    except OutOfMemory:
        if placed.required:
            raise
        return Tuned(cpu=cpu)


@dataclass(frozen=True, slots=True)
class _Exam:
    """Questions with their true answers; see ``tune``."""

    vectors: Vectors
    metric: Metric
    asked: Rows
    order: Rows | None
    queries: Vectors
    truth: Neighbours
    k: int
    target: float
    effort: int | None
    scan_us: float

    def take(self, structure: Structure) -> Tuning:
        """How a structure does."""
        wanted = self.target + _MARGIN * (1 - self.target)
        best: Tuning | None = None
        for oversampling in structure.oversamplings():
            curve = self._curve(structure, oversampling, wanted)
            chosen = _cheapest(curve, wanted)
            if best is None or chosen.recall > best.recall:
                best = Tuning(
                    effort=chosen.effort,
                    oversampling=oversampling,
                    rows=len(self.vectors),
                    recall=chosen.recall,
                    target=None if self.effort is not None else self.target,
                    scan_us=self.scan_us,
                    curve=tuple(curve),
                )
            if chosen.recall >= wanted:
                break
        assert best is not None
        return best

    def _curve(self, structure: Structure, oversampling: int, wanted: float) -> list[Point]:
        """The efforts worth measuring, up to the first that is more than enough; ascending.

        Those of the structure are steps; between the last that misses ``wanted`` and the next it is halved.
        """
        index = ApproximateIndex(
            structure, self.vectors, self.metric, _untuned(oversampling), order=self.order
        )
        curve: list[Point] = []
        for effort in structure.efforts() if self.effort is None else (self.effort,):
            curve.append(self._point(index, effort))
            if curve[-1].recall >= max(wanted, _ENOUGH):
                break
        place = next((place for place, point in enumerate(curve) if point.recall >= wanted), 0)
        while place and (middle := _between(curve[place - 1].effort, curve[place].effort)):
            curve.insert(place, self._point(index, middle))
            place += curve[place].recall < wanted
        return curve

    def _point(self, index: ApproximateIndex, effort: int) -> Point:
        """What one effort finds, and in what time."""
        (found, _), us = _timed(partial(index.walk, self.queries, self.k + 1, effort), self.queries)
        return Point(effort=effort, recall=recall_of(found, self.truth, self.asked, self.k), us=us)


def _between(low: int, high: int) -> int:
    """The effort in the middle; 0 where the two are near enough."""
    return (low + high) // 2 if high - low > max(_NEAR, high // 16) else 0


def _cheapest(curve: Sequence[Point], wanted: float) -> Point:
    """The first point that has the recall, else the one that comes nearest."""
    reached = (point for point in curve if point.recall >= wanted)
    return next(reached, None) or max(curve, key=lambda point: point.recall)


def recall_of(found: Neighbours, truth: Neighbours, itself: Rows, k: int) -> float:
    """The share of the ``k`` true neighbours that were found; one as good as the last counts too."""
    others = (truth.keys >= 0) & (truth.keys != itself[:, None])
    ranks = np.cumsum(others, axis=1)
    others &= ranks <= k
    wanted = others.sum(axis=1)
    floor = np.where(others, truth.scores, np.inf).min(axis=1, initial=np.inf)
    hits = (found.keys >= 0) & (found.keys != itself[:, None]) & (found.scores >= floor[:, None])
    total = int(wanted.sum())
    return float(np.minimum(hits.sum(axis=1), wanted).sum() / total) if total else 1.0


def _row_set(rows: Rows, count: int) -> RowSet:
    mask = np.zeros(count, dtype=np.bool_)
    mask[rows] = True
    return RowSet(mask)


def _timed(search: Callable[[], _T], queries: Vectors) -> tuple[_T, float]:
    """What ``search`` finds, and the microseconds for each query."""
    start = perf_counter()
    found = search()
    return found, (perf_counter() - start) * 1e6 / max(1, len(queries))


def _untuned(oversampling: int) -> Tuning:
    """What a search needs that is told its effort."""
    return Tuning(
        effort=1,
        oversampling=oversampling,
        rows=0,
        recall=0.0,
        target=None,
        scan_us=0.0,
        curve=(),
    )

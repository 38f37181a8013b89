"""From a recall target to the cheapest search that reaches it, by measuring a segment as it is built."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final

import numpy as np

from indexes.base import Metric, Neighbours, SearchParams, Vectors
from indexes.dense.approximate import ApproximateIndex
from indexes.dense.manifest import Point, Tuning
from indexes.dense.rows import Rows, RowSet
from indexes.dense.structures import Structure

_SAMPLE: Final = 400
_RUN: Final = 20
_SAMPLED_SHARE: Final = 0.1
_K: Final = 10
_MARGIN: Final = 0.3
"""Queries lie further from their neighbours than rows do, which often come from one text with them. So rows
have to miss less by this share than queries may (measured on sentences of unseen texts)."""
_ENOUGH: Final = 0.998
"""The curve ends here, or at the target above it."""


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
    effort: int | None,
    order: Rows | None = None,
) -> Tuning:
    """Recall@10 and time of every effort, and the cheapest effort that reaches ``target``.

    The rows ``asked`` of ``vectors`` ask for their neighbours, themselves left out. A graph finds the
    neighbours of its own nodes more easily than those of a new vector, so its builder leaves them out of it
    at first: then ``order`` has the rows of the nodes that it has so far. A given ``effort`` is measured
    and taken. Where none reaches the target, the largest is the answer.
    """
    wanted = target + _MARGIN * (1 - target)
    queries = np.ascontiguousarray(vectors[asked])
    index = ApproximateIndex(structure, vectors, metric, _UNTUNED, order=order)
    there = None if order is None else _row_set(order, len(vectors))
    truth, scan_us = _timed(lambda: index.search(queries, _K + 1, there, SearchParams(exact=True)), queries)
    curve: list[Point] = []
    chosen: Point | None = None
    for candidate in (effort,) if effort is not None else structure.efforts():
        params = SearchParams(effort=candidate)
        found, us = _timed(lambda p=params: index.search(queries, _K + 1, None, p), queries)  # type: ignore[misc]
        curve.append(Point(effort=candidate, recall=recall_of(found, truth, asked), us=us))
        if chosen is None and curve[-1].recall >= wanted:
            chosen = curve[-1]
        if curve[-1].recall >= max(wanted, _ENOUGH):
            break
    chosen = chosen or curve[-1]
    return Tuning(
        effort=chosen.effort,
        recall=chosen.recall,
        target=None if effort is not None else target,
        scan_us=scan_us / len(vectors),
        curve=tuple(curve),
    )


def recall_of(found: Neighbours, truth: Neighbours, itself: Rows) -> float:
    """The share of the true neighbours that were found; one that scores as well as the last counts too."""
    others = (truth.keys >= 0) & (truth.keys != itself[:, None])
    ranks = np.cumsum(others, axis=1)
    others &= ranks <= _K
    wanted = others.sum(axis=1)
    floor = np.where(others, truth.scores, np.inf).min(axis=1, initial=np.inf)
    hits = (found.keys >= 0) & (found.keys != itself[:, None]) & (found.scores >= floor[:, None])
    total = int(wanted.sum())
    return float(np.minimum(hits.sum(axis=1), wanted).sum() / total) if total else 1.0


def _row_set(rows: Rows, count: int) -> RowSet:
    mask = np.zeros(count, dtype=np.bool_)
    mask[rows] = True
    return RowSet(mask)


def _timed(search: Callable[[], Neighbours], queries: Vectors) -> tuple[Neighbours, float]:
    """What ``search`` finds, and the microseconds for each query."""
    start = perf_counter()
    found = search()
    return found, (perf_counter() - start) * 1e6 / max(1, len(queries))


_UNTUNED: Final = Tuning(effort=1, recall=0.0, target=None, scan_us=float("inf"), curve=())
"""Measuring takes every effort as it is told, and no way out."""

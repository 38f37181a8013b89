"""From a recall target to the cheapest search that reaches it, by measuring."""

from __future__ import annotations

from typing import Final

import numpy as np

from indexes.base import FrozenIndex, Neighbours, SearchParams, Vectors

WIDTHS: Final = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024)
_SAMPLE: Final = 200
_K: Final = 10


def cheapest_width(index: FrozenIndex, vectors: Vectors, *, target: float) -> tuple[int, float]:
    """The smallest of ``WIDTHS`` whose recall@10 reaches ``target``, and that recall.

    A sample of ``vectors`` asks for its neighbours, itself left out. Where no width reaches the target, the
    widest is the answer.
    """
    rows = np.random.default_rng(0).choice(len(vectors), size=min(_SAMPLE, len(vectors)), replace=False)
    queries = np.ascontiguousarray(vectors[rows])
    truth = index.search(queries, _K + 1, None, SearchParams(exact=True))
    width, recall = WIDTHS[0], 0.0
    for width in WIDTHS:
        found = index.search(queries, _K + 1, None, SearchParams(ef_search=width))
        recall = _recall(found, truth, rows)
        if recall >= target:
            break
    return width, recall


def _recall(
    found: Neighbours, truth: Neighbours, itself: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> float:
    """The share of the true neighbours that were found; one that scores as well as the last counts too."""
    others = (truth.keys >= 0) & (truth.keys != itself[:, None])
    wanted = np.minimum(others.sum(axis=1), _K)
    floor = np.where(others, truth.scores, np.inf).min(axis=1, initial=np.inf)
    hits = (found.keys >= 0) & (found.keys != itself[:, None]) & (found.scores >= floor[:, None])
    total = int(wanted.sum())
    return float(np.minimum(hits.sum(axis=1), wanted).sum() / total) if total else 1.0

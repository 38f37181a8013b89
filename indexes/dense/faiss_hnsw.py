"""HNSW graphs (Malkov and Yashunin, 2016, arXiv:1603.09320) by FAISS, over full or quantised vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import faiss
import numpy as np

from indexes.base import Metric, Vectors
from indexes.dense.manifest import Tuning
from indexes.dense.options import HnswOptions
from indexes.dense.rows import Rows
from indexes.dense.structures import FAISS_METRIC, fill, search_parameters, training_sample
from indexes.dense.tuning import FEW_ROWS, sample, tune

_ADD_ROWS: Final = 512
"""Rows inserted between two looks at ``cancelled``: well under a second of work."""
_EFFORTS: Final = (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1_024)
_WIDENING: Final = 0.8
"""In full proportion (1) a filtered search would find more than one without a filter (measured)."""
_QUANTIZER: Final = {
    "fp16": faiss.ScalarQuantizer.QT_fp16,
    "sq8": faiss.ScalarQuantizer.QT_8bit,
}


class HnswStructure:
    """A graph; the effort is ``efSearch``, the width of a walk.

    A filter is applied to what a walk found: how many of these it allows tells whether the walk was wide
    enough, which a walk that is told the filter does not.
    """

    selects = False

    def __init__(self, index: Any) -> None:
        self.index = index
        self.exact_scores = isinstance(index, faiss.IndexHNSWFlat)

    def efforts(self) -> Sequence[int]:
        """Steps of a quarter or a third."""
        return _EFFORTS

    def widened(self, effort: int, share: float) -> int:
        """Forbidden rows lie within the width too, so it grows as allowed ones become rare."""
        return math.ceil(effort / math.pow(share, _WIDENING))

    def oversamplings(self) -> Sequence[int]:
        """None: 8 bits order neighbours almost as 32 do."""
        return (1,)

    def parameters(self, effort: int, fetched: int, selector: Any) -> Any:
        """A walk at least as wide as it has to be."""
        return search_parameters(faiss.SearchParametersHNSW, selector, efSearch=max(effort, fetched))


class HnswBuilder:
    """Builds graphs: one insertion after the other, in the order of the rows."""

    kind = "hnsw"
    extends = True

    def __init__(self, options: HnswOptions) -> None:
        self._options = options

    @property
    def shape(self) -> Mapping[str, int | str]:
        """Links, their quality, and what they connect."""
        options = self._options
        return {"m": options.m, "ef_construction": options.ef_construction, "storage": options.storage}

    def empty(self, vectors: Vectors, metric: Metric) -> Any:
        """A graph without nodes; a quantiser takes the range of each dimension from ``vectors``."""
        options, dim = self._options, vectors.shape[1]
        if options.storage == "float32":
            index = faiss.IndexHNSWFlat(dim, options.m, FAISS_METRIC[metric])
        else:
            index = faiss.IndexHNSWSQ(dim, _QUANTIZER[options.storage], options.m, FAISS_METRIC[metric])
            index.train(training_sample(vectors))
        index.hnsw.efConstruction = options.ef_construction
        return index

    def finish(
        self,
        index: Any,
        vectors: Vectors,
        metric: Metric,
        *,
        known: Tuning | None,
        cancelled: Callable[[], bool],
    ) -> Tuning:
        """Insert the rows that measure the graph last, so that it does not know them while it is measured."""
        first, options = index.ntotal, self._options
        if known is not None and len(vectors) - first < FEW_ROWS:
            fill(index, vectors, np.arange(first, len(vectors)), block=_ADD_ROWS, cancelled=cancelled)
            return known
        asked = sample(first, len(vectors))
        others = np.setdiff1d(np.arange(first, len(vectors)), asked, assume_unique=True)
        order = np.concatenate([np.arange(first), others])
        fill(index, vectors, others, block=_ADD_ROWS, cancelled=cancelled)
        tuning = tune(
            HnswStructure(index),
            vectors,
            metric,
            asked,
            target=options.recall_target,
            shards=options.shards,
            effort=options.ef_search,
            order=order,
        )
        fill(index, vectors, asked, block=_ADD_ROWS, cancelled=cancelled)
        _put_in_order(index, np.concatenate([order, asked]))
        return tuning


def _put_in_order(index: Any, rows: Rows) -> None:
    """Rename the nodes of a graph, node ``i`` to ``rows[i]``."""
    index.permute_entries(np.argsort(rows))

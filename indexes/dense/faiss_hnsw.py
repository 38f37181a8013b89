"""HNSW graphs (Malkov and Yashunin, 2016, arXiv:1603.09320) by FAISS, over full or quantised vectors.

A GPU builds a graph over full vectors at once, by CAGRA (Ootomo and others, 2023, arXiv:2308.15136). That
becomes the lowest layer of an HNSW graph, which any CPU can search and extend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import faiss
import numpy as np

from indexes.base import Metric, Vectors
from indexes.dense.devices import HOST, Device
from indexes.dense.exact import rescore
from indexes.dense.manifest import Tuned
from indexes.dense.options import HnswOptions
from indexes.dense.rows import Rows
from indexes.dense.structures import FAISS_METRIC, fill, search_parameters, training_sample
from indexes.dense.tuning import FEW_ROWS, sample, tune

_ADD_ROWS: Final = 512
"""Rows inserted between two looks at ``cancelled``: well under a second of work."""
_EFFORTS: Final = (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1_024)
_WIDENING: Final = 0.8
"""In full proportion (1) a filtered search would find more than one without a filter (measured)."""
_MOST_ADDED: Final = 4
"""A copy of a graph with so many times its rows added takes less time than a new graph of them all."""
_MOST_ADDED_BESIDE_GPU: Final = 0.05
_TRIED_ROWS: Final = 64
_QUANTIZER: Final = {
    "fp16": faiss.ScalarQuantizer.QT_fp16,
    "sq8": faiss.ScalarQuantizer.QT_8bit,
}


@lru_cache
def walks_score_as_scans(dim: int, metric: int) -> bool:
    """Whether this CPU's kernels for one vector and for four, as a walk takes them, round alike.

    Those of AVX-512 do, those of AVX2 do not; what the next FAISS does is not to be guessed either.
    """
    faiss.omp_set_num_threads(1)
    vectors = np.random.default_rng(dim).standard_normal((_TRIED_ROWS, dim), dtype=np.float32)
    graph = faiss.IndexHNSWFlat(dim, _TRIED_ROWS, metric)
    graph.add(vectors)
    scores, rows = graph.search(vectors, _TRIED_ROWS // 2)
    compared_by = Metric.L2 if metric == faiss.METRIC_L2 else Metric.INNER_PRODUCT
    scanned = rescore(vectors, vectors, rows, compared_by)
    return np.array_equal(np.abs(scores), np.abs(scanned))


class HnswStructure:
    """A graph; the effort is ``efSearch``, the width of a walk.

    A filter is applied to what a walk found: how many of these it allows tells whether the walk was wide
    enough, which a walk that is told the filter does not.
    """

    selects = False

    def __init__(self, index: Any) -> None:
        self.index = index
        # Not by the graph's own class: FAISS up to 1.14 reads one from CAGRA back as a plain one.
        full = isinstance(faiss.downcast_index(index.storage), faiss.IndexFlat)
        self.exact_scores = full and walks_score_as_scans(index.d, index.metric_type)

    def efforts(self) -> Sequence[int]:
        """Steps of a quarter or a third."""
        return _EFFORTS

    def widened(self, effort: int, share: float) -> int:
        """Forbidden rows lie within the width too, so it grows as allowed ones become rare."""
        return math.ceil(effort / math.pow(share, _WIDENING))

    def oversamplings(self) -> Sequence[int]:
        """None: 8 bits order neighbours almost as 32 do."""
        return (1,)

    def fetched(self, effort: int, wanted: int, share: float) -> int:
        """All that lies within the width."""
        return max(effort, wanted)

    def parameters(self, effort: int, fetched: int, selector: Any) -> Any:
        """A walk at least as wide as it has to be."""
        return search_parameters(faiss.SearchParametersHNSW, selector, efSearch=max(effort, fetched))


class HnswBuilder:
    """Builds graphs: one insertion after the other, in the order of the rows, or by a GPU at once.

    A graph of the kind ``cagra`` is one that a GPU may also search; it is always over full vectors.
    """

    def __init__(
        self, options: HnswOptions, device: Device = HOST, kind: Literal["hnsw", "cagra"] = "hnsw"
    ) -> None:
        self.kind: Final[str] = kind
        self._options = options
        self._device = device
        self._by_device = options.storage == "float32" and device.builds_graphs

    @property
    def most_added(self) -> float:
        """What a GPU builds as fast as a CPU adds to it is built anew."""
        return _MOST_ADDED_BESIDE_GPU if self._by_device else _MOST_ADDED

    @property
    def shape(self) -> Mapping[str, int | str]:
        """Links, their quality, and what they connect."""
        options = self._options
        return {"m": options.m, "ef_construction": options.ef_construction, "storage": options.storage}

    def empty(self, vectors: Vectors, metric: Metric) -> Any:
        """A graph without nodes; a quantiser takes the range of each dimension from ``vectors``."""
        options, dim = self._options, vectors.shape[1]
        if self._by_device or self.kind == "cagra":
            index = faiss.IndexHNSWCagra(dim, options.m, FAISS_METRIC[metric])
        elif options.storage == "float32":
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
        known: Tuned | None,
        cancelled: Callable[[], bool],
    ) -> Tuned:
        """Insert the rows that measure the graph last, so that it does not know them while it is measured.

        Where a GPU builds the graph of all others, it needs their vectors once more in the CPU's memory.
        """
        first, options = index.ntotal, self._options
        if known is not None and len(vectors) - first < FEW_ROWS:
            fill(index, vectors, np.arange(first, len(vectors)), block=_ADD_ROWS, cancelled=cancelled)
            return known
        asked = sample(first, len(vectors))
        others = np.setdiff1d(np.arange(first, len(vectors)), asked, assume_unique=True)
        order = np.concatenate([np.arange(first), others])
        self._insert(index, vectors, others, cancelled)
        tuned = tune(
            HnswStructure(index),
            vectors,
            metric,
            asked,
            target=options.recall_target,
            shards=options.shards,
            effort=options.ef_search,
            order=order,
            placed=self._device.place(self.kind, vectors, metric, lambda: index),
        )
        fill(index, vectors, asked, block=_ADD_ROWS, cancelled=cancelled)
        _put_in_order(index, np.concatenate([order, asked]))
        return tuned

    def _insert(self, index: Any, vectors: Vectors, rows: Rows, cancelled: Callable[[], bool]) -> None:
        at_once = self._by_device and not index.ntotal
        if not at_once or not self._device.grow(index, np.ascontiguousarray(vectors[rows]), cancelled):
            fill(index, vectors, rows, block=_ADD_ROWS, cancelled=cancelled)


def _put_in_order(index: Any, rows: Rows) -> None:
    """Rename the nodes of a graph, node ``i`` to ``rows[i]``."""
    index.permute_entries(np.argsort(rows))

"""Inverted files by FAISS: vectors in lists by their nearest centroid, whole or as 4-bit product codes.

Product quantisation: Jegou, Douze, Schmid, TPAMI 2011. Its 4-bit codes are compared many at a time in
vector registers (Andre, Kermarrec, Le Scouarnec, "Quicker ADC", 2019), which FAISS calls fast scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import faiss
import numpy as np

from indexes.base import Metric, Vectors
from indexes.dense.manifest import Tuning
from indexes.dense.options import IvfOptions
from indexes.dense.structures import FAISS_METRIC, fill, search_parameters, training_sample
from indexes.dense.tuning import sample, tune

_ADD_ROWS: Final = 16_384
_EFFORTS: Final = (1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1_024)
_OVERSAMPLINGS: Final = (4, 16, 64)
_TRAINING_PER_LIST: Final = 64
_TRAINING_LEAST: Final = 64
_ITERATIONS: Final = 10
_LARGEST_LISTS: Final = 65_536


class IvfStructure:
    """An inverted file; the effort is ``nprobe``, the number of lists that are read."""

    selects = True

    def __init__(self, index: Any) -> None:
        self.index = index
        self.exact_scores = isinstance(index, faiss.IndexIVFFlat)

    def efforts(self) -> Sequence[int]:
        """Up to all lists."""
        lists = self.index.nlist
        return (*(effort for effort in _EFFORTS if effort < lists), lists)

    def widened(self, effort: int, share: float) -> int:
        """As many allowed rows as without a filter; they need not lie spread over all lists."""
        return min(int(self.index.nlist), math.ceil(effort / share))

    def oversamplings(self) -> Sequence[int]:
        """More where a vector has few dimensions, and so its code few bits."""
        return (1,) if self.exact_scores else _OVERSAMPLINGS

    def parameters(self, effort: int, fetched: int, selector: Any) -> Any:
        """So many lists, nearest first."""
        return search_parameters(faiss.SearchParametersIVF, selector, nprobe=effort)


class IvfBuilder:
    """Builds inverted files: ``ivf_flat`` holds vectors, ``ivf_pq`` half a byte for each two dimensions."""

    extends = False
    """Centroids and lists are right for the rows that they were made for."""

    def __init__(self, kind: Literal["ivf_flat", "ivf_pq"], options: IvfOptions) -> None:
        self.kind: Final[str] = kind
        self._options = options

    @property
    def shape(self) -> Mapping[str, int | str]:
        """The number of lists, where it is fixed; else it follows the number of rows."""
        return {"nlist": self._options.nlist or 0}

    def empty(self, vectors: Vectors, metric: Metric) -> Any:
        """An inverted file without rows, its centroids and codes trained on a sample of ``vectors``."""
        faiss.omp_set_num_threads(1)
        rows, dim = vectors.shape
        lists = min(self._options.nlist or max(1, round(math.sqrt(rows))), rows, _LARGEST_LISTS)
        codes = "Flat" if self.kind == "ivf_flat" else f"PQ{dim // 2 if dim % 2 == 0 else dim}x4fs"
        index = faiss.index_factory(dim, f"IVF{lists},{codes}", FAISS_METRIC[metric])
        index.cp.niter = _ITERATIONS
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = _TRAINING_PER_LIST
        if self.kind == "ivf_pq":
            index.pq.cp.min_points_per_centroid = 1
        # Product codes need one training row for each of their 16 values at the very least.
        most = max(_TRAINING_LEAST, _TRAINING_PER_LIST * lists)
        index.train(training_sample(vectors, least=_TRAINING_LEAST, most=most))
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
        """Put the rows into their lists."""
        options = self._options
        fill(index, vectors, np.arange(len(vectors)), block=_ADD_ROWS, cancelled=cancelled)
        return tune(
            IvfStructure(index),
            vectors,
            metric,
            sample(0, len(vectors)),
            target=options.recall_target,
            shards=options.shards,
            effort=options.nprobe,
        )

"""Inverted files by FAISS: vectors in lists by their nearest centroid, whole or as product codes.

Product quantisation: Jegou, Douze, Schmid, TPAMI 2011. Its 4-bit codes are compared many at a time in
vector registers (Andre, Kermarrec, Le Scouarnec, "Quicker ADC", 2019), which FAISS calls fast scan. A GPU
has no such thing: its codes have 8 bits, and a vector as many bytes, up to 96.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import faiss
import numpy as np

from indexes.base import Metric, Vectors
from indexes.dense.devices import HOST, Device
from indexes.dense.manifest import Tuned
from indexes.dense.options import IvfOptions
from indexes.dense.structures import FAISS_METRIC, fill, search_parameters, training_sample
from indexes.dense.tuning import sample, tune

_ADD_ROWS: Final = 1_024
"""Copied at a time, while which no other thread runs."""
_EFFORTS: Final = (1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1_024)
_OVERSAMPLINGS: Final = (4, 16, 64)
_TRAINING_PER_CENTROID: Final = 64
"""Of lists and of product codes; for these FAISS takes 256, which finds no more and takes 5 times as long."""
_TRAINING_LEAST: Final = {4: 64, 8: 1_024}
"""By the bits of a product code."""
_BYTES: Final = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
"""The numbers of 8-bit codes in which FAISS's GPU index can keep a vector."""
_LARGEST_PIECE: Final = 16
"""A code that stands for more dimensions tells too little; then it is one for the CPU."""
_MORE: Final = 1.25
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

    def fetched(self, effort: int, wanted: int, share: float) -> int:
        """As if what counts lay evenly among what does not, and some more."""
        return math.ceil(_MORE * wanted / share)

    def parameters(self, effort: int, fetched: int, selector: Any) -> Any:
        """So many lists, nearest first."""
        return search_parameters(faiss.SearchParametersIVF, selector, nprobe=effort)


class IvfBuilder:
    """Builds inverted files: ``ivf_flat`` holds vectors, ``ivf_pq`` half a byte for each two dimensions."""

    most_added = 0
    """Centroids and lists are right for the rows that they were made for."""

    def __init__(
        self, kind: Literal["ivf_flat", "ivf_pq"], options: IvfOptions, device: Device = HOST
    ) -> None:
        self.kind: Final[str] = kind
        self._options = options
        self._device = device

    @property
    def shape(self) -> Mapping[str, int | str]:
        """The number of lists, where it is fixed, else it follows the number of rows; the bits of a code."""
        lists: dict[str, int | str] = {"nlist": self._options.nlist or 0}
        return lists if self.kind == "ivf_flat" else {**lists, "code_bits": self._device.code_bits}

    def empty(self, vectors: Vectors, metric: Metric) -> Any:
        """An inverted file without rows, its centroids and codes trained on a sample of ``vectors``."""
        faiss.omp_set_num_threads(1)
        rows, dim = vectors.shape
        lists = min(self._options.nlist or max(1, round(math.sqrt(rows))), rows, _LARGEST_LISTS)
        index = faiss.index_factory(dim, f"IVF{lists},{self._codes(dim)}", FAISS_METRIC[metric])
        for clustering in [index.cp, index.pq.cp] if self.kind == "ivf_pq" else [index.cp]:
            clustering.niter = _ITERATIONS
            clustering.min_points_per_centroid = 1
            clustering.max_points_per_centroid = _TRAINING_PER_CENTROID
        # Product codes need one training row for each of their values at the very least.
        least = _TRAINING_LEAST[self._device.code_bits]
        sample = training_sample(vectors, least=least, most=max(least, _TRAINING_PER_CENTROID * lists))
        self._device.train(index, sample)
        return index

    def _codes(self, dim: int) -> str:
        """What the lists hold, in the words of FAISS's factory."""
        if self.kind == "ivf_flat":
            return "Flat"
        count = max(count for count in _BYTES if dim % count == 0)
        if self._device.code_bits == 8 and count * _LARGEST_PIECE >= dim:
            return f"PQ{count}x8np"
        return f"PQ{dim // 2 if dim % 2 == 0 else dim}x4fs"

    def finish(
        self,
        index: Any,
        vectors: Vectors,
        metric: Metric,
        *,
        known: Tuned | None,
        cancelled: Callable[[], bool],
    ) -> Tuned:
        """Put the rows into their lists."""
        options = self._options
        if not self._device.grow(index, vectors, cancelled):
            fill(index, vectors, np.arange(len(vectors)), block=_ADD_ROWS, cancelled=cancelled)
        return tune(
            IvfStructure(index),
            vectors,
            metric,
            sample(0, len(vectors)),
            target=options.recall_target,
            shards=options.shards,
            effort=options.nprobe,
            placed=self._device.place(self.kind, vectors, metric, lambda: index),
        )

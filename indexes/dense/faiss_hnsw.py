"""HNSW graphs (Malkov and Yashunin, 2016, arXiv:1603.09320) by FAISS, built once and never changed.

Query-time knobs travel with the call; nothing is written to a graph that others may be searching.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import faiss
import numpy as np

from indexes.base import Metric, Neighbours, SearchParams, Vectors
from indexes.dense.exact import ExactIndex, Mask
from ragstone.errors import CorruptIndex, FailedPrecondition

_FAISS_METRIC: Final = {
    Metric.COSINE: faiss.METRIC_INNER_PRODUCT,
    Metric.INNER_PRODUCT: faiss.METRIC_INNER_PRODUCT,
    Metric.L2: faiss.METRIC_L2,
}
_ADD_ROWS: Final = 512
"""Rows inserted between two looks at ``cancelled``: well under a second of work."""

_SCANNED_PER_EF: Final = 40
"""Measured: walking a graph ``ef`` wide takes as long as comparing with this times ``ef`` vectors."""

_WIDEST: Final = 4_096
"""A filter widens the search at most to this."""


class HnswIndex:
    """A FrozenIndex: a graph over ``vectors`` ``(rows, dim)``, searched ``ef`` wide unless told otherwise."""

    def __init__(self, graph: Any, vectors: Vectors, metric: Metric, *, ef: int) -> None:
        self._graph = graph
        self._exact = ExactIndex(vectors, metric)
        self._rows = len(vectors)
        self._sign = np.float32(-1 if metric is Metric.L2 else 1)
        self._ef = ef
        self._packed: tuple[Mask, _Selection] | None = None

    @property
    def ef(self) -> int:
        """The width of a search that does not say its own."""
        return self._ef

    def search(self, queries: Vectors, k: int, allow: Mask | None, params: SearchParams) -> Neighbours:
        """Rows of the best ``k`` for each of ``queries``.

        Where few rows are allowed, or few are there at all, comparing with each of them is cheaper than
        walking a graph around the others, and exact; that is what happens then.
        """
        selection = None if allow is None else self._select(allow)
        allowed = self._rows if selection is None else selection.count
        ef = max(params.ef_search or self._ef, k)
        # A walk has to be wider as allowed rows are rarer, and more so: they may lie apart from the query.
        wide = ef * (2 * self._rows - allowed) // max(allowed, 1)
        if params.exact or wide > _WIDEST or allowed <= _SCANNED_PER_EF * wide:
            return self._exact.search(queries, k, allow, params)
        rows, scores = self._walk(queries, k, wide, selection)
        if (rows < 0).any():
            # Deleted or filtered rows can cut off a part of the graph.
            return self._exact.search(queries, k, allow, params)
        if (scores[:, 1:] == scores[:, :-1]).any():
            order = np.lexsort((rows, -scores), axis=1)
            rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
        return Neighbours(rows, scores)

    def _walk(self, queries: Vectors, k: int, ef: int, selection: _Selection | None) -> tuple[Any, Any]:
        params = faiss.SearchParametersHNSW(efSearch=ef)
        if selection is not None:
            params.sel = selection.selector
        faiss.omp_set_num_threads(1)
        distances, rows = self._graph.search(queries, k, params=params)
        return rows, distances * self._sign

    def _select(self, allow: Mask) -> _Selection:
        # One search after the other usually brings the very same tombstone mask. Two threads may race to
        # store theirs: either is right for its own mask.
        packed = self._packed
        if packed is None or packed[0] is not allow:
            packed = (allow, _Selection(allow))
            self._packed = packed
        return packed[1]


class _Selection:
    """A mask in the form that FAISS asks, bit by bit."""

    def __init__(self, allow: Mask) -> None:
        self.count = int(np.count_nonzero(allow))
        self._bits = np.packbits(allow, bitorder="little")
        self.selector = faiss.IDSelectorBitmap(self._bits)


def build_graph(
    vectors: Vectors,
    metric: Metric,
    *,
    m: int,
    ef_construction: int,
    cancelled: Callable[[], bool],
    base: Any = None,
) -> Any:
    """A graph over ``vectors`` ``(rows, dim)``; seconds to minutes, one thread.

    ``base`` is a graph over the first rows of ``vectors``: it is copied, and only the others are inserted.
    Raises FailedPrecondition soon after ``cancelled`` says so.
    """
    faiss.omp_set_num_threads(1)
    if base is None:
        graph = faiss.IndexHNSWFlat(vectors.shape[1], m, _FAISS_METRIC[metric])
    else:
        graph = faiss.clone_index(base)
    graph.hnsw.efConstruction = ef_construction
    for start in range(graph.ntotal, len(vectors), _ADD_ROWS):
        if cancelled():
            raise FailedPrecondition("the index is closing")
        graph.add(np.ascontiguousarray(vectors[start : start + _ADD_ROWS]))
    return graph


def dump_graph(graph: Any) -> memoryview:
    """The links of a graph as bytes, without the vectors."""
    writer = faiss.VectorIOWriter()
    faiss.write_index(graph, writer, faiss.IO_FLAG_SKIP_STORAGE)
    data: memoryview = faiss.vector_to_array(writer.data).data
    return data


def load_graph(data: bytes, vectors: Vectors, metric: Metric, *, name: str) -> Any:
    """The graph that ``dump_graph`` wrote, over the same ``vectors``. Raises CorruptIndex naming ``name``."""
    reader = faiss.VectorIOReader()
    faiss.copy_array_to_vector(np.frombuffer(data, dtype=np.uint8), reader.data)
    try:
        graph = faiss.read_index(reader, faiss.IO_FLAG_SKIP_STORAGE)
    except RuntimeError as error:
        raise CorruptIndex(f"{name} is not a graph") from error
    if graph.ntotal != len(vectors) or graph.d != vectors.shape[1]:
        raise CorruptIndex(f"{name} is a graph over other vectors")
    storage = faiss.IndexFlat(vectors.shape[1], _FAISS_METRIC[metric])
    storage.add(np.ascontiguousarray(vectors))
    storage.this.disown()
    graph.storage, graph.own_fields = storage, True
    return graph

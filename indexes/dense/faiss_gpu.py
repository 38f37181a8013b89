"""Indexes on a GPU, by FAISS: flat and inverted files by its own kernels, graphs by CAGRA (cuVS).

Whatever is built here is copied back, and kept as an index of the CPU. What cannot be done for want of memory
the CPU does, unless the recipe insists on the GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeVar
from weakref import WeakSet

import faiss
import numpy as np
import structlog

from indexes.base import Metric, Vectors
from indexes.dense import gpu_memory
from indexes.dense.cuda import CudaRuntime
from indexes.dense.devices import HOST, Device, PlacedStructure
from indexes.dense.gpu_structures import GPU, GpuCagra, GpuFlat, GpuIvf, OneAtATime, translated
from indexes.dense.structures import FAISS_METRIC, fill
from ragstone.errors import BackendUnavailable, FailedPrecondition, OutOfMemory

_LEAST_FLOATS: Final = 2_048 * 384
"""Fewer are compared on the CPU in the time that the way to the GPU and back takes."""
_LEAST_GRAPH: Final = 1_000
"""CAGRA prunes a graph of many neighbours of each row, which as few rows do not have."""
_LARGE_TABLE: Final = 48
"""The distance tables of more 8-bit codes fit a block's shared memory only in half precision."""
_ADD_ROWS: Final = 32_768
_LISTS: Final = (faiss.IndexIVFFlat, faiss.IndexIVFPQ)

_HINT: Final = "docs/indexes.md, On a GPU: a driver, and faiss-gpu or faiss-gpu-cuvs instead of faiss-cpu"

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


def open_device(wanted: Literal["auto", "cpu", "cuda"]) -> Device:
    """What a recipe's flag means on this machine: a GPU, or the CPU. Logs why ``cuda`` cannot be had."""
    if wanted == "cpu":
        return HOST
    runtime = CudaRuntime.loaded() if hasattr(faiss, "StandardGpuResources") else None
    missing = "this FAISS has no GPU support" if runtime is None else runtime.fault()
    if runtime is not None and not missing:
        return CudaDevice(runtime, required=wanted == "cuda")
    if wanted == "cuda":
        log.warning("index_on_cpu", wanted="cuda", missing=missing, hint=_HINT)
    return HOST


class CudaDevice:
    """The first visible GPU. Thread-safe; belongs to one index."""

    name: Final = f"cuda:{GPU}"
    code_bits: Final = 8

    def __init__(self, runtime: CudaRuntime, *, required: bool, least_floats: int = _LEAST_FLOATS) -> None:
        self._runtime = runtime
        self._required = required
        self._least_floats = least_floats
        self._promised = 0
        """Bytes for what is being allocated now."""
        self._planning = threading.Lock()
        """Guards ``_promised``."""
        self._placed: WeakSet[OneAtATime] = WeakSet()

    @property
    def builds_graphs(self) -> bool:
        """Whether this FAISS has CAGRA."""
        return hasattr(faiss, "GpuIndexCagra")

    def train(self, index: Any, sample: Vectors) -> None:
        """The GPU compares rows with centroids, which is nearly all the work."""
        worth = sample.size > self._least_floats
        if not worth or not self._tried("train", 2 * sample.nbytes, lambda: _train(index, sample)):
            index.train(sample)

    def grow(self, index: Any, vectors: Vectors, cancelled: Callable[[], bool]) -> bool:
        """Build on the GPU, then copy to ``index``."""
        if vectors.size <= self._least_floats or len(vectors) < _LEAST_GRAPH:
            return False
        if cancelled():
            raise FailedPrecondition("the index is closing")
        grown = self._grown(index, vectors, cancelled)
        if grown is None:
            return False
        with translated():
            # CAGRA reads ``vectors`` once more here; the upper layers of its graph are inserted by the CPU.
            grown.copyTo(index)
        return True

    def place(
        self, kind: str, vectors: Vectors, metric: Metric, load: Callable[[], Any]
    ) -> PlacedStructure | None:
        """Flat segments, inverted files but those of 4-bit codes, and graphs of the kind ``cagra``."""
        if vectors.size <= self._least_floats:
            return None
        match kind:
            case "flat":
                needed = gpu_memory.flat_bytes(*vectors.shape)
                return self._tried("hold vectors", needed, lambda: self._place_flat(vectors, metric))
            case "ivf_flat" | "ivf_pq" if isinstance(index := load(), _LISTS):
                needed = _ivf_bytes(index, index.ntotal)
                return self._tried("hold lists", needed, lambda: self._place_lists(index))
            case "cagra" if self.builds_graphs and isinstance(index := load(), faiss.IndexHNSWCagra):
                needed = gpu_memory.graph_bytes(index.ntotal, index.d, degree=_degree(index))
                return self._tried("hold a graph", needed, lambda: self._place_graph(index))
            case _:
                return None

    def close(self) -> None:
        """See ``Device``."""
        for placed in list(self._placed):
            placed.release()

    def _grown(self, index: Any, vectors: Vectors, cancelled: Callable[[], bool]) -> Any:
        """A GPU index like ``index`` with the vectors in it; None where the CPU is to build."""
        if isinstance(index, faiss.IndexHNSWCagra):
            needed = gpu_memory.graph_build_bytes(*vectors.shape, degree=_degree(index))
            return self._tried("build a graph", needed, lambda: _grow_graph(index, vectors))
        if isinstance(index, _LISTS):
            needed = _ivf_bytes(index, len(vectors))
            return self._tried("fill lists", needed, lambda: _grow_lists(index, vectors, cancelled))
        return None

    def _place_flat(self, vectors: Vectors, metric: Metric) -> PlacedStructure:
        index = _flat(vectors.shape[1], FAISS_METRIC[metric])
        index.add(vectors)
        return GpuFlat(self._kept(index), self._required)

    def _place_lists(self, index: Any) -> PlacedStructure:
        return GpuIvf(self._kept(_lists(index)), index, self._required)

    def _place_graph(self, index: Any) -> PlacedStructure:
        graph = _graph(index)
        with without_gaps(index):
            graph.copyFrom(index)
        return GpuCagra(self._kept(graph), self._required)

    def _kept(self, index: Any) -> OneAtATime:
        kept = OneAtATime(index)
        self._placed.add(kept)
        return kept

    def _tried(self, purpose: str, needed: int, work: Callable[[], _T]) -> _T | None:
        """What ``work`` returns; None where the GPU has not so many bytes to spare, or fails.

        Raises OutOfMemory or BackendUnavailable instead where the recipe insists on the GPU.
        """
        try:
            with self._room_for(needed), translated():
                return work()
        except (OutOfMemory, BackendUnavailable) as error:
            if self._required:
                raise
            log.warning("work_on_cpu", device=self.name, purpose=purpose, reason=error.message)
            return None

    @contextmanager
    def _room_for(self, needed: int) -> Iterator[None]:
        """Raises OutOfMemory unless that fits beside what other threads are allocating."""
        with self._planning:
            memory = self._runtime.memory()
            if not memory.fits(needed + self._promised):
                raise OutOfMemory(
                    f"this needs {needed / 2**20:,.0f} MiB of the GPU's memory, of which "
                    f"{(memory.free - self._promised) / 2**20:,.0f} MiB are free, a reserve among them"
                )
            self._promised += needed
        try:
            yield
        finally:
            with self._planning:
                self._promised -= needed


# -- FAISS's side ------------------------------------------------------------------------------------


def _resources() -> Any:
    """Streams and scratch memory for one index, which keeps them."""
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(gpu_memory.SCRATCH_BYTES)
    # FAISS would pin 256 MiB of the CPU's memory for each, to copy more queries at once than are ever asked.
    resources.setPinnedMemory(0)
    return resources


def _configured(config: Any) -> Any:
    """FAISS's own kernels, not cuVS's, which give other results and have other limits."""
    config.device, config.use_cuvs = GPU, False
    return config


def _flat(dim: int, metric: int) -> Any:
    return faiss.GpuIndexFlat(_resources(), dim, metric, _configured(faiss.GpuIndexFlatConfig()))


def _lists(index: Any) -> Any:
    """A copy of an inverted file."""
    # Not by the constructors that take an index: FAISS's wrapper would keep that one alive.
    shape = index.d, index.nlist
    if isinstance(index, faiss.IndexIVFFlat):
        config = _configured(faiss.GpuIndexIVFFlatConfig())
        lists = faiss.GpuIndexIVFFlat(_resources(), *shape, index.metric_type, config)
    else:
        config = _configured(faiss.GpuIndexIVFPQConfig())
        config.usePrecomputedTables = False
        config.useFloat16LookupTables = index.pq.M > _LARGE_TABLE
        codes = index.pq.M, index.pq.nbits
        lists = faiss.GpuIndexIVFPQ(_resources(), *shape, *codes, index.metric_type, config)
    lists.copyFrom(index)
    return lists


def _graph(index: Any) -> Any:
    """An empty graph for the vectors of ``index``, a ``faiss.IndexHNSWCagra``, with as many links."""
    config = faiss.GpuIndexCagraConfig()
    config.device = GPU
    config.graph_degree = _degree(index)
    config.intermediate_graph_degree = 2 * _degree(index)
    config.build_algo = faiss.graph_build_algo_NN_DESCENT
    return faiss.GpuIndexCagra(_resources(), index.d, index.metric_type, config)


def _train(index: Any, sample: Vectors) -> bool:
    # FAISS only borrows these two, and must not find them once they are gone.
    compared = _flat(index.d, index.metric_type)
    pieces = _flat(index.pq.dsub, faiss.METRIC_L2) if isinstance(index, faiss.IndexIVFPQ) else None
    try:
        index.clustering_index = compared
        if pieces is not None:
            index.pq.assign_index = pieces
        index.train(sample)
    finally:
        index.clustering_index = None
        if pieces is not None:
            index.pq.assign_index = None
    return True


def _grow_graph(index: Any, vectors: Vectors) -> Any:
    graph = _graph(index)
    graph.train(vectors)
    return graph


def _grow_lists(index: Any, vectors: Vectors, cancelled: Callable[[], bool]) -> Any:
    lists = _lists(index)
    fill(lists, vectors, np.arange(len(vectors)), block=_ADD_ROWS, cancelled=cancelled)
    return lists


@contextmanager
def without_gaps(index: Any) -> Iterator[None]:
    """Give each node of a graph in memory all its neighbours, for CAGRA knows no missing ones.

    A node that was inserted has fewer; meanwhile its first one stands in for the others.
    """
    neighbours = faiss.rev_swig_ptr(index.hnsw.neighbors.data(), index.hnsw.neighbors.size())
    first = faiss.vector_to_array(index.hnsw.offsets).astype(np.int64)[:-1]
    lowest = first[:, None] + np.arange(_degree(index))
    graph = neighbours[lowest]
    rows, places = np.nonzero(graph < 0)
    gaps = lowest[rows, places]
    # One without any neighbour leads to the next, which harms nobody.
    stand_in = np.where(graph[:, 0] < 0, (np.arange(len(graph)) + 1) % len(graph), graph[:, 0])
    neighbours[gaps] = stand_in[rows]
    try:
        yield
    finally:
        neighbours[gaps] = -1


def _degree(index: Any) -> int:
    """The links of a node on the lowest layer."""
    return int(index.hnsw.nb_neighbors(0))


def _ivf_bytes(index: Any, rows: int) -> int:
    code_bytes = index.d * 4 if isinstance(index, faiss.IndexIVFFlat) else int(index.pq.M)
    return gpu_memory.ivf_bytes(rows, index.d, lists=int(index.nlist), code_bytes=code_bytes)

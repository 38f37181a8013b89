"""What every approximate index is made of: a FAISS structure, and how it is built, searched and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

import faiss
import numpy as np

from indexes.base import Metric, Neighbours, SearchParams, Vectors
from indexes.dense.manifest import Tuned
from indexes.dense.rows import Rows, RowSet
from indexes.directory import Sink
from ragstone.errors import CorruptIndex, FailedPrecondition

FAISS_METRIC: Final = {
    Metric.COSINE: faiss.METRIC_INNER_PRODUCT,
    Metric.INNER_PRODUCT: faiss.METRIC_INNER_PRODUCT,
    Metric.L2: faiss.METRIC_L2,
}
CPU: Final = "cpu"
"""The device that is always there."""
_TRAINING_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Plan:
    """How one segment answers one search: a walk of some effort, or (None) a scan of ``rows`` rows."""

    effort: int | None
    rows: int
    device: str = CPU


class FrozenIndex(Protocol):
    """An immutable index over rows 0..n-1 of one segment. Thread-safe; never blocks on I/O locks."""

    @property
    def device(self) -> str:
        """Where it answers most searches: on the CPU in the caller's thread, which else may wait."""
        ...

    def search(self, queries: Vectors, k: int, allow: RowSet | None, params: SearchParams) -> Neighbours:
        """Rows (not keys) of the best ``k`` in ``allow`` for each of ``queries`` ``(n, dim)``."""
        ...

    def plan(self, k: int, allow: RowSet | None, params: SearchParams) -> Plan:
        """What such a search will do."""
        ...


class Structure(Protocol):
    """How a FAISS index of one kind is asked. ``effort`` is its one knob: more is slower and finds more."""

    index: Any
    """A ``faiss.Index`` over rows 0..n-1, not to be changed."""
    selects: bool
    """Whether it looks at allowed rows only. Else a filter is applied to all that lies within the effort."""
    exact_scores: bool
    """Whether its distances are those of the raw vectors, bit for bit."""

    def efforts(self) -> Sequence[int]:
        """The efforts worth measuring, ascending."""
        ...

    def widened(self, effort: int, share: float) -> int:
        """The effort that finds as much when only a ``share`` of the rows counts."""
        ...

    def oversamplings(self) -> Sequence[int]:
        """How many candidates to try for each row wanted, so that the best are among them; ascending."""
        ...

    def fetched(self, effort: int, wanted: int, share: float) -> int:
        """How many rows to fetch so that ``wanted`` of them count when only a ``share`` of all rows does."""
        ...

    def parameters(self, effort: int, fetched: int, selector: Any) -> Any:
        """The ``faiss.SearchParameters`` of one search; ``selector`` may be None."""
        ...


class Builder(Protocol):
    """Builds one kind of structure, from one set of options."""

    @property
    def kind(self) -> str:
        """The kind, as manifests name it."""
        ...

    @property
    def shape(self) -> Mapping[str, int | str]:
        """The options that shape what is built: equal ones build what can be extended."""
        ...

    @property
    def most_added(self) -> float:
        """How many times its own rows are worth adding to a structure later; 0 if it is to be built anew."""
        ...

    def empty(self, vectors: Vectors, metric: Metric) -> Any:
        """A ``faiss.Index`` without rows, trained where it has to be, for the rows of ``vectors``."""
        ...

    def finish(
        self,
        index: Any,
        vectors: Vectors,
        metric: Metric,
        *,
        known: Tuned | None,
        cancelled: Callable[[], bool],
    ) -> Tuned:
        """Add the rows of ``vectors`` that ``index`` does not have yet, as its next nodes, and tune it.

        ``known`` is how it was tuned before; it stays where the new rows are too few to measure with.
        One thread, seconds to minutes. Raises FailedPrecondition soon after ``cancelled`` says so.
        """
        ...


def fill(index: Any, vectors: Vectors, rows: Rows, *, block: int, cancelled: Callable[[], bool]) -> None:
    """Add ``vectors[rows]`` as the next nodes of ``index``, ``block`` at a time, on one thread.

    Raises FailedPrecondition soon after ``cancelled`` says so.
    """
    faiss.omp_set_num_threads(1)
    for start in range(0, len(rows), block):
        if cancelled():
            raise FailedPrecondition("the index is closing")
        index.add(np.ascontiguousarray(vectors[rows[start : start + block]]))


def search_parameters(kind: Any, selector: Any, **knobs: int) -> Any:
    """``faiss.SearchParameters`` of a kind; without a selector they are shared, for FAISS only reads them."""
    return _unfiltered(kind, *knobs.items()) if selector is None else kind(sel=selector, **knobs)


@lru_cache(maxsize=256)
def _unfiltered(kind: Any, *knobs: tuple[str, int]) -> Any:
    return kind(**dict(knobs))


def training_sample(vectors: Vectors, *, least: int = 1, most: int = _TRAINING_ROWS) -> Vectors:
    """Rows spread evenly over ``vectors``, at most ``most``; fewer than ``least`` are repeated."""
    rows = np.linspace(0, len(vectors) - 1, num=max(least, min(most, len(vectors)))).astype(np.int64)
    return np.ascontiguousarray(vectors[rows])


def dump(index: Any, sink: Sink) -> None:
    """Write an index in FAISS's own format."""

    def write(data: bytes) -> int:
        sink.write(data)
        return len(data)

    faiss.write_index(index, faiss.PyCallbackIOWriter(write))


def load(path: Path, *, rows: int, dim: int, mapped: bool) -> Any:
    """The index that ``dump`` wrote: ``mapped`` from disk, or a copy in memory that can be extended.

    Raises CorruptIndex naming the file.
    """
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise CorruptIndex(f"{path.name} is not a FAISS index") from error
    if (index.ntotal, index.d) != (rows, dim):
        raise CorruptIndex(f"{path.name} is an index over other vectors")
    return index

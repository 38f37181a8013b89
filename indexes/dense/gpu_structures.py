"""How FAISS's GPU indexes are asked.

They are not safe to use from two threads, nor are the resources that they share; so each has its own, and a
lock. They take no filter here, and fetch 2,048 rows at most: ``PlacedIndex`` asks the CPU for the rest.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from indexes.base import Vectors
from indexes.dense.faiss_ivf import IvfStructure
from indexes.dense.structures import search_parameters
from ragstone.errors import BackendUnavailable, FailedPrecondition, OutOfMemory

GPU: Final = 0
"""The first visible one, by its number."""
_MOST_FETCHED: Final = 2_048
"""FAISS's kernels select no more, neither rows nor lists."""
_MOST_WALKED: Final = 512
"""One block of threads walks a graph no wider."""
_WALK_STEP: Final = 32
_WALKS: Final = (32, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512)
_MORE: Final = 1.25
_OUT_OF_MEMORY: Final = ("out of memory", "alloc fail", "bad_alloc")


@contextmanager
def translated() -> Iterator[None]:
    """FAISS's failures as RagstoneErrors: OutOfMemory, BackendUnavailable for all else."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY):
            raise OutOfMemory("the GPU's memory is exhausted") from error
        raise BackendUnavailable(f"the GPU failed: {text.rpartition('Error: ')[2]}") from error


class OneAtATime:
    """A GPU index, asked by one thread at a time; its failures are RagstoneErrors."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self._lock = threading.Lock()

    def search(
        self, queries: Vectors, k: int, *, params: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As ``faiss.Index.search``. Raises OutOfMemory, BackendUnavailable; FailedPrecondition if closed."""
        with self._lock, translated():
            if self._index is None:
                raise FailedPrecondition("the index is closed")
            found: tuple[NDArray[np.float32], NDArray[np.int64]]
            found = self._index.search(queries, k, params=params)
            return found

    def release(self) -> None:
        """Free its memory."""
        with self._lock:
            self._index = None


class _Placed:
    """What GPU structures share: no filter while they search, and no score that is the CPU's bit for bit."""

    selects = False
    exact_scores = False
    device: str = f"cuda:{GPU}"
    most: int = _MOST_FETCHED

    def __init__(self, index: OneAtATime, required: bool) -> None:
        self.index: Any = index
        self.required = required

    def oversamplings(self) -> Sequence[int]:
        """None: whole vectors are compared."""
        return (1,)

    def fetched(self, effort: int, wanted: int, share: float) -> int:
        """As if what counts lay evenly among what does not, and some more."""
        return math.ceil(_MORE * wanted / share)


class GpuFlat(_Placed):
    """Whole vectors, every one compared; there is no effort."""

    def efforts(self) -> Sequence[int]:
        """None."""
        return (1,)

    def widened(self, effort: int, share: float) -> int:
        """All rows are seen anyway."""
        return effort

    def parameters(self, effort: int, fetched: int, selector: Any) -> Any:
        """None."""
        return None


class GpuIvf(_Placed):
    """An inverted file like ``of``, a FAISS index of the CPU; the effort is ``nprobe``."""

    def __init__(self, index: OneAtATime, of: Any, required: bool) -> None:
        super().__init__(index, required)
        on_cpu = IvfStructure(of)
        self._efforts = tuple(effort for effort in on_cpu.efforts() if effort <= _MOST_FETCHED)
        self._lists = min(int(of.nlist), _MOST_FETCHED)
        self._oversamplings = on_cpu.oversamplings()

    def efforts(self) -> Sequence[int]:
        """Up to all lists, or as many as can be selected."""
        return self._efforts

    def widened(self, effort: int, share: float) -> int:
        """As many rows that count as without a filter."""
        return min(self._lists, math.ceil(effort / share))

    def oversamplings(self) -> Sequence[int]:
        """As on the CPU."""
        return self._oversamplings

    def parameters(self, effort: int, fetched: int, selector: Any) -> Any:
        """So many lists, nearest first."""
        return search_parameters(faiss.SearchParametersIVF, None, nprobe=min(effort, self._lists))


class GpuCagra(_Placed):
    """A graph; the effort is ``itopk_size``, how many of the nearest nodes a walk remembers."""

    most = _MOST_WALKED

    def efforts(self) -> Sequence[int]:
        """As many as one block of threads remembers, a multiple of a warp."""
        return _WALKS

    def widened(self, effort: int, share: float) -> int:
        """Forbidden rows are remembered too."""
        return math.ceil(effort / share)

    def fetched(self, effort: int, wanted: int, share: float) -> int:
        """All that is remembered."""
        return max(effort, wanted)

    def parameters(self, effort: int, fetched: int, selector: Any) -> Any:
        """A walk at least as wide as it has to be, in whole steps."""
        width = min(-(-max(effort, fetched) // _WALK_STEP) * _WALK_STEP, _MOST_WALKED)
        return search_parameters(faiss.SearchParametersCagra, None, itopk_size=width)

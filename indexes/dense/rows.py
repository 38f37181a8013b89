"""Sets of rows: what tombstones leave, and what a filter allows."""

from __future__ import annotations

from collections import deque
from functools import cached_property
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import faiss
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64

from indexes.base import Keys
from indexes.dense.coalescing import Pace

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]

_REMEMBERED: Final = 16


class RowSet:
    """Some of the rows of a segment, in every form that a search may want; each is made on first use."""

    def __init__(self, mask: Mask) -> None:
        self.mask: Final = mask
        """``(rows,)``, not to be changed."""

    @cached_property
    def count(self) -> int:
        """How many rows are in it."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def rows(self) -> Rows:
        """The rows in it, ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def selector(self) -> Any:
        """The set as FAISS asks it, bit by bit."""
        # FAISS keeps a pointer to the bits, and its Python wrapper a reference to their array.
        return faiss.IDSelectorBitmap(np.packbits(self.mask, bitorder="little"))


class Holder(Protocol):
    """A piece of an index that knows which of its rows live under given keys."""

    def allowed(self, keys: Keys) -> RowSet:
        """The live rows whose key is in ``keys``, which ascend."""
        ...


class Allowed:
    """The keys that a filter allows, and what they are in each piece of the index that was asked so far."""

    def __init__(self, bitmap: BitMap64) -> None:
        self._bitmap = bitmap
        self.pace: Final = Pace()
        """Of searches under this filter."""
        self._sets: WeakKeyDictionary[Holder, RowSet] = WeakKeyDictionary()

    @cached_property
    def _keys(self) -> Keys:
        return np.asarray(self._bitmap.to_array(), dtype=np.uint64).astype(np.int64)

    def within(self, piece: Holder) -> RowSet:
        """The live rows of ``piece`` that are allowed."""
        # Two threads may both make a set: either is right.
        found = self._sets.get(piece)
        if found is None:
            found = self._sets[piece] = piece.allowed(self._keys)
        return found


class Filters:
    """The last few filters: one that is asked again, by whomever, is not translated again."""

    def __init__(self) -> None:
        self._recent: deque[tuple[BitMap64, Allowed]] = deque(maxlen=_REMEMBERED)

    def of(self, bitmap: BitMap64) -> Allowed:
        """The allowed keys of ``bitmap``."""
        for known, allowed in self._recent:
            if known == bitmap:
                return allowed
        # The caller may go on changing its own.
        kept = bitmap.copy()
        allowed = Allowed(kept)
        self._recent.append((kept, allowed))
        return allowed

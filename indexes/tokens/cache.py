"""Passages that were asked for lately, unpacked.

Reading one from LMDB gives the interpreter up twice. Beside threads that compute in Python each time costs up
to half a millisecond until it comes back, and a search asks for fifty.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

from cachetools import LRUCache

from indexes.tokens.compression import Packed


class PassageCache:
    """Packed vectors by key, bounded by their bytes. Safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._passages: LRUCache[int, Packed] = LRUCache(max_bytes, getsizeof=_size)
        self._lock = threading.Lock()
        self._generation = 0

    @property
    def generation(self) -> int:
        """Grows whenever something is forgotten: take it before reading what is to be ``put``."""
        return self._generation

    def get(self, keys: Collection[int]) -> dict[int, Packed]:
        """Those of ``keys`` that are here."""
        with self._lock:
            return {key: found for key in keys if (found := self._passages.get(key)) is not None}

    def put(self, passages: Mapping[int, Packed], generation: int) -> None:
        """Keep ``passages``, unless something was forgotten since ``generation``: it may be one of them."""
        with self._lock:
            if generation == self._generation:
                for key, packed in passages.items():
                    if _size(packed) <= self._passages.maxsize:
                        self._passages[key] = packed

    def forget(self, keys: Collection[int]) -> None:
        """Keep ``keys`` no longer: what was stored of them has changed."""
        with self._lock:
            self._generation += 1
            for key in keys:
                self._passages.pop(key, None)


def _size(packed: Packed) -> int:
    return 256 + packed.codes.nbytes + packed.scales.nbytes

"""How many passages have a token: rare ones tell more about what a query means. Immutable.

The weight of a token is its inverse document frequency as BM25 has it: ``ln(1 + (N - n + 0.5) / (n + 0.5))``
for a token that n of N passages have (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework").
The marks that a model puts around every text weigh next to nothing so. Deleted passages stay counted.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexes.base import Keys

_PASSAGES: Final = struct.Struct("<q")


class Frequencies:
    """Passages counted, and how many of them have each token."""

    def __init__(self, passages: int = 0, counts: Mapping[int, int] = MappingProxyType({})) -> None:
        self._passages = passages
        self._counts = counts

    def plus(self, passages: Sequence[Keys]) -> Frequencies:
        """With more passages, given by the ids ``(length,)`` of their tokens."""
        if not passages:
            return self
        counts = Counter(self._counts)
        for ids in passages:
            counts.update(np.unique(ids).tolist())
        return Frequencies(self._passages + len(passages), counts)

    def weights(self, ids: Keys) -> NDArray[np.float32]:
        """Float32 ``(len(ids),)`` with a sum of 1, for a query's tokens."""
        having = np.array([self._counts.get(int(token), 0) for token in ids], dtype=np.float64)
        weights = np.log1p((self._passages - having + 0.5) / (having + 0.5))
        shares: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
        return shares

    def dump(self) -> bytes:
        """As bytes that ``load`` reads: int64, little-endian."""
        ids = np.fromiter(self._counts.keys(), "<i8", len(self._counts))
        counts = np.fromiter(self._counts.values(), "<i8", len(self._counts))
        return _PASSAGES.pack(self._passages) + ids.tobytes() + counts.tobytes()

    @classmethod
    def load(cls, data: bytes) -> Frequencies:
        """What ``dump`` has written."""
        ids, counts = np.frombuffer(data, "<i8", offset=_PASSAGES.size).reshape(2, -1)
        return cls(_PASSAGES.unpack_from(data)[0], dict(zip(ids.tolist(), counts.tolist(), strict=True)))

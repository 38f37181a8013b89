"""What indexes in Qdrant have in common, pure: how keys are points, filters, scores and the order of hits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64

from indexes.base import Keys, Metric, Neighbours, SearchParams, VectorBatch, Vectors
from indexes.dense.qdrant.options import GraphOptions
from ragstone.errors import CorruptIndex

POSITION: Final = 2**63
"""The point that holds the position; a key is smaller. It has no vector, so no search finds it."""
SEQ: Final = "seq"
"""Its payload."""
PAGE: Final = 10_000
"""Points that are listed at once."""

DISTANCES: Final[Mapping[Metric, str]] = {
    Metric.COSINE: "Cosine",
    Metric.INNER_PRODUCT: "Dot",
    Metric.L2: "Euclid",
}
"""Qdrant's names."""

_SPARE_HITS: Final = 8

Hits: TypeAlias = tuple[Sequence[int], Sequence[float]]
"""Ids and Qdrant's scores, best first."""


@dataclass(frozen=True, slots=True)
class Among:
    """What a search compares with: the points ``ids``, or all but those, or all where it is None.

    ``wanted`` are the keys that may be found. Qdrant may have others for a while: those that are being added.
    """

    wanted: BitMap64
    ids: BitMap64 | None = None
    all_but: bool = False

    @classmethod
    def of(cls, live: BitMap64, allow: BitMap64 | None) -> Among:
        """The shorter list of what is allowed and what is not."""
        if allow is None:
            return cls(live)
        wanted = live & allow
        refused = len(live) - len(wanted)
        if not refused:
            return cls(live)
        if len(wanted) <= refused:
            return cls(wanted, wanted)
        return cls(wanted, live - wanted, all_but=True)

    def __str__(self) -> str:
        if self.ids is None:
            return f"all {len(self.wanted):,} points"
        if self.all_but:
            return f"all points but {len(self.ids):,} by id"
        return f"{len(self.ids):,} points by id"


@dataclass(frozen=True, slots=True)
class Walk:
    """How a search looks for neighbours. ``ef`` None leaves the width to Qdrant."""

    exact: bool
    ef: int | None
    rescore: bool
    oversampling: float
    quantised: bool

    @classmethod
    def of(cls, options: GraphOptions, params: SearchParams | None) -> Walk:
        """As the caller wants it, else as the recipe does."""
        params = params or SearchParams()
        return cls(
            exact=params.exact,
            ef=params.effort or options.ef_search,
            rescore=options.rescore,
            oversampling=options.oversampling,
            quantised=options.quantization != "none" and not params.exact,
        )

    def __str__(self) -> str:
        if self.exact:
            return "compares with each vector"
        width = "" if self.ef is None else f", {self.ef} wide"
        again = " and scored again" if self.quantised and self.rescore else ""
        return f"walks Qdrant's graph{width}{', over quantised vectors' if self.quantised else ''}{again}"


class Ranking:
    """The answers to some queries: by score, then by key.

    Qdrant breaks ties as it likes, and may have points that are not wanted yet; so more than ``k`` are
    fetched, twice as many each time, until the last one fetched is surely beyond the last one wanted. Ids
    cost about as much to send as hits to receive: hits are filtered here while that is less to move.

    Ask for ``limit`` hits ``among`` points for each of the rows ``open``, hand them to ``take``, and again
    until none is open.
    """

    def __init__(self, queries: int, k: int, metric: Metric, live: BitMap64, allow: BitMap64 | None) -> None:
        self._k = max(k, 0)
        self._metric = metric
        self._filtered = Among.of(live, allow)
        self._wanted = wanted = self._filtered.wanted
        self._keys = np.full((queries, self._k), -1, dtype=np.int64)
        self._scores = np.full((queries, self._k), -np.inf, dtype=np.float32)
        self.open = list(range(queries)) if self._k and wanted else []
        self.limit = limit = self._k + _SPARE_HITS
        self.among = self._filtered
        if (ids := self._filtered.ids) is not None and wanted:
            expected = math.ceil(limit * len(live) / len(wanted))
            if expected <= len(ids):
                self.among, self.limit = Among(wanted), expected

    def __str__(self) -> str:
        if self.among is self._filtered:
            return f"among {self.among}"
        return f"filters the best {self.limit:,} of all points, then more, then {self._filtered}"

    def take(self, found: Sequence[Hits]) -> None:
        """The hits of each open row."""
        self.open = [row for row, hits in zip(self.open, found, strict=True) if not self._settle(row, hits)]
        self.limit *= 2
        if self._filtered.ids is not None and self.limit > len(self._filtered.ids):
            self.among = self._filtered

    def neighbours(self) -> Neighbours:
        """The answers."""
        return Neighbours(self._keys, self._scores)

    def _settle(self, row: int, hits: Hits) -> bool:
        """Write the answer of a row down, if it is sure."""
        ids, raw = hits
        everything = scores_of(raw, self._metric)
        wanted = np.fromiter((key in self._wanted for key in ids), np.bool_, len(ids))
        keys, scores = np.array(ids, np.uint64).astype(np.int64)[wanted], everything[wanted]
        order = np.lexsort((keys, -scores))[: self._k]
        full = len(order) == self._k
        if len(ids) >= self.limit and not (full and everything[-1] < scores[order[-1]]):
            return False
        self._keys[row, : len(order)] = keys[order]
        self._scores[row, : len(order)] = scores[order]
        return True


def scores_of(raw: Sequence[float], metric: Metric) -> NDArray[np.float32]:
    """Qdrant's scores as those that ``metric`` promises: its distances are neither squared nor negated."""
    if metric is Metric.L2:
        return (-(np.array(raw, np.float64) ** 2)).astype(np.float32)
    return np.array(raw, np.float32)


def batches(batch: VectorBatch, size: int) -> Iterator[tuple[Keys, Vectors]]:
    """What a batch adds, in pieces of at most ``size``."""
    for start in range(0, len(batch.keys), size):
        yield batch.keys[start : start + size], batch.vectors[start : start + size]


def leaving(batch: VectorBatch) -> Keys:
    """What a batch takes away: a key that it brings again stays."""
    return np.setdiff1d(batch.deleted, batch.keys)


def after(live: BitMap64, batch: VectorBatch) -> BitMap64:
    """The keys that are there after a batch."""
    return (live - BitMap64(batch.deleted.tolist())) | BitMap64(batch.keys.tolist())


def seq_of(payload: Mapping[str, object] | None) -> int:
    """The position that its point holds. Raises CorruptIndex for a point that holds none."""
    seq = (payload or {}).get(SEQ)
    if not isinstance(seq, int):
        raise CorruptIndex("the point that holds the position of the index holds something else")
    return seq

"""The local index as a side of a measurement, and how all sides are filled, timed and compared."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Final, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64

from benchmarks import report
from benchmarks.ann_peers import BASE, Found, K, Peer, RawFaiss, Side
from benchmarks.texts import DIM, PROGRESS
from benchmarks.vectors import QUERIES, real
from indexes.base import Compactable, Keys, Metric, VectorBatch, VectorIndex, Vectors
from indexes.directory import LocalDirectory
from indexes.registry import open_dense
from ragstone.errors import InvalidArgument

BATCH_ROWS: Final = 1_000
_CHECKPOINT_S: Final = 30.0
"""As often as the service makes an index durable."""

Rates = NDArray[np.float64]
"""Queries a second, one figure a round."""

_WIDTHS: Final = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 384, 512, 1_024)

_Name = TypeVar("_Name")
_T = TypeVar("_T")
_SideT = TypeVar("_SideT", bound=Side)
_PeerT = TypeVar("_PeerT", bound=Peer)


@dataclass(frozen=True, slots=True)
class Spec:
    """A kind of local index, and its options."""

    kind: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Built(Generic[_SideT]):
    """A side that holds its rows; how long that took, and what it takes on the disk."""

    side: _SideT
    seconds: float
    bytes: int


@dataclass(frozen=True, eq=False)
class Local:
    """The local index through its protocol; ``allow`` are the only keys that count."""

    index: VectorIndex
    allow: BitMap64 | None = None

    def among(self, allowed: Keys) -> Self:
        """The same index, where only the keys ``allowed`` count."""
        return replace(self, allow=BitMap64(allowed.tolist()))

    async def search(self, queries: Vectors) -> Keys:
        """See ``Side``. A filter is a new bitmap each time, as it is in the service."""
        allow = None if self.allow is None else self.allow.copy()
        return (await self.index.search(queries, K, allow=allow)).keys


class Bench:
    """The vectors of one part, and the sides that it builds over them. Lives for an ``async with`` block."""

    def __init__(self, options: argparse.Namespace, *, queries: int = QUERIES) -> None:
        rows, asked = real(options.rows)
        self.rows, self.queries = rows, asked[:queries]
        self.rounds: Final[int] = options.rounds
        self._stack = AsyncExitStack()
        self._folder = Path()

    async def __aenter__(self) -> Self:
        prefix = "ragstone-bench-"
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._stack.aclose()

    @cached_property
    def truth(self) -> Keys:
        """The true ``K`` of each query among all rows, ``(queries, K)``."""
        return self.truth_among(np.arange(len(self.rows)))

    def truth_among(self, keys: Keys) -> Keys:
        """The true ``K`` of each query among the rows ``keys``; fewer columns where there are fewer."""
        PROGRESS.print(f"Comparing every query with {len(keys):,} rows")
        return keys[report.exact(self.rows[keys], self.queries, K)]

    async def local(self, name: str, spec: Spec, rows: int | None = None) -> Built[Local] | None:
        """An index over the first ``rows`` (all, if not said); None where there is no such kind or option."""
        PROGRESS.print(f"Building {name}")
        folder = self._folder / name
        if (index := await open_local(spec, folder)) is None:
            return None
        self._stack.push_async_callback(index.close)
        seconds = await fill(index, [(0, self.rows[:rows])])
        return Built(Local(index), seconds, disk_bytes(folder))

    def raw(self, rows: int | None = None) -> Built[RawFaiss]:
        """What the others are compared with, over the first ``rows`` (all, if not said)."""
        return self._filled(BASE, RawFaiss.create(self._folder / BASE, len(self.rows)), rows)

    def peer(self, name: str, kind: type[_PeerT], rows: int | None = None) -> Built[_PeerT] | None:
        """A peer over the first ``rows`` (all, if not said); None where its library is not installed."""
        peer = self.empty(name, kind)
        return None if peer is None else self._filled(name, peer, rows)

    def empty(self, name: str, kind: type[_PeerT]) -> _PeerT | None:
        """A peer with room for all rows, still without any; None where its library is not installed."""
        return create_peer(kind, self._folder / name, len(self.rows))

    def _filled(self, name: str, peer: _PeerT, rows: int | None) -> Built[_PeerT]:
        PROGRESS.print(f"Building {name}")
        seconds = fill_peer(peer, [(0, self.rows[:rows])])
        return Built(peer, seconds, disk_bytes(self._folder / name))

    async def recall(self, side: Side) -> float:
        """Recall on the unseen queries, asked one at a time."""
        return recall(self.truth, await ask_all(side, self.queries))

    async def at_recall(self, peer: Peer, target: float) -> tuple[Peer, int, float]:
        """The peer at the width whose recall comes nearest to ``target``; the width, and the recall."""
        recalls: dict[int, float] = {}
        for ef in _WIDTHS:
            recalls[ef] = await self.recall(peer.wide(ef))
            if recalls[ef] >= target:
                break
        ef = min(recalls, key=lambda width: abs(recalls[width] - target))
        return peer.wide(ef), ef, recalls[ef]


async def open_local(spec: Spec, folder: Path) -> VectorIndex | None:
    """An index of the registry; None where it knows no such kind or option."""
    try:
        return await open_dense(
            spec.kind, directory=LocalDirectory(folder), dim=DIM, metric=Metric.COSINE, options=spec.options
        )
    except InvalidArgument as error:
        PROGRESS.print(f"{spec.kind} {dict(spec.options)} is not available: {error.message}")
        return None


def create_peer(kind: type[_PeerT], folder: Path, rows: int) -> _PeerT | None:
    """An empty peer; None where its library is not installed."""
    try:
        return kind.create(folder, rows)
    except ImportError as error:
        PROGRESS.print(f"{kind.__name__} is not available: {error}")
        return None


async def fill(index: VectorIndex, blocks: Iterable[tuple[int, Vectors]]) -> float:
    """Seconds from the first row until all are applied, compacted and durable. Keys are row numbers."""
    started = checkpointed = time.perf_counter()
    for keys, vectors in _batches(blocks):
        await index.apply(VectorBatch(keys, vectors, keys[:0]), seq=int(keys[-1]) + 1)
        if time.perf_counter() - checkpointed > _CHECKPOINT_S:
            await index.checkpoint()
            checkpointed = time.perf_counter()
    if isinstance(index, Compactable):
        await index.compact()
    await index.checkpoint()
    return time.perf_counter() - started


def add_all(peer: Peer, blocks: Iterable[tuple[int, Vectors]]) -> None:
    """Add rows under their numbers."""
    for keys, vectors in _batches(blocks):
        peer.add(keys, vectors)


def fill_peer(peer: Peer, blocks: Iterable[tuple[int, Vectors]]) -> float:
    """Seconds from the first row until all are added, built and in the folder."""
    started = time.perf_counter()
    add_all(peer, blocks)
    peer.finish()
    return time.perf_counter() - started


def _batches(blocks: Iterable[tuple[int, Vectors]]) -> Iterator[tuple[Keys, Vectors]]:
    for first, block in blocks:
        for start in range(0, len(block), BATCH_ROWS):
            vectors = block[start : start + BATCH_ROWS]
            yield np.arange(first + start, first + start + len(vectors)), vectors


def disk_bytes(folder: Path) -> int:
    """What the files in ``folder`` take on the disk; holes in them take nothing."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file())


async def ask_all(side: Side, queries: Vectors) -> list[Sequence[int]]:
    """What ``side`` finds, one query at a time."""
    return [(await side.search(queries[row : row + 1]))[0] for row in range(len(queries))]


def recall(truth: Keys, found: Found) -> float:
    """The share of the true neighbours ``(queries, k)`` that was found."""
    pairs = zip(truth.tolist(), found, strict=True)
    return sum(len({*wanted} & {int(key) for key in keys}) for wanted, keys in pairs) / truth.size


async def rates(
    sides: Mapping[_Name, Side], queries: Vectors, *, batch: int, rounds: int
) -> dict[_Name, Rates]:
    """Queries a second of each side in each of ``rounds``, asked in batches by one caller.

    Sides take turns within a round, forwards and backwards, and all are asked the same queries: each once,
    in an order of its own for every round.
    """
    found: dict[_Name, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = np.random.default_rng(number).permutation(len(queries))
        blocks = [queries[order[start : start + batch]] for start in range(0, len(order) - batch + 1, batch)]
        for name in list(sides)[:: -1 if number % 2 else 1]:
            started = time.perf_counter()
            for block in blocks:
                await sides[name].search(block)
            found[name].append(batch * len(blocks) / (time.perf_counter() - started))
        PROGRESS.print(f"round {number + 1}/{rounds}, batches of {batch}")
    return {name: np.asarray(values) for name, values in found.items()}


def ratio(ours: Rates, theirs: Rates) -> float:
    """Ours to theirs in the same round, the median over all rounds."""
    return float(median(ours / theirs))


def present(built: Mapping[_Name, _T | None]) -> dict[_Name, _T]:
    """Those that there are."""
    return {name: one for name, one in built.items() if one is not None}


def show(
    title: str,
    header: Sequence[str],
    wanted: Iterable[str],
    figures: Mapping[str, _T],
    cells: Callable[[_T], Sequence[str]],
    *,
    quiet: bool,
) -> None:
    """One table: a row for each of ``wanted``; what has no ``figures`` is not available."""
    rows = [(name, *(cells(figures[name]) if name in figures else ("not available",))) for name in wanted]
    report.show(title, header, rows, quiet=quiet)


async def settled(index: VectorIndex, *, quiet_s: float = 5.0, poll_s: float = 0.25) -> None:
    """Wait until the index has left its segments alone for ``quiet_s``: its upkeep has nothing more to do."""
    since, before = time.perf_counter(), None
    while time.perf_counter() - since < quiet_s:
        await asyncio.sleep(poll_s)
        stats = index.stats()
        now = (stats.segments, stats.pending, stats.deleted)
        if now != before or stats.details.get("merging"):
            since, before = time.perf_counter(), now

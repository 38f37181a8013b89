"""Filtered search: what a filter leaves is found, however few or crowded the rows are that it allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from pyroaring import BitMap64

from indexes.base import Metric, Neighbours, SearchParams, Vectors
from indexes.conformance import DIM, batch_of, clustered, recall_of, removal_of, true_neighbours
from indexes.dense.opening import open_index
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import LocalDirectory

if TYPE_CHECKING:
    from tests.indexes.dense.conftest import SetCosts

ROWS: Final = 12_000
"""A third of which is deleted."""
VECTORS: Final = clustered(ROWS)
LIVE: Final = np.flatnonzero(np.arange(ROWS) % 3 != 1)
QUERIES: Final = clustered(40, seed=6)
EXACT: Final = SearchParams(exact=True)
KINDS: Final = ("hnsw", "ivf_flat", "ivf_pq")
SCAN_US: Final = {"small": 0.005, "large": 0.5}
"""To compare with one row. At the larger price these rows are as dear to scan as a million are."""

Order = Callable[[], NDArray[np.int64]]
PATTERNS: Final[dict[str, Order]] = {
    "random": lambda: np.random.default_rng(5).permutation(LIVE),
    "clustered": lambda: LIVE[np.argsort(((VECTORS[LIVE] - VECTORS[78]) ** 2).sum(axis=1))],
}
"""Which rows a filter allows first."""


async def opened(kind: str, folder: Path) -> SegmentedIndex:
    return await open_index(
        kind,
        directory=LocalDirectory(folder),
        dim=DIM,
        metric=Metric.COSINE,
        options={},
        limits=UpkeepLimits(freeze_at=10**9, idle_s=10**6),
    )


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An index of each kind, built once for all filters."""

    async def fill(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        index = await opened(kind, folder)
        await index.apply(batch_of(VECTORS), seq=1)
        await index.compact()
        await index.apply(removal_of(*range(1, ROWS, 3)), seq=2)
        await index.checkpoint()
        await index.close()
        return folder

    return {kind: asyncio.run(fill(kind)) for kind in KINDS}


@pytest.fixture(params=SCAN_US)
def scan_us(request: pytest.FixtureRequest) -> float:
    return SCAN_US[request.param]


@pytest.fixture(params=KINDS)
async def filled(
    request: pytest.FixtureRequest, folders: dict[str, Path], set_costs: SetCosts, scan_us: float
) -> AsyncIterator[SegmentedIndex]:
    """The index of one kind, at one price of scans."""
    folder = folders[request.param]
    set_costs(LocalDirectory(folder), scan_us=scan_us)
    index = await opened(request.param, folder)
    yield index
    await index.close()


async def one_by_one(
    index: SegmentedIndex, queries: Vectors, k: int, allow: BitMap64 | None = None
) -> Neighbours:
    """What callers find that ask at different times."""
    found = [await index.search(queries[i : i + 1], k, allow=allow) for i in range(len(queries))]
    return Neighbours(
        np.concatenate([one.keys for one in found]), np.concatenate([one.scores for one in found])
    )


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("pattern", PATTERNS)
async def test_a_filter_keeps_recall(share: float, pattern: str, filled: SegmentedIndex) -> None:
    allow = BitMap64(PATTERNS[pattern]()[: int(share * len(LIVE))].tolist())
    found = await one_by_one(filled, QUERIES, 10, allow)
    exact = await filled.search(QUERIES, 10, allow=allow, params=EXACT)
    assert recall_of(found, list(exact.keys)) >= 0.95
    assert (found.keys >= 0).sum() == (exact.keys >= 0).sum()
    assert all(key in allow for key in found.keys[found.keys >= 0].tolist())


@pytest.mark.parametrize("filled", ["hnsw", "ivf_flat"], indirect=True)
@pytest.mark.parametrize("pattern", PATTERNS)
async def test_an_answer_does_not_depend_on_what_is_asked_beside(
    pattern: str, filled: SegmentedIndex
) -> None:
    allow = BitMap64(PATTERNS[pattern]()[: len(LIVE) // 10].tolist())
    together = await filled.search(QUERIES, 10, allow=allow)
    alone = await one_by_one(filled, QUERIES, 10, allow)
    assert together.keys.tolist() == alone.keys.tolist()
    assert together.scores.tolist() == alone.scores.tolist()


async def test_an_index_with_many_dead_rows_finds_the_live_ones(filled: SegmentedIndex) -> None:
    found = await one_by_one(filled, QUERIES, 10)
    exact = await filled.search(QUERIES, 10, params=EXACT)
    assert filled.stats().deleted == ROWS - len(LIVE)
    assert recall_of(found, list(exact.keys)) >= 0.95
    assert np.isin(found.keys, LIVE).all()


async def test_the_truth_of_an_index_is_that_of_brute_force(filled: SegmentedIndex) -> None:
    found = await filled.search(QUERIES[:1], 10, params=EXACT)
    live = {key: VECTORS[key] for key in LIVE.tolist()}
    assert found.keys[0].tolist() == true_neighbours(live, QUERIES[0], 10, Metric.COSINE).tolist()


@pytest.mark.parametrize("filled", KINDS, indirect=True)
@pytest.mark.parametrize("scan_us", ["small"], indirect=True)
async def test_few_rows_are_scanned_and_many_walked(filled: SegmentedIndex) -> None:
    assert filled.explain(10, allow=BitMap64(LIVE[:100].tolist())).endswith("scans 100 rows")
    assert " walks with effort " in filled.explain(10)
    assert filled.explain(10, params=EXACT).endswith(f"scans {len(LIVE)} rows")

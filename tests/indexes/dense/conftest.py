"""What the tests of the local dense index share: where its files lie, and how it is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

import pytest

from indexes.base import Metric
from indexes.conformance import DIM
from indexes.dense.manifest import Tuning, read_manifest, write_manifest
from indexes.dense.opening import open_index
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import Directory, LocalDirectory

MEMORY: Final = Path("/dev/shm")
BY_HAND: Final = UpkeepLimits(freeze_at=10**9, idle_s=10**6)
"""Nothing is frozen unless the test says so."""


class Open(Protocol):
    """Opens the test's index; all that a test opened are closed after it."""

    async def __call__(
        self,
        kind: str,
        limits: UpkeepLimits = BY_HAND,
        metric: Metric = Metric.COSINE,
        *,
        dim: int = DIM,
        folder: str = "index",
        **options: object,
    ) -> SegmentedIndex: ...


class SetCosts(Protocol):
    """Rewrites the times in a manifest, so that searches are planned alike on every machine."""

    def __call__(self, directory: Directory, *, scan_us: float) -> None: ...


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: these tests sync thousands of files, and need no disk for it."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(prefix="ragstone-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the index in ``tmp_path / folder``."""
    made: list[SegmentedIndex] = []

    async def opened(
        kind: str,
        limits: UpkeepLimits = BY_HAND,
        metric: Metric = Metric.COSINE,
        *,
        dim: int = DIM,
        folder: str = "index",
        **options: object,
    ) -> SegmentedIndex:
        directory = LocalDirectory(tmp_path / folder)
        made.append(
            await open_index(
                kind, directory=directory, dim=dim, metric=metric, options=options, limits=limits
            )
        )
        return made[-1]

    yield opened
    for index in made:
        await index.close()


@pytest.fixture(scope="session")
def set_costs() -> SetCosts:
    """Says how long it took to compare with one row; a walk took 5 us, and 0.15 us for each effort."""

    def timed(tuning: Tuning, scan_us: float) -> Tuning:
        curve = tuple(point.model_copy(update={"us": 5 + 0.15 * point.effort}) for point in tuning.curve)
        return tuning.model_copy(update={"scan_us": scan_us, "curve": curve})

    def set_costs(directory: Directory, *, scan_us: float) -> None:
        manifest = read_manifest(directory)
        assert manifest is not None
        segments = tuple(
            entry.model_copy(update={"tuning": entry.tuning and timed(entry.tuning, scan_us)})
            for entry in manifest.segments
        )
        write_manifest(directory, manifest.model_copy(update={"segments": segments}))

    return set_costs

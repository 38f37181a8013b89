"""What older programs left on disks: every format that can be read, in files made once and for all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from pyroaring import BitMap64

from indexes.base import Metric, SearchParams
from indexes.conformance import batch_of, clustered, recall_of
from indexes.dense.manifest import FORMAT
from indexes.dense.opening import open_index
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import Directory, LocalDirectory

if TYPE_CHECKING:
    from tests.indexes.dense.conftest import SetCosts

GOLDEN: Final = Path(__file__).parent / "golden"
INDEXES: Final = sorted(GOLDEN.glob("format_*/*/"))
EXACT: Final = SearchParams(exact=True)
WIDE: Final = SearchParams(effort=200)
BY_HAND: Final = UpkeepLimits(freeze_at=10**9, idle_s=10**6)


@pytest.fixture(params=INDEXES, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Directory, dict[str, Any]]:
    """A copy of an index, its files newer than its manifest says, and what is expected of it."""
    folder: Path = request.param
    shutil.copytree(folder, tmp_path / "index", copy_function=shutil.copyfile)
    expected = json.loads((folder.parent / "expected.json").read_text())
    queries = np.array(expected["queries"], np.float32)
    return LocalDirectory(tmp_path / "index"), {
        **expected["indexes"][folder.name],
        "dim": expected["dim"],
        "queries": queries,
    }


async def opened(directory: Directory, expected: dict[str, Any]) -> SegmentedIndex:
    return await open_index(
        expected["kind"],
        directory=directory,
        dim=expected["dim"],
        metric=Metric(expected["metric"]),
        options=expected["options"],
        limits=BY_HAND,
    )


def test_the_format_that_is_written_now_has_golden_files() -> None:
    assert GOLDEN / f"format_{FORMAT}" in {folder.parent for folder in INDEXES}


async def test_an_old_index_answers_as_it_did(golden: tuple[Directory, dict[str, Any]]) -> None:
    directory, expected = golden
    index = await opened(directory, expected)
    found = await index.search(expected["queries"], 10, params=EXACT)
    stats = index.stats()
    assert found.keys.tolist() == expected["neighbours"]
    assert index.applied_seq == expected["applied_seq"]
    assert (stats.live, stats.deleted) == (expected["live"], expected["deleted"])
    assert sorted(segment["kind"] for segment in stats.details["segments"]) == expected["segments"]
    await index.close()


async def test_the_structures_of_an_old_index_are_walked(
    golden: tuple[Directory, dict[str, Any]], set_costs: SetCosts
) -> None:
    directory, expected = golden
    set_costs(directory, scan_us=1e9)
    index = await opened(directory, expected)
    walks = index.explain(10, params=WIDE).count(" walks ")
    assert walks == sum(kind not in ("raw", "flat") for kind in expected["segments"])
    found = await index.search(expected["queries"], 10, params=WIDE)
    assert recall_of(found, [np.array(row) for row in expected["neighbours"]]) >= 0.9
    await index.close()


async def test_an_old_index_is_written_on(golden: tuple[Directory, dict[str, Any]]) -> None:
    directory, expected = golden
    index = await opened(directory, expected)
    new = clustered(50, seed=3)
    await index.apply(batch_of(new, first=9_000), seq=expected["applied_seq"] + 1)
    await index.compact()
    await index.close()
    index = await opened(directory, expected)
    assert index.stats().live == expected["live"] + len(new)
    found = await index.search(expected["queries"], 10, allow=BitMap64(range(9_000)), params=EXACT)
    assert found.keys.tolist() == expected["neighbours"]
    await index.close()

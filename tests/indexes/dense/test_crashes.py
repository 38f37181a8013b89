"""The disk dies at every single write: the state before or the state that was being written answers fully."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import pytest

from indexes.base import Metric, SearchParams, VectorIndex
from indexes.conformance import DIM, batch_of, clustered, removal_of
from indexes.dense.opening import open_index
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import Directory, FaultyDirectory, LocalDirectory
from ragstone.errors import BackendUnavailable

BY_HAND: Final = UpkeepLimits(freeze_at=10**9, idle_s=10**6)
VECTORS: Final = clustered(60)
Recipe: TypeAlias = tuple[str, dict[str, object]]
Step: TypeAlias = Callable[[SegmentedIndex], Awaitable[object]]
RECIPES: Final[dict[str, Recipe]] = {
    "hnsw": ("hnsw", {"m": 8, "ef_construction": 16}),
    "hnsw-sharded": ("hnsw", {"m": 8, "ef_construction": 16, "shards": 2}),
    "ivf-pq": ("ivf_pq", {}),
}
STEPS: Final[dict[str, Step]] = {
    "checkpoint": lambda index: index.checkpoint(),
    "compact": lambda index: index.compact(),
}
STATES: Final = {
    2: [key for key in range(40) if key != 3],
    4: [key for key in range(60) if key not in (3, 4, 25)],
}


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


@pytest.fixture
async def durable(recipe: Recipe, tmp_path: Path) -> Path:
    """Position 2, in two segments of each shard."""
    index = await opened(recipe, LocalDirectory(tmp_path / "durable"))
    await index.apply(batch_of(VECTORS[:20]), seq=1)
    await index.compact()
    await index.apply(batch_of(VECTORS[20:40], first=20, deleted=np.array([3])), seq=2)
    await index.checkpoint()
    await index.close()
    return tmp_path / "durable"


async def opened(recipe: Recipe, directory: Directory) -> SegmentedIndex:
    kind, options = recipe
    return await open_index(
        kind, directory=directory, dim=DIM, metric=Metric.COSINE, options=options, limits=BY_HAND
    )


async def apply_the_rest(index: SegmentedIndex) -> None:
    """To position 4; what is applied already changes nothing."""
    await index.apply(removal_of(4, 25), seq=3)
    await index.apply(batch_of(VECTORS[40:], first=40), seq=4)


async def live_keys(index: VectorIndex) -> list[int]:
    found = await index.search(VECTORS[:1], 100, params=SearchParams(exact=True))
    return sorted(key for key in found.keys[0].tolist() if key >= 0)


async def carried_out(step: Step, index: SegmentedIndex) -> bool:
    """Take a step; True when the disk failed on the way."""
    try:
        await step(index)
    except BackendUnavailable:
        return True
    return False


@pytest.mark.parametrize("torn", [False, True], ids=["cut", "torn"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_at_any_write_leaves_a_state_that_was_whole(
    step: str, torn: bool, recipe: Recipe, durable: Path
) -> None:
    outcomes = set()
    for operation in range(1, 1_000):
        root = LocalDirectory(shutil.copytree(durable, durable.with_name(str(operation))))
        directory = FaultyDirectory(root, torn=torn)
        index = await opened(recipe, directory)
        await apply_the_rest(index)
        directory.fail_at(directory.operations + operation)
        failed = await carried_out(STEPS[step], index)
        assert await live_keys(index) == STATES[4]
        await index.close()

        index = await opened(recipe, root)
        outcomes.add(index.applied_seq)
        assert await live_keys(index) == STATES[index.applied_seq]
        await apply_the_rest(index)
        assert await live_keys(index) == STATES[4]
        await index.close()
        if not failed:
            break
    assert outcomes == {2, 4}


@pytest.mark.parametrize("step", STEPS)
async def test_an_index_outlives_a_disk_that_failed_for_a_while(
    step: str, recipe: Recipe, durable: Path
) -> None:
    shards = int(str(recipe[1].get("shards", 1)))
    for operation in range(1, 1_000):
        root = LocalDirectory(shutil.copytree(durable, durable.with_name(str(operation))))
        directory = FaultyDirectory(root)
        index = await opened(recipe, directory)
        await apply_the_rest(index)
        directory.fail_at(directory.operations + operation)
        failed = await carried_out(STEPS[step], index)
        directory.heal()
        assert await index.checkpoint() == 4
        await index.compact()
        await index.close()

        index = await opened(recipe, root)
        assert (index.applied_seq, index.stats().segments) == (4, shards)
        assert await live_keys(index) == STATES[4]
        await index.close()
        assert len(root.list()) == 1 + 3 * shards, "a manifest and the three files of each segment"
        if not failed:
            break

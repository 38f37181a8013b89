"""The disk dies at every single write: the state before or the state that was being written answers fully."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from indexes.base import Metric, SearchParams, VectorIndex
from indexes.conformance import DIM, batch_of, clustered, removal_of
from indexes.dense.opening import open_index
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import Directory, FaultyDirectory, LocalDirectory
from ragstone.errors import BackendUnavailable

BY_HAND = UpkeepLimits(freeze_at=10**9, idle_s=10**6)
VECTORS = clustered(60)
Step = Callable[[SegmentedIndex], Awaitable[object]]
STEPS: dict[str, Step] = {
    "checkpoint": lambda index: index.checkpoint(),
    "compact": lambda index: index.compact(),
}


async def opened(directory: Directory) -> SegmentedIndex:
    return await open_index(
        "hnsw", directory=directory, dim=DIM, metric=Metric.COSINE, options={}, limits=BY_HAND
    )


async def live_keys(index: VectorIndex) -> list[int]:
    found = await index.search(VECTORS[:1], 100, params=SearchParams(exact=True))
    return sorted(key for key in found.keys[0].tolist() if key >= 0)


async def prepare(directory: Directory) -> SegmentedIndex:
    """Position 2 is durable, in two segments; position 4 is applied."""
    index = await opened(directory)
    await index.apply(batch_of(VECTORS[:20]), seq=1)
    await index.compact()
    await index.apply(batch_of(VECTORS[20:40], first=20, deleted=np.array([3])), seq=2)
    await index.checkpoint()
    await index.apply(removal_of(4, 25), seq=3)
    await index.apply(batch_of(VECTORS[40:], first=40), seq=4)
    return index


STATES = {2: [key for key in range(40) if key != 3], 4: [key for key in range(60) if key not in (3, 4, 25)]}


@pytest.mark.parametrize("torn", [False, True], ids=["cut", "torn"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_at_any_write_leaves_a_state_that_was_whole(
    step: str, torn: bool, tmp_path: Path
) -> None:
    outcomes = set()
    for operation in range(1, 1_000):
        root = LocalDirectory(tmp_path / str(operation))
        directory = FaultyDirectory(root, torn=torn)
        index = await prepare(directory)
        directory.fail_at(directory.operations + operation)
        failed = await carried_out(STEPS[step], index)
        assert await live_keys(index) == STATES[4]
        await index.close()

        index = await opened(root)
        outcomes.add(index.applied_seq)
        assert await live_keys(index) == STATES[index.applied_seq]
        await index.apply(removal_of(4, 25), seq=3)
        await index.apply(batch_of(VECTORS[40:], first=40), seq=4)
        assert await live_keys(index) == STATES[4]
        await index.close()
        if not failed:
            break
    assert outcomes == {2, 4}


@pytest.mark.parametrize("step", STEPS)
async def test_an_index_outlives_a_disk_that_failed_for_a_while(step: str, tmp_path: Path) -> None:
    for operation in range(1, 1_000):
        root = LocalDirectory(tmp_path / str(operation))
        directory = FaultyDirectory(root)
        index = await prepare(directory)
        directory.fail_at(directory.operations + operation)
        failed = await carried_out(STEPS[step], index)
        directory.heal()
        assert await index.checkpoint() == 4
        await index.compact()
        await index.close()

        index = await opened(root)
        assert (index.applied_seq, index.stats().segments) == (4, 1)
        assert await live_keys(index) == STATES[4]
        await index.close()
        assert len(root.list()) == 4, "a manifest and the three files of one segment"
        if not failed:
            break


async def carried_out(step: Step, index: SegmentedIndex) -> bool:
    """Take a step; True when the disk failed on the way."""
    try:
        await step(index)
    except BackendUnavailable:
        return True
    return False

"""How the local index freezes, merges and closes, and what it does when it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from indexes.base import Metric, Neighbours, SearchParams, VectorBatch
from indexes.conformance import DIM, batch_of, clustered, removal_of, true_neighbours
from indexes.dense.opening import open_index
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import FaultyDirectory, LocalDirectory
from ragstone.errors import BackendUnavailable, FailedPrecondition

if TYPE_CHECKING:
    from tests.indexes.dense.conftest import Open

EXACT: Final = SearchParams(exact=True)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the background, for a bounded time."""
    for _ in range(6_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the background did not get there")


def details(index: SegmentedIndex) -> list[Mapping[str, Any]]:
    return list(index.stats().details["segments"])


async def test_a_full_delta_is_frozen_in_the_background(opened: Open) -> None:
    index = await opened("hnsw", UpkeepLimits(freeze_at=200))
    await index.apply(batch_of(clustered(250)), seq=1)
    await until(lambda: index.stats().pending == 0)
    assert [(segment["kind"], segment["live"]) for segment in details(index)] == [("hnsw", 250)]
    assert index.stats().details["durable_seq"] == 1


async def test_an_idle_index_freezes_what_it_has(opened: Open) -> None:
    index = await opened("hnsw", UpkeepLimits(idle_freeze_at=50, idle_s=0.01))
    await index.apply(batch_of(clustered(60)), seq=1)
    await until(lambda: index.stats().pending == 0)
    assert index.stats().live == 60


async def test_new_rows_do_not_wait_for_a_long_merge(opened: Open) -> None:
    vectors = clustered(8_060)
    apart = UpkeepLimits(freeze_at=4_000, ratio=0, idle_s=10**6)
    index = await opened("hnsw", apart, ef_construction=800)
    for seq, half in enumerate(np.split(vectors[:8_000], 2)):
        await index.apply(batch_of(half, first=4_000 * seq), seq=seq + 1)
        await until(lambda: index.stats().pending == 0)
    await index.close()
    index = await opened("hnsw", UpkeepLimits(freeze_at=50, quick_rows=1_000), ef_construction=800)
    await index.apply(batch_of(vectors[8_000:], first=8_000), seq=3)
    await until(lambda: index.stats().pending == 0)
    assert sorted(segment["live"] for segment in details(index)) == [60, 4_000, 4_000]
    await until(lambda: index.stats().segments == 2)
    assert sorted(segment["live"] for segment in details(index)) == [60, 8_000]


async def test_a_checkpoint_writes_the_delta_without_building_a_graph(opened: Open) -> None:
    index = await opened("hnsw")
    await index.apply(batch_of(clustered(60)), seq=4)
    assert await index.checkpoint() == 4
    assert [segment["kind"] for segment in details(index)] == ["raw"]
    assert index.stats().pending == 60
    assert await index.checkpoint() == 4
    assert index.stats().segments == 1


async def test_compacting_leaves_one_graph_and_no_tombstones(opened: Open) -> None:
    index = await opened("hnsw")
    for seq in range(1, 6):
        await index.apply(
            batch_of(clustered(100), first=100 * seq, deleted=np.array([100 * seq - 50])), seq=seq
        )
        await index.checkpoint()
    await index.compact()
    stats = index.stats()
    assert (stats.segments, stats.deleted, stats.pending, stats.live) == (1, 0, 0, 496)
    await index.compact()
    assert details(index)[0]["name"] == stats.details["segments"][0]["name"]


async def test_deleting_everything_and_compacting_leaves_no_files_but_the_manifest(
    opened: Open, tmp_path: Path
) -> None:
    index = await opened("hnsw")
    await index.apply(batch_of(clustered(30)), seq=1)
    await index.compact()
    await index.apply(removal_of(*range(30)), seq=2)
    await index.compact()
    assert index.stats().segments == 0
    await index.close()
    assert LocalDirectory(tmp_path / "index").list() == ["MANIFEST.json"]
    index = await opened("hnsw")
    assert (index.applied_seq, index.stats().live) == (2, 0)


async def test_rows_that_die_while_a_merge_runs_stay_dead_and_may_come_back(
    opened: Open, tmp_path: Path
) -> None:
    index = await opened("hnsw")
    vectors = clustered(2_000)
    await index.apply(batch_of(vectors), seq=1)
    compacting = asyncio.create_task(index.compact())
    await until(lambda: bool(index.stats().details["merging"]))
    await index.apply(removal_of(*range(100)), seq=2)
    await index.apply(batch_of(vectors[:10]), seq=3)
    await index.apply(batch_of(clustered(5, seed=8), first=5_000), seq=4)
    await compacting
    found = await index.search(vectors[:50], 2_000, params=EXACT)
    expected = [*range(10), *range(100, 2_000), *range(5_000, 5_005)]
    assert sorted(key for key in found.keys[0].tolist() if key >= 0) == expected
    await index.close()
    index = await opened("hnsw")
    assert index.applied_seq == 1
    assert index.stats().live == 2_000


async def test_rows_behind_a_graph_are_added_to_a_copy_of_it(opened: Open) -> None:
    index = await opened("hnsw")
    vectors = clustered(1_500)
    await index.apply(batch_of(vectors[:1_000]), seq=1)
    await index.compact()
    await index.apply(batch_of(vectors[1_000:], first=1_000, deleted=np.array([5])), seq=2)
    await index.checkpoint()
    with_graph = index.stats()
    await index.apply(removal_of(6), seq=3)
    await index.compact()
    found = await index.search(vectors[990:1_010], 1)
    assert found.keys[:, 0].tolist() == list(range(990, 1_010))
    assert with_graph.segments == 2
    assert (index.stats().live, index.stats().segments) == (1_498, 1)
    gone = await index.search(vectors[5:7], 1_500, params=EXACT)
    assert not {5, 6} & set(gone.keys.ravel().tolist())


async def test_keys_that_arrive_out_of_order_are_found(opened: Open) -> None:
    index, vectors = await opened("hnsw"), clustered(600)
    keys = np.random.default_rng(3).permutation(600)
    for seq, chunk in enumerate(np.split(keys, 3), start=1):
        await index.apply(VectorBatch(chunk, vectors[chunk], np.empty(0, np.int64)), seq=seq)
        await index.compact()
    found = await index.search(vectors[::7], 1)
    assert found.keys[:, 0].tolist() == list(range(0, 600, 7))


async def test_a_build_that_fails_is_reported_and_the_old_state_serves_on(tmp_path: Path) -> None:
    directory = FaultyDirectory(LocalDirectory(tmp_path))
    limits = UpkeepLimits(freeze_at=100, idle_s=0.01)
    index = await open_index(
        "hnsw", directory=directory, dim=DIM, metric=Metric.L2, options={}, limits=limits
    )
    directory.fail_at(1)
    vectors = clustered(120)
    await index.apply(batch_of(vectors), seq=1)
    await until(lambda: bool(index.stats().details["last_error"]))
    assert "the disk failed" in index.stats().details["last_error"]
    found = await index.search(vectors, 1)
    assert found.keys[:, 0].tolist() == list(range(120))
    with pytest.raises(BackendUnavailable):
        await index.checkpoint()
    directory.heal()
    await until(lambda: index.stats().pending == 0)
    await until(lambda: index.stats().details["last_error"] == "")


async def test_closing_breaks_off_a_running_build(opened: Open) -> None:
    index = await opened("hnsw")
    await index.apply(batch_of(clustered(5_000)), seq=1)
    await index.checkpoint()
    compacting = asyncio.create_task(index.compact())
    await until(lambda: bool(index.stats().details["merging"]))
    await index.close()
    await index.close()
    with pytest.raises(FailedPrecondition):
        await compacting
    with pytest.raises(FailedPrecondition, match="closed"):
        await index.search(clustered(1), 1)
    index = await opened("hnsw")
    assert index.stats().live == 5_000


async def test_closing_lets_running_calls_end_and_refuses_all_others(opened: Open) -> None:
    index = await opened("hnsw")
    await index.apply(batch_of(clustered(500)), seq=1)
    searches = [asyncio.create_task(index.search(clustered(1), 1)) for _ in range(50)]
    writes = [asyncio.create_task(index.apply(batch_of(clustered(5)), seq=seq)) for seq in range(2, 9)]
    checkpoint = asyncio.create_task(index.checkpoint())
    await asyncio.sleep(0)
    await index.close()
    ended = await asyncio.gather(*searches, *writes, checkpoint, return_exceptions=True)
    assert all(isinstance(answer, Neighbours) for answer in ended[:50])
    assert all(isinstance(answer, int | None | FailedPrecondition) for answer in ended[50:])
    for call in (index.apply(batch_of(clustered(5)), seq=9), index.checkpoint(), index.compact()):
        with pytest.raises(FailedPrecondition, match="closed"):
            await call


async def test_a_flat_index_finds_every_neighbour(opened: Open) -> None:
    index = await opened("flat", UpkeepLimits(freeze_at=100), Metric.L2)
    vectors = clustered(1_000)
    for seq in range(1, 11):
        await index.apply(batch_of(vectors[100 * seq - 100 : 100 * seq], first=100 * seq - 100), seq=seq)
    found = await index.search(clustered(3, seed=1), 10)
    model = dict(enumerate(vectors))
    for row, query in zip(found.keys, clustered(3, seed=1), strict=True):
        assert row.tolist() == true_neighbours(model, query, 10, Metric.L2).tolist()

"""How the local index freezes, merges, filters, tunes itself and answers for its files."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from pyroaring import BitMap64

from indexes.base import Metric, Neighbours, SearchParams, VectorBatch
from indexes.conformance import DIM, batch_of, clustered, recall_of, removal_of, true_neighbours
from indexes.dense.opening import open_index
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import FaultyDirectory, LocalDirectory
from indexes.registry import open_dense, open_lexical
from ragstone.errors import BackendUnavailable, CorruptIndex, FailedPrecondition, InvalidArgument

EXACT = SearchParams(exact=True)
BY_HAND = UpkeepLimits(freeze_at=10**9, idle_s=10**6)
"""Nothing is frozen unless the test says so."""


class Open(Protocol):
    async def __call__(
        self, limits: UpkeepLimits = BY_HAND, metric: Metric = Metric.COSINE, **options: object
    ) -> SegmentedIndex: ...


@pytest.fixture
def hnsw(tmp_path: Path) -> Open:
    """Opens the test's HNSW index."""

    async def opened(
        limits: UpkeepLimits = BY_HAND, metric: Metric = Metric.COSINE, **options: object
    ) -> SegmentedIndex:
        directory = LocalDirectory(tmp_path / "index")
        return await open_index(
            "hnsw", directory=directory, dim=DIM, metric=metric, options=options, limits=limits
        )

    return opened


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the background, for a bounded time."""
    for _ in range(6_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the background did not get there")


def details(index: SegmentedIndex) -> list[Mapping[str, Any]]:
    return list(index.stats().details["segments"])


# -- freezing and merging ------------------------------------------------------------------------------


async def test_a_full_delta_is_frozen_in_the_background(hnsw: Open) -> None:
    index = await hnsw(UpkeepLimits(freeze_at=200))
    await index.apply(batch_of(clustered(250)), seq=1)
    await until(lambda: index.stats().pending == 0)
    assert [(segment["kind"], segment["live"]) for segment in details(index)] == [("hnsw", 250)]
    assert index.stats().details["durable_seq"] == 1
    await index.close()


async def test_an_idle_index_freezes_what_it_has(hnsw: Open) -> None:
    index = await hnsw(UpkeepLimits(idle_freeze_at=50, idle_s=0.01))
    await index.apply(batch_of(clustered(60)), seq=1)
    await until(lambda: index.stats().pending == 0)
    assert index.stats().live == 60
    await index.close()


async def test_a_checkpoint_writes_the_delta_without_building_a_graph(hnsw: Open) -> None:
    index = await hnsw()
    await index.apply(batch_of(clustered(60)), seq=4)
    assert await index.checkpoint() == 4
    assert [segment["kind"] for segment in details(index)] == ["raw"]
    assert index.stats().pending == 60
    assert await index.checkpoint() == 4
    assert index.stats().segments == 1
    await index.close()


async def test_compacting_leaves_one_graph_and_no_tombstones(hnsw: Open) -> None:
    index = await hnsw()
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
    await index.close()


async def test_deleting_everything_and_compacting_leaves_no_files_but_the_manifest(
    hnsw: Open, tmp_path: Path
) -> None:
    index = await hnsw()
    await index.apply(batch_of(clustered(30)), seq=1)
    await index.compact()
    await index.apply(removal_of(*range(30)), seq=2)
    await index.compact()
    assert index.stats().segments == 0
    await index.close()
    assert LocalDirectory(tmp_path / "index").list() == ["MANIFEST.json"]
    index = await hnsw()
    assert (index.applied_seq, index.stats().live) == (2, 0)
    await index.close()


async def test_rows_that_die_while_a_merge_runs_stay_dead_and_may_come_back(
    hnsw: Open, tmp_path: Path
) -> None:
    index = await hnsw()
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
    index = await hnsw()
    assert index.applied_seq == 1
    assert index.stats().live == 2_000
    await index.close()


async def test_rows_behind_a_graph_are_added_to_a_copy_of_it(hnsw: Open) -> None:
    index = await hnsw()
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
    await index.close()


async def test_keys_that_arrive_out_of_order_are_found(hnsw: Open) -> None:
    index, vectors = await hnsw(), clustered(600)
    keys = np.random.default_rng(3).permutation(600)
    for seq, chunk in enumerate(np.split(keys, 3), start=1):
        await index.apply(VectorBatch(chunk, vectors[chunk], np.empty(0, np.int64)), seq=seq)
        await index.compact()
    found = await index.search(vectors[::7], 1)
    assert found.keys[:, 0].tolist() == list(range(0, 600, 7))
    await index.close()


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
    await index.close()


async def test_closing_breaks_off_a_running_build(hnsw: Open) -> None:
    index = await hnsw()
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
    index = await hnsw()
    assert index.stats().live == 5_000
    await index.close()


async def test_closing_lets_running_calls_end_and_refuses_all_others(hnsw: Open) -> None:
    index = await hnsw()
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


# -- filters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("pattern", ["scattered", "clustered"])
async def test_a_filter_keeps_recall(share: float, pattern: str, filled: SegmentedIndex) -> None:
    vectors = clustered(12_000)
    keys = np.random.default_rng(5).permutation(12_000)
    if pattern == "clustered":
        keys = np.argsort(vectors @ vectors[77])
    allow = BitMap64(keys[-max(10, int(share * 12_000)) :].tolist())
    queries = clustered(40, seed=6)
    found = await filled.search(queries, 10, allow=allow)
    exact = await filled.search(queries, 10, allow=allow, params=EXACT)
    assert recall_of(found, list(exact.keys)) >= 0.95
    assert (found.keys >= 0).sum() == (exact.keys >= 0).sum()


@pytest.fixture(scope="session")
def graph_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12,000 vectors, a third of them deleted, frozen once for all filters."""
    folder = tmp_path_factory.mktemp("graph")

    async def fill() -> None:
        directory = LocalDirectory(folder)
        index = await open_index(
            "hnsw", directory=directory, dim=DIM, metric=Metric.COSINE, options={}, limits=BY_HAND
        )
        await index.apply(batch_of(clustered(12_000)), seq=1)
        await index.compact()
        await index.apply(removal_of(*range(1, 12_000, 3)), seq=2)
        await index.checkpoint()
        await index.close()

    asyncio.run(fill())
    return folder


@pytest.fixture
async def filled(graph_folder: Path) -> Any:
    """The index of ``graph_folder``."""
    index = await open_index(
        "hnsw",
        directory=LocalDirectory(graph_folder),
        dim=DIM,
        metric=Metric.COSINE,
        options={},
        limits=BY_HAND,
    )
    yield index
    await index.close()


async def test_a_graph_with_many_dead_rows_finds_the_live_ones(filled: SegmentedIndex) -> None:
    queries = clustered(100, seed=12)
    found = await filled.search(queries, 10)
    exact = await filled.search(queries, 10, params=EXACT)
    assert filled.stats().deleted == 4_000
    assert recall_of(found, list(exact.keys)) >= 0.95
    assert not (found.keys % 3 == 1).any()


async def test_a_wider_search_finds_more(filled: SegmentedIndex) -> None:
    queries = clustered(200, seed=13)
    exact = list((await filled.search(queries, 10, params=EXACT)).keys)
    narrow = await filled.search(queries, 10, params=SearchParams(effort=10))
    wide = await filled.search(queries, 10, params=SearchParams(effort=200))
    assert recall_of(narrow, exact) < recall_of(wide, exact)
    assert recall_of(wide, exact) >= 0.99


async def test_the_truth_of_the_graph_is_that_of_brute_force(filled: SegmentedIndex) -> None:
    vectors = clustered(12_000)
    live = {key: vectors[key] for key in range(12_000) if key % 3 != 1}
    query = clustered(1, seed=14)
    found = await filled.search(query, 10, params=EXACT)
    assert found.keys[0].tolist() == true_neighbours(live, query[0], 10, Metric.COSINE).tolist()


# -- tuning and options --------------------------------------------------------------------------------


async def test_a_recall_target_picks_a_width_for_each_segment_and_keeps_it(hnsw: Open) -> None:
    widths: dict[float, int] = {}
    vectors = clustered(6_000)
    for target in (0.6, 0.999):
        index = await hnsw(recall_target=target, m=8, ef_construction=40)
        await index.apply(
            batch_of(vectors, first=10_000 * len(widths), deleted=np.arange(6_000)), seq=index.applied_seq + 1
        )
        await index.compact()
        widths[target] = details(index)[0]["effort"]
        await index.close()
        index = await hnsw(recall_target=target)
        assert details(index)[0]["effort"] == widths[target]
        await index.close()
    assert widths[0.6] < widths[0.999]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"m": 1}, "recipe.index.m"),
        ({"ef_search": "wide"}, "recipe.index.ef_search"),
        ({"recall_target": 1.0}, "recipe.index.recall_target"),
        ({"shards": 65}, "recipe.index.shards"),
        ({"nlist": 5}, "recipe.index.nlist"),
        ({"storage": "int2"}, "recipe.index.storage"),
        ({"ef_search": 64, "recall_target": 0.9}, "recipe.index"),
    ],
)
async def test_a_wrong_option_is_named(options: dict[str, object], field: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await open_dense(
            "hnsw", directory=LocalDirectory(tmp_path), dim=DIM, metric=Metric.COSINE, options=options
        )
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_unknown_kinds_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    directory = LocalDirectory(tmp_path)
    with pytest.raises(
        InvalidArgument,
        match=r"recipe\.index\.kind: 'tree' is unknown; known: auto, flat, hnsw, ivf_flat, ivf_pq",
    ):
        await open_dense("tree", directory=directory, dim=DIM, metric=Metric.COSINE, options={})
    with pytest.raises(InvalidArgument, match=r"recipe\.lexical\.kind: .* known: okapi, tantivy"):
        await open_lexical("grep", directory=directory, options={})


@pytest.mark.parametrize("field", ["vectors[1]", "queries[1]"])
async def test_a_zero_vector_has_no_cosine(hnsw: Open, field: str) -> None:
    index, vectors = await hnsw(), clustered(2)
    vectors[1] = 0
    with pytest.raises(InvalidArgument) as caught:
        if field == "vectors[1]":
            await index.apply(batch_of(vectors), seq=1)
        else:
            await index.search(vectors, 1)
    assert caught.value.violations[0].field == field
    await index.close()


# -- files ---------------------------------------------------------------------------------------------


async def test_only_one_may_have_the_index_open(hnsw: Open) -> None:
    index = await hnsw()
    with pytest.raises(FailedPrecondition, match="is open"):
        await hnsw()
    await index.close()
    await (await hnsw()).close()


async def test_an_index_keeps_its_dimension_and_metric(hnsw: Open) -> None:
    index = await hnsw()
    await index.apply(batch_of(clustered(3)), seq=1)
    await index.checkpoint()
    await index.close()
    with pytest.raises(FailedPrecondition, match="cosine"):
        await hnsw(metric=Metric.L2)


async def test_files_that_no_manifest_names_are_swept_at_open_and_strangers_stay(
    hnsw: Open, tmp_path: Path
) -> None:
    await (await hnsw()).close()
    directory = LocalDirectory(tmp_path / "index")
    for name in ("00000077.vectors", "00000077.keys", "MANIFEST.json.tmp", "notes.txt"):
        directory.atomic_write(name, b"left behind")
    await (await hnsw()).close()
    assert directory.list() == ["notes.txt"]


@pytest.mark.parametrize("damage", ["flipped", "shortened", "missing"])
@pytest.mark.parametrize("name", ["00000002.keys", "00000002.vectors", "00000002.index", "MANIFEST.json"])
async def test_a_damaged_file_is_named(hnsw: Open, tmp_path: Path, name: str, damage: str) -> None:
    if (name, damage) == ("MANIFEST.json", "missing"):
        pytest.skip("a directory without a manifest is an empty index")
    index = await hnsw()
    await index.apply(batch_of(clustered(50)), seq=1)
    await index.compact()
    await index.close()
    path = tmp_path / "index" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flipped" else data[:-1])
    with pytest.raises(CorruptIndex, match=name):
        await hnsw()
    with pytest.raises(CorruptIndex, match=name):
        await hnsw()


async def test_a_newer_format_is_refused_and_kept(hnsw: Open, tmp_path: Path) -> None:
    body = {"format": 3, "news": True}
    checksum = zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    document = json.dumps({"crc32": checksum, "manifest": body}).encode()
    directory = LocalDirectory(tmp_path / "index")
    directory.atomic_write("MANIFEST.json", document)
    with pytest.raises(FailedPrecondition, match="format 3"):
        await hnsw()
    assert directory.read("MANIFEST.json") == document


async def test_a_flat_index_finds_every_neighbour(tmp_path: Path) -> None:
    index = await open_index(
        "flat", directory=LocalDirectory(tmp_path), dim=DIM, metric=Metric.L2, options={"freeze_at": 100}
    )
    vectors = clustered(1_000)
    for seq in range(1, 11):
        await index.apply(batch_of(vectors[100 * seq - 100 : 100 * seq], first=100 * seq - 100), seq=seq)
    found = await index.search(clustered(3, seed=1), 10)
    model = dict(enumerate(vectors))
    for row, query in zip(found.keys, clustered(3, seed=1), strict=True):
        assert row.tolist() == true_neighbours(model, query, 10, Metric.L2).tolist()
    await index.close()

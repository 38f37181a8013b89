"""Shards: where a key belongs, and that nobody can tell from an answer how many there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from pyroaring import BitMap64

from indexes.base import Metric, SearchParams, VectorBatch
from indexes.conformance import batch_of, clustered
from indexes.dense.manifest import read_manifest
from indexes.dense.sharding import shard_of
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import LocalDirectory

if TYPE_CHECKING:
    from indexes.dense.segmented import SegmentedIndex
    from tests.indexes.dense.conftest import Open

SHARDS: Final = (1, 2, 5)
POOL: Final = clustered(1_000, seed=4)
QUERIES: Final = clustered(6, seed=8)
BUSY: Final = UpkeepLimits(freeze_at=50, idle_freeze_at=10, idle_s=0.002, raw_segments=2)


def random_batch(chance: np.random.Generator) -> VectorBatch:
    """Some keys come, or come again; some go, or are not there."""
    keys = chance.choice(len(POOL), size=chance.integers(0, 60), replace=False)
    deleted = chance.choice(len(POOL), size=chance.integers(0, 40), replace=False)
    return VectorBatch(keys, POOL[keys], deleted)


async def write(index: SegmentedIndex, seed: int) -> None:
    """The same twelve batches for each index, and upkeep between them that is its own."""
    chance = np.random.default_rng(seed)
    for seq in range(1, 13):
        await index.apply(random_batch(chance), seq=seq)
        match chance.integers(4):
            case 0:
                await index.checkpoint()
            case 1:
                await index.compact()
            case _:
                pass


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("seed", range(4))
async def test_the_number_of_shards_changes_no_answer(seed: int, metric: Metric, opened: Open) -> None:
    chance = np.random.default_rng(seed + 100)
    filters = [None, BitMap64(), *(BitMap64(chance.choice(1_000, n).tolist()) for n in (5, 100, 900))]
    answers = []
    for shards in SHARDS:
        index = await opened("flat", BUSY, metric, folder=str(shards), shards=shards)
        await write(index, seed)
        found = [await index.search(QUERIES, k, allow=allow) for allow in filters for k in (1, 10, 1_000)]
        answers.append([(one.keys.tolist(), one.scores.tolist()) for one in found])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf_pq"])
async def test_each_key_is_in_a_segment_of_its_shard(kind: str, opened: Open, tmp_path: Path) -> None:
    index = await opened(kind, shards=5)
    await index.apply(batch_of(POOL[:600]), seq=1)
    await index.compact()
    await index.apply(batch_of(POOL[600:], first=600), seq=2)
    await index.checkpoint()
    directory = LocalDirectory(tmp_path / "index")
    manifest = read_manifest(directory)
    assert manifest is not None
    seen: list[int] = []
    for entry in manifest.segments:
        keys = np.frombuffer(directory.read(f"{entry.name}.keys"), "<i8")
        assert (shard_of(keys, 5) == entry.shard).all()
        seen += keys.tolist()
    assert sorted(seen) == list(range(1_000))
    assert len(manifest.segments) == 10


async def test_a_shard_without_keys_has_no_segment(opened: Open) -> None:
    keys = np.arange(4_000)
    crowd = keys[shard_of(keys, 4) == 2][:200]
    index = await opened("hnsw", shards=4)
    await index.apply(VectorBatch(crowd, POOL[: len(crowd)], crowd[:0]), seq=1)
    await index.compact()
    segments = index.stats().details["segments"]
    assert [(segment["shard"], segment["live"]) for segment in segments] == [(2, 200)]
    found = await index.search(POOL[:200:20], 1, params=SearchParams(exact=True))
    assert found.keys[:, 0].tolist() == crowd[::20].tolist()


def test_consecutive_keys_spread_evenly() -> None:
    counts = np.bincount(shard_of(np.arange(80_000), 8), minlength=8)
    assert (abs(counts - 10_000) <= 1_000).all()
    # Nor do keys with a stride, as when every document has the same number of chunks.
    strided = np.bincount(shard_of(np.arange(0, 640_000, 8), 8), minlength=8)
    assert (abs(strided - 10_000) <= 1_000).all()


def test_the_shard_of_a_key_never_changes() -> None:
    # What SplitMix64 returns first for these seeds is published.
    published = {0: 0xE220A8397B1DCDAF, 1: 0x910A2DEC89025CC1, 1_234_567: 6_457_827_717_110_365_317}
    found = shard_of(np.array([*published]), 61)
    assert found.tolist() == [value % 61 for value in published.values()]
    assert shard_of(np.array([2**40, 2**63 - 1]), 8).tolist() == [1, 7]

"""``kill -9`` of a process that writes into indexes, at random moments, again and again on the same files.

Run as a program, this file is that process: ``python test_kill.py FOLDER``. A batch depends on nothing but
its position, so the test knows what an index must hold at any position that it finds.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from indexes.base import Keys, Metric, SearchParams, VectorBatch, Vectors
from indexes.conformance import DIM, clustered
from indexes.dense.manifest import read_manifest
from indexes.dense.opening import open_index
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import LocalDirectory

if TYPE_CHECKING:
    import pytest

RECIPES: Final[Mapping[str, tuple[str, dict[str, object]]]] = {
    "graph": ("hnsw", {"m": 8, "ef_construction": 16}),
    "codes": ("ivf_pq", {"shards": 2}),
}
BUSY: Final = UpkeepLimits(freeze_at=60, idle_freeze_at=20, idle_s=0.002, raw_segments=2)
BY_HAND: Final = UpkeepLimits(freeze_at=10**9, idle_s=10**6)
ADDED: Final = 12
LIFE: Final = 30
"""So many batches after a key came it goes, if it is still there."""
POOL: Final = clustered(1_000)
LONGEST_S: Final = 0.5


def keys_of(seq: int) -> list[int]:
    return list(range(ADDED * seq, ADDED * (seq + 1)))


def batch_at(seq: int) -> VectorBatch:
    """The batch at a position: new keys, the end of old ones, and that of a few in between."""
    keys = np.array(keys_of(seq))
    early = random.Random(seq).sample(range(max(0, ADDED * (seq - LIFE)), ADDED * seq), min(seq, 5))
    old = keys_of(seq - LIFE) if seq > LIFE else []
    return VectorBatch(keys, vectors_of(keys), np.array([*old, *early], np.int64))


def keys_at(seq: int) -> list[int]:
    """The keys that live after that position."""
    live: set[int] = set()
    for position in range(max(1, seq - LIFE + 1), seq + 1):
        batch = batch_at(position)
        live = (live - set(batch.deleted.tolist())) | set(batch.keys.tolist())
    return sorted(live)


def vectors_of(keys: Keys) -> Vectors:
    return POOL[keys % len(POOL)]


async def opened(folder: Path, name: str, limits: UpkeepLimits) -> SegmentedIndex:
    kind, options = RECIPES[name]
    directory = LocalDirectory(folder / name)
    return await open_index(
        kind, directory=directory, dim=DIM, metric=Metric.L2, options=options, limits=limits
    )


# -- the process that is killed ------------------------------------------------------------------------


async def write_for_ever(folder: Path, name: str) -> None:
    """Apply batches and say which of them are durable."""
    index = await opened(folder, name, BUSY)
    for seq in itertools.count(index.applied_seq + 1):
        await index.apply(batch_at(seq), seq=seq)
        if seq % 3 == 0:
            say(f"{name} {await index.checkpoint()}")
        if seq % 11 == 0:
            await index.compact()


async def write_all(folder: Path) -> None:
    await asyncio.gather(*(write_for_ever(folder, name) for name in RECIPES))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# -- the test ------------------------------------------------------------------------------------------


def test_a_killed_writer_leaves_all_that_was_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    chance = random.Random(9)
    reached = dict.fromkeys(RECIPES, 0)
    for _ in range(request.config.getoption("--kill-rounds")):
        acknowledged = reached | write_until_killed(folder, after_s=chance.uniform(0.0, LONGEST_S))
        for name in RECIPES:
            reached[name] = asyncio.run(checked(folder, name, acknowledged[name]))
    assert min(reached.values()) > LIFE, "it was killed before it did anything"


def write_until_killed(folder: Path, *, after_s: float) -> dict[str, int]:
    """The last position of each index that the process called durable before it died."""
    with subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(after_s)
        finally:
            writer.kill()
        acknowledged = [line.split() for line in writer.stdout]
    assert writer.returncode == -signal.SIGKILL, "it ended by itself"
    return {name: int(seq) for name, seq in acknowledged}


async def checked(folder: Path, name: str, acknowledged: int) -> int:
    """Open an index and compare it with what it must hold; the position where it stands."""
    index = await opened(folder, name, BY_HAND)
    assert index.applied_seq >= acknowledged
    live = keys_at(index.applied_seq)
    query = clustered(1, seed=1)
    found = await index.search(query, len(live) + 1, params=SearchParams(exact=True))
    keys = found.keys[0, :-1]
    assert sorted(keys.tolist()) == live
    assert found.keys[0, -1] == -1
    distances = ((vectors_of(keys) - query) ** 2).sum(axis=1)
    np.testing.assert_allclose(-found.scores[0, :-1], distances, rtol=1e-4)
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "index verification"))
    assert index.stats().details["last_error"] == ""
    await index.close()
    assert LocalDirectory(folder / name).list() == sorted(named_files(folder / name))
    return index.applied_seq


def named_files(folder: Path) -> list[str]:
    """The manifest, if there is one, and the files that it names."""
    manifest = read_manifest(LocalDirectory(folder))
    if manifest is None:
        return []
    return ["MANIFEST.json", *(f"{entry.name}.{end}" for entry in manifest.segments for end in entry.files)]


if __name__ == "__main__":
    say("ready")
    asyncio.run(write_all(Path(sys.argv[1])))

"""``kill -9`` of a process that writes into Qdrant's embedded engine, at random moments, on the same files.

Run as a program, this file is that process: ``python -m tests.indexes.dense.test_qdrant_kill FOLDER``.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from indexes.base import Metric, SearchParams
from indexes.conformance import DIM, clustered
from indexes.dense.qdrant.edge import EdgeIndex, open_index
from indexes.directory import LocalDirectory
from tests.indexes.dense.test_kill import LIFE, batch_at, keys_at, say, vectors_of

if TYPE_CHECKING:
    import pytest

LONGEST_S: Final = 1.0


async def opened(folder: Path) -> EdgeIndex:
    return await open_index(
        "qdrant_edge",
        directory=LocalDirectory(folder),
        dim=DIM,
        metric=Metric.L2,
        options={"batch": 5, "m": 8, "ef_construct": 16},
    )


# -- the process that is killed ------------------------------------------------------------------------


async def write_for_ever(folder: Path) -> None:
    """Apply batches and say which of them are applied; build graphs all the time."""
    index = await opened(folder)
    building = asyncio.create_task(build_for_ever(index))
    for seq in itertools.count(index.applied_seq + 1):
        await index.apply(batch_at(seq), seq=seq)
        say(str(seq))
        if seq % 7 == 0:
            await index.checkpoint()
        if building.done():
            building.result()


async def build_for_ever(index: EdgeIndex) -> None:
    while True:
        await index.compact()


# -- the test ------------------------------------------------------------------------------------------


def test_a_killed_writer_leaves_all_that_was_applied(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    chance, reached = random.Random(9), 0
    for _ in range(request.config.getoption("--kill-rounds")):
        after_s = chance.uniform(0.0, LONGEST_S)
        applied = write_until_killed(folder, request.config.rootpath, after_s=after_s)
        reached = asyncio.run(checked(folder, max(reached, applied)))
    assert reached > LIFE, "it was killed before it did anything"


def write_until_killed(folder: Path, root: Path, *, after_s: float) -> int:
    """The last position that the process said before it died."""
    program = [sys.executable, "-m", "tests.indexes.dense.test_qdrant_kill", str(folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=root) as writer:
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(after_s)
        finally:
            writer.kill()
        said = [int(line) for line in writer.stdout]
    assert writer.returncode == -signal.SIGKILL, "it ended by itself"
    return max(said, default=0)


async def checked(folder: Path, applied: int) -> int:
    """Open the index and compare it with what it must hold; the position where it stands."""
    index = await opened(folder)
    assert index.applied_seq >= applied
    # A step that was half done is done again in full.
    seq = index.applied_seq + 1
    await index.apply(batch_at(seq), seq=seq)
    live, query = keys_at(seq), clustered(1, seed=1)
    found = await index.search(query, len(live) + 1, params=SearchParams(exact=True))
    keys = found.keys[0, :-1]
    assert sorted(keys.tolist()) == live
    assert found.keys[0, -1] == -1
    distances = ((vectors_of(keys) - query) ** 2).sum(axis=1)
    np.testing.assert_allclose(-found.scores[0, :-1], distances, rtol=1e-4)
    await index.close()
    # The folder that counts, and the file that says so.
    assert len(LocalDirectory(folder).list()) == 2
    return seq


if __name__ == "__main__":
    say("ready")
    asyncio.run(write_for_ever(Path(sys.argv[1])))

"""``kill -9`` of re-embedding workers at random moments: the job always comes to its end."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from ragstone import Client, Document, Recipe
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from tests.conftest import MakeServer

DISTURBED, CALM = "disturbed", "calm"
SERVING: Final = Recipe(embedder={"kind": "hashing", "dim": 32}, index={"kind": "flat"})
ANOTHER_SPACE: Final = Recipe(embedder={"kind": "hashing", "dim": 48})
DOCUMENTS: Final = 600
WORKERS: Final = 2
RANGE: Final = 16
LEASES_HELD: Final = 2
"""By a worker: the one it works at, and the one that it works at next."""


def documents() -> list[Document]:
    words = " ".join(f"word {n} of the harbour" for n in range(40))
    return [Document(id=str(n), text=f"Harbour {n} has {n * n} ships. {words} {n}") for n in range(DOCUMENTS)]


def start_job(address: str) -> subprocess.Popen[str]:
    options = ["--workers", str(WORKERS), "--range-texts", str(RANGE), "--lease", "1", "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "retrieval.cli.app", "--server", address, "reembed", DISTURBED, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )


def kill_someone(job: subprocess.Popen[str], chance: random.Random) -> None:
    """The whole job with its workers, or one worker alone."""
    if chance.random() < 0.5:
        os.killpg(job.pid, signal.SIGKILL)
        job.communicate()
        return
    children = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(job.pid)], capture_output=True, text=True, check=False
    )
    workers = [int(line.split()[0]) for line in children.stdout.splitlines() if "spawn_main" in line]
    if workers:
        os.kill(chance.choice(workers), signal.SIGKILL)


def answers(client: Client, collection: str) -> list[list[tuple[str, float]]]:
    queries = [f"ships of harbour {n}" for n in range(0, DOCUMENTS, 50)]
    results = (client.search(collection, query, mode="dense", k=50) for query in queries)
    return [[(hit.chunk_id, hit.score) for hit in result.hits] for result in results]


def promoted(client: Client, collection: str, version: str) -> None:
    [*_, last] = client.watch_version(collection, version)
    assert (last.state, last.reason) == ("ready", "")
    client.promote(collection, version)


@pytest.mark.e2e
@pytest.mark.slow
def test_a_job_whose_workers_are_killed_ends_and_equals_an_undisturbed_rebuild(
    make_server: MakeServer, request: pytest.FixtureRequest
) -> None:
    server, chance = make_server(), random.Random(11)
    server.start()
    kills = request.config.getoption("--reembed-kills")
    with Client(server.address, timeout=60.0) as client:
        for collection in (DISTURBED, CALM):
            client.create_collection(collection, recipe=SERVING)
            client.upsert(collection, documents())
        version = client.create_version(DISTURBED, ANOTHER_SPACE, paused=True).name
        distinct = client.list_missing_embeddings(
            DISTURBED, version, worker="counts", max_texts=1, lease_s=0.1
        ).missing
        job = start_job(server.address)
        for _ in range(kills):
            time.sleep(chance.uniform(0.0, 4.0))
            if job.poll() is None:
                kill_someone(job, chance)
            if job.poll() is not None:
                job.communicate()
                job = start_job(server.address)
        out, err = job.communicate(timeout=300)
        assert job.returncode == 0, err
        summary: dict[str, Any] = json.loads(out)
        assert (summary["missing"], summary["parked"]) == (0, [])
        lent = sum(map(int, re.findall(r'"event": "texts_lent".*?"texts": (\d+)', server.log)))
        assert distinct <= lent <= distinct + 1 + kills * WORKERS * LEASES_HELD * RANGE
        client.resume_version(DISTURBED, version)
        promoted(client, DISTURBED, version)
        promoted(client, CALM, client.create_version(CALM, ANOTHER_SPACE).name)
        assert answers(client, DISTURBED) == answers(client, CALM)
    assert server.stop() == 0

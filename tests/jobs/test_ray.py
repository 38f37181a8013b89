"""Re-embedding jobs on Ray: a real server, and a real Ray of two workers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ragstone import Client, Document, Recipe
from ragstone.errors import InvalidArgument, SpaceMismatch
from retrieval.jobs.borrowing import Tally, WorkerLimits
from retrieval.jobs.crew import Assignment

pytest.importorskip("ray", reason="ray is not installed")

from retrieval.jobs import ray_pipeline
from retrieval.jobs.ray_cluster import Share, share_of

if TYPE_CHECKING:
    from tests.conftest import MakeServer, RealServer

SERVING = Recipe(embedder={"kind": "hashing", "dim": 64}, index={"kind": "flat"})
ANOTHER_SPACE = Recipe(embedder={"kind": "hashing", "dim": 96})
DOCUMENTS = [
    Document(id=str(n), text=f"Light {n} is lit at dusk{' and put out' * (n % 5)}.") for n in range(200)
]


@pytest.fixture
def running(make_server: MakeServer) -> Iterator[RealServer]:
    """A server with two equal collections; ``v2`` of ``docs`` waits for its vectors."""
    server = make_server()
    server.start()
    with Client(server.address) as client:
        for collection in ("docs", "calm"):
            client.create_collection(collection, recipe=SERVING)
            client.upsert(collection, DOCUMENTS)
        client.create_version("docs", ANOTHER_SPACE, paused=True)
    yield server
    assert server.stop() == 0


def run(server: RealServer) -> Tally:
    limits = WorkerLimits(range_texts=64, slice_texts=16)
    assignment = Assignment(server=server.address, collection="docs", version="v2", workers=2, limits=limits)
    return ray_pipeline.run(assignment, address="local")


def promoted(client: Client, collection: str, version: str) -> None:
    [*_, last] = client.watch_version(collection, version)
    assert (last.state, last.reason) == ("ready", "")
    client.promote(collection, version)


def answers(client: Client, collection: str) -> list[list[tuple[str, float]]]:
    results = (client.search(collection, f"light {n}", mode="dense", k=50) for n in range(0, 200, 20))
    return [[(hit.chunk_id, hit.score) for hit in result.hits] for result in results]


@pytest.mark.slow
def test_each_text_is_embedded_once_and_the_version_answers_as_an_undisturbed_rebuild_does(
    running: RealServer,
) -> None:
    tally = run(running)
    assert (tally.texts, tally.missing, tally.parked) == (200, 0, [])
    assert sum(map(int, re.findall(r'"event": "texts_lent".*?"texts": (\d+)', running.log))) == 200
    with Client(running.address, timeout=60.0) as client:
        client.resume_version("docs", "v2")
        promoted(client, "docs", "v2")
        promoted(client, "calm", client.create_version("calm", ANOTHER_SPACE).name)
        assert answers(client, "docs") == answers(client, "calm")


@pytest.mark.slow
def test_texts_that_the_model_refuses_are_parked_and_hold_no_others_up(
    running: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A class that is made here goes to the actors as it is; they could not import this file.
    class Picky(ray_pipeline.SliceEmbedder):
        def __init__(self, **options: Any) -> None:
            from embedders.hashing import HashingEmbedder
            from ragstone.errors import InvalidArgument

            real = HashingEmbedder.embed_passages

            async def picky(self: HashingEmbedder, texts: Any, *, tenant: str = "") -> Any:
                if any(text.startswith(("Light 7 ", "Light 13 ")) for text in texts):
                    raise InvalidArgument("too odd")
                return await real(self, texts)

            HashingEmbedder.embed_passages = picky  # type: ignore[method-assign]
            super().__init__(**options)

    monkeypatch.setattr(ray_pipeline, "SliceEmbedder", Picky)
    tally = run(running)
    assert (tally.texts, tally.missing, tally.parked) == (198, 2, ["too odd", "too odd"])
    with Client(running.address) as client:
        parked = client.get_version("docs", "v2").parked
    assert sorted(text.chunk_id.partition("#")[0] for text in parked) == ["13", "7"]


@pytest.mark.slow
def test_a_model_of_another_space_is_refused_with_both_before_it_embeds(
    running: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(ray_pipeline.SliceEmbedder):
        def __init__(self, **options: Any) -> None:
            import embedders.registry
            from embedders.hashing import HashingEmbedder

            async def open_another(*_: object) -> HashingEmbedder:
                return HashingEmbedder(dim=128)

            embedders.registry.open_embedder = open_another  # type: ignore[assignment]
            super().__init__(**options)

    monkeypatch.setattr(ray_pipeline, "SliceEmbedder", Other)
    with pytest.raises(SpaceMismatch) as refused:
        run(running)
    with Client(running.address) as client:
        version = client.get_version("docs", "v2")
    assert refused.value.metadata["version_space"] == version.space != refused.value.metadata["model_space"]
    assert version.parked == ()


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "asked", "share"),
    [
        ([2], [0], 2, None, Share(cpus=1)),
        ([2], [0], 1, None, Share(cpus=2)),
        ([16, 4], [0, 0], 3, None, Share(cpus=5)),
        ([16, 16], [1, 1], 2, None, Share(cpus=1, gpus=1)),
        ([16], [1], 4, 0.25, Share(cpus=1, gpus=0.25)),
        ([16], [1], 4, 0.0, Share(cpus=4)),
    ],
)
def test_workers_share_the_cores_and_have_a_gpu_each_where_there_are_any(
    cpus: list[float], gpus: list[float], workers: int, asked: float | None, share: Share
) -> None:
    assert share_of(cpus, gpus, workers, gpus_per_worker=asked) == share


@pytest.mark.parametrize(("gpus", "workers", "room"), [(0.0, 3, "room for 2"), (1.0, 2, "room for 1")])
def test_more_workers_than_there_is_room_for_are_refused(gpus: float, workers: int, room: str) -> None:
    with pytest.raises(InvalidArgument, match=room):
        share_of([2], [gpus], workers, gpus_per_worker=None)

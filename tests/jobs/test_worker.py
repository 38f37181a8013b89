"""One worker of a re-embedding job, against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from embedders.base import Vectors
from embedders.hashing import HashingEmbedder
from ragstone import AsyncClient, Document, Recipe
from ragstone.errors import Internal, InvalidArgument, SpaceMismatch
from retrieval.api.server import Server, ServerOptions
from retrieval.config import Settings
from retrieval.jobs.borrowing import WorkerLimits
from retrieval.jobs.reembedding import Worker
from retrieval.telemetry import Metrics
from retrieval.wiring import build

SPACE = {"kind": "hashing", "dim": 96}
LIMITS = WorkerLimits(range_texts=20, slice_texts=8)
DOCUMENTS = [
    Document(id=str(n), text=f"Light {n} is lit at dusk{' and put out' * (n % 5)}.") for n in range(50)
]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """A client of a server whose collection ``docs`` has a version ``v2`` that waits for its vectors."""
    settings = Settings(data_dir=tmp_path / "data", recipe={"embedder": {"kind": "hashing", "dim": 64}})
    server = Server(
        await build(settings),
        ServerOptions(listen="127.0.0.1:0", drain_s=0.0, grace_s=0.5),
        Metrics(CollectorRegistry()),
    )
    await server.start()
    async with AsyncClient(str(server.address)) as connected:
        await connected.create_collection("docs", recipe=Recipe(index={"kind": "flat"}))
        await connected.upsert("docs", DOCUMENTS)
        await connected.create_version("docs", Recipe(embedder=SPACE), paused=True)
        yield connected
    await server.stop()


def worker(client: AsyncClient) -> Worker:
    return Worker(client, "docs", "v2", name="w", limits=LIMITS)


async def test_a_worker_embeds_all_that_is_missing_each_text_once(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = HashingEmbedder.embed_passages
    embedded: list[str] = []

    async def counting(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        embedded.extend(texts)
        return await real(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed_passages", counting)
    tally = await worker(client).run()
    assert (tally.texts, tally.missing, tally.parked) == (50, 0, [])
    assert sorted(embedded) == sorted(document.text for document in DOCUMENTS)


@pytest.mark.parametrize("how", ["raises", "gives nan"])
async def test_texts_that_the_model_refuses_are_parked_and_hold_no_others_up(
    how: str, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = HashingEmbedder.embed_passages

    async def picky(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        vectors = await real(self, texts)
        for row, text in zip(vectors, texts, strict=True):
            if text.startswith(("Light 7 ", "Light 13 ")):
                if how == "raises":
                    raise InvalidArgument("too odd")
                row[:] = np.nan
        return vectors

    monkeypatch.setattr(HashingEmbedder, "embed_passages", picky)
    tally = await worker(client).run()
    assert (tally.texts, tally.missing, len(tally.parked)) == (48, 2, 2)
    parked = (await client.get_version("docs", "v2")).parked
    assert sorted(text.chunk_id.partition("#")[0] for text in parked) == ["13", "7"]


async def test_a_model_that_is_broken_ends_the_worker_and_parks_nothing(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        raise Internal("the model is on fire")

    monkeypatch.setattr(HashingEmbedder, "embed_passages", broken)
    with pytest.raises(Internal, match="on fire"):
        await worker(client).run()
    assert (await client.get_version("docs", "v2")).parked == ()


async def test_a_model_of_another_space_is_refused_with_both_before_it_embeds(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (await client.get_version("docs", "v2")).space

    async def open_another(kind: str, options: object) -> HashingEmbedder:
        return HashingEmbedder(dim=128)

    monkeypatch.setattr("embedders.registry.open_embedder", open_another)
    with pytest.raises(SpaceMismatch) as refused:
        await worker(client).run()
    assert refused.value.metadata["version_space"] == wanted != refused.value.metadata["model_space"]

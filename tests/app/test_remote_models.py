"""Collections whose model is another server's: what is noticed of it, and what it holds up."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from ragstone.errors import BackendUnavailable, SpaceMismatch
from ragstone.types import Document, Mode, Query, Recipe
from retrieval.config import Settings
from retrieval.wiring import Ragstone, build
from tests.app.conftest import App
from tests.embedders.servers import Fault, OpenAIServer

DOCUMENTS = [
    Document(id=str(i), text=f"Light number {i} is lit at dusk and put out at dawn.") for i in range(20)
]
LIGHT = Query(text="light number 7", mode=Mode.DENSE, k=3)


@pytest.fixture
def servers() -> Iterator[list[OpenAIServer]]:
    """Two servers that call their models alike."""
    both = [OpenAIServer(), OpenAIServer()]
    yield both
    for server in both:
        server.close()


def recipe(server: OpenAIServer, **options: Any) -> Recipe:
    told = {"kind": "openai_http", "url": server.url, "model": "m", "retries": 0, "open_s": 0.05}
    return Recipe(embedder={**told, **options}, index={"kind": "flat"})


async def filled(ragstone: Ragstone, made: Recipe) -> App:
    await ragstone.create_collection("docs", made)
    app = App(ragstone)
    await app.upsert(*DOCUMENTS)
    return app


async def test_a_collection_is_embedded_and_searched_by_a_server(
    settings: Settings, servers: list[OpenAIServer]
) -> None:
    ragstone = await build(settings)
    app = await filled(ragstone, recipe(servers[0]))
    assert (await app.found(LIGHT))[0] == "7"
    await ragstone.close()


async def test_writes_wait_for_a_server_that_is_away_and_lose_nothing(
    settings: Settings, servers: list[OpenAIServer]
) -> None:
    ragstone = await build(settings)
    app = await filled(ragstone, recipe(servers[0]))
    servers[0].faults.extend([Fault(status=502), Fault(cut=True), Fault(status=500), Fault(status=500)])
    await app.upsert(Document(id="new", text="a dove on the pier"))
    assert (await app.found(Query(text="a dove on the pier", mode=Mode.DENSE, k=1))) == ["new"]
    stats = (await ragstone.get_collection("docs")).serving.stats
    assert stats["parked_chunks"] == 0
    await ragstone.close()


async def test_a_server_that_has_another_model_when_ragstone_starts_again_is_refused(
    settings: Settings, servers: list[OpenAIServer]
) -> None:
    first = await build(settings)
    await filled(first, recipe(servers[0]))
    await first.close()
    servers[0].model.salt = "another model "
    with pytest.raises(SpaceMismatch, match="put the old model back"):
        await build(settings)
    servers[0].model.salt = ""
    again = await build(settings)
    assert (await App(again).found(LIGHT))[0] == "7"
    await again.close()


async def test_a_collection_whose_model_server_is_away_at_the_start_waits_for_it(
    settings: Settings, servers: list[OpenAIServer]
) -> None:
    first = await build(settings)
    await filled(first, recipe(servers[0]))
    await first.close()
    servers[0].always = Fault(status=502)
    again = await build(settings)
    with pytest.raises(BackendUnavailable, match="502"):
        await App(again).found(LIGHT)
    servers[0].always = None
    async with asyncio.timeout(30):
        while not again.readiness()["docs"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await App(again).found(LIGHT))[0] == "7"
    await again.close()


async def test_another_server_with_the_same_model_shares_its_vectors(
    settings: Settings, servers: list[OpenAIServer]
) -> None:
    ragstone = await build(settings)
    await filled(ragstone, recipe(servers[0]))
    await ragstone.create_collection("more", recipe(servers[1]))
    servers[1].forget()
    await App(ragstone).upsert(*DOCUMENTS, collection="more")
    assert servers[1].requests == []
    await ragstone.close()


async def test_another_server_with_another_model_of_that_name_is_refused_until_it_has_a_revision(
    settings: Settings, servers: list[OpenAIServer]
) -> None:
    ragstone = await build(settings)
    await filled(ragstone, recipe(servers[0]))
    servers[1].model.salt = "another model "
    with pytest.raises(SpaceMismatch, match="revision"):
        await ragstone.create_collection("more", recipe(servers[1]))
    assert [collection.name for collection in await ragstone.list_collections()] == ["docs"]
    await ragstone.create_collection("more", recipe(servers[1], revision="2"))
    await ragstone.close()

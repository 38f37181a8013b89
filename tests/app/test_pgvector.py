"""A collection whose dense index is in PostgreSQL: moved there and back while it serves, and its remains."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from ragstone.types import Document, Mode, Query, Recipe
from retrieval.config import Settings
from retrieval.wiring import build
from tests.app.conftest import App
from tests.postgres import Postgres

DOCUMENTS = [
    Document(id=str(i), text=f"Light number {i} is lit at dusk in tower {i % 7}.") for i in range(60)
]
DUSK = Query(text="Which light is lit at dusk?", mode=Mode.DENSE, k=30)


@pytest.fixture
def url(postgres_server: Postgres) -> str:
    """An empty database."""
    return postgres_server.create_database()


def tables(url: str) -> set[str]:
    """The tables of indexes in a database."""
    with psycopg.connect(url) as connection:
        query = "SELECT tablename FROM pg_tables WHERE tablename LIKE 'ragstone%dense'"
        return {name for (name,) in connection.execute(query).fetchall()}


async def move(app: App, **index: Any) -> str:
    """Rebuild ``docs`` into another index, and let it serve; the new version's name."""
    version = await app.ragstone.create_version("docs", Recipe(index=index))
    async with asyncio.timeout(60):
        [*_, built] = [seen async for seen in app.ragstone.watch_version("docs", version.name)]
    assert built.state == "ready", built.reason
    return (await app.ragstone.promote_version("docs", version.name, force=False)).name


async def test_a_collection_in_postgresql_is_there_after_a_restart(settings: Settings, url: str) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "pgvector", "url": url}))
    await first.upsert(*DOCUMENTS)
    await first.delete("7")
    before = await first.found(DUSK)
    await first.ragstone.close()

    second = App(await build(settings))
    assert await second.found(DUSK) == before
    assert len(before) == 30
    await second.ragstone.close()


async def test_a_trial_of_a_recipe_leaves_one_table_for_each_version(settings: Settings, url: str) -> None:
    app = App(await build(settings))
    await app.ragstone.create_collection("docs", Recipe(index={"kind": "pgvector", "url": url}))
    await app.ragstone.plan_version("docs", Recipe(index={"kind": "pgvector", "url": url, "m": 8}))
    assert len(tables(url)) == 1
    await app.ragstone.close()


async def test_a_live_collection_moves_into_postgresql_and_back(app: App, url: str) -> None:
    await app.upsert(*DOCUMENTS)
    before = {hit.chunk_id: hit.score for hit in (await app.search(DUSK)).hits}
    for index in ({"kind": "pgvector", "url": url}, {"kind": "flat"}):
        version = await move(app, **index)
        result = await app.search(DUSK)
        assert result.version == version
        assert [hit.chunk_id for hit in result.hits] == list(before)
        assert [hit.score for hit in result.hits] == pytest.approx([*before.values()], abs=1e-5)


async def test_writes_during_a_move_are_in_both(app: App, url: str) -> None:
    await app.upsert(*DOCUMENTS[:40])

    async def write() -> None:
        for document in DOCUMENTS[40:]:
            await app.upsert(document)
            await app.delete(str(int(document.id) - 40))

    await asyncio.gather(write(), move(app, kind="pgvector", url=url))
    everything = Query(text=DUSK.text, mode=Mode.DENSE, k=100)
    assert sorted(await app.found(everything)) == sorted(str(i) for i in range(20, 60))


async def test_a_deleted_version_leaves_no_table(app: App, url: str) -> None:
    await app.upsert(*DOCUMENTS)
    version = await move(app, kind="pgvector", url=url)
    await move(app, kind="flat")
    assert len(tables(url)) == 1
    await app.ragstone.delete_version("docs", version)
    assert tables(url) == set()


async def test_a_version_is_deleted_while_its_database_is_away_and_its_table_when_it_is_back(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres
) -> None:
    own = Postgres(tmp_path_factory.mktemp("away"))
    url = own.create_database()
    app = App(await build(settings))
    await app.ragstone.create_collection("docs", Recipe(index={"kind": "pgvector", "url": url}))
    await app.upsert(*DOCUMENTS)
    await move(app, kind="flat")
    own.kill()
    await app.ragstone.delete_version("docs", "v1")
    assert [version.name for version in await app.ragstone.versions("docs")] == ["v2"]
    await app.ragstone.close()
    own.start()
    assert len(tables(url)) == 1

    app = App(await build(settings))
    async with asyncio.timeout(30):
        while tables(url):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await app.ragstone.close()
    own.close()


async def test_a_deleted_collection_leaves_no_table(app: App, url: str) -> None:
    recipe = Recipe(index={"kind": "pgvector", "url": url})
    await app.ragstone.create_collection("elsewhere", recipe)
    await app.ragstone.delete_collection("elsewhere")
    assert tables(url) == set()


async def test_a_filter_and_a_metric_mean_the_same_there(app: App, url: str) -> None:
    documents = [
        Document(id=f"{i}", text=f"Light {i} is lit at dusk.", metadata={"tower": i % 3}) for i in range(30)
    ]
    await app.upsert(*documents)
    query = Query(text=DUSK.text, mode=Mode.DENSE, k=20, filter="tower = 1")
    before = await app.found(query)
    await move(app, kind="pgvector", url=url)
    assert await app.found(query) == before
    assert len(before) == 10

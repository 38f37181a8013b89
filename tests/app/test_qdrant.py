"""Collections whose vectors are in Qdrant, and that move there and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from ragstone.types import Document, Mode, Query, Recipe, Version
from retrieval.config import Settings
from retrieval.wiring import build
from tests.app.conftest import App

DOCUMENTS: Final = [
    Document(
        id=str(number),
        text=f"The lamp of tower {number} is lit at dusk and put out at dawn.",
        metadata={"colour": "red" if number % 3 else "white", "height": number},
    )
    for number in range(60)
]
WHERE: Final = ["", "colour = 'red'", "height < 12 AND colour = 'white'", "height > 1000"]
LIT: Final = Query(text="Which lamp is lit at dusk?", k=100, mode=Mode.DENSE)


def recipes(folder: Path) -> dict[str, Recipe]:
    return {
        "qdrant_edge": Recipe(index={"kind": "qdrant_edge"}),
        "qdrant": Recipe(index={"kind": "qdrant", "path": str(folder / "store")}),
    }


async def answers(app: App, collection: str = "docs") -> list[list[tuple[float, str]]]:
    """Documents and scores under each filter, as far as float32 tells scores apart."""
    results = [await app.search(replace(LIT, filter=where), collection) for where in WHERE]
    return [sorted((-round(hit.score, 4), hit.document_id) for hit in result.hits) for result in results]


async def moved(app: App, recipe: Recipe) -> Version:
    version = await app.ragstone.create_version("docs", recipe)
    async for state in app.ragstone.watch_version("docs", version.name):
        version = state
    assert (version.state, version.reason) == ("ready", "")
    return await app.ragstone.promote_version("docs", version.name, force=False)


@pytest.mark.parametrize("kind", ["qdrant_edge", "qdrant"])
async def test_it_answers_like_a_flat_index(kind: str, app: App, tmp_path: Path) -> None:
    await app.ragstone.create_collection("there", recipes(tmp_path)[kind])
    for collection in ("docs", "there"):
        await app.upsert(*DOCUMENTS, collection=collection)
        await app.upsert(Document(id="7", text="The lamp of tower seven was sold."), collection=collection)
        await app.delete("11", where="", collection=collection)
        await app.delete(where="height > 50", collection=collection)
    assert await answers(app, "there") == await answers(app, "docs")


@pytest.mark.parametrize("kind", ["qdrant_edge", "qdrant"])
async def test_a_collection_moves_there_and_back(kind: str, app: App, tmp_path: Path) -> None:
    await app.upsert(*DOCUMENTS)
    before = await answers(app)
    for recipe in (recipes(tmp_path)[kind], Recipe(index={"kind": "flat"})):
        await moved(app, recipe)
        assert await answers(app) == before


@pytest.mark.parametrize("kind", ["qdrant_edge", "qdrant"])
async def test_a_restart_finds_all_that_was_there(kind: str, settings: Settings, tmp_path: Path) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", recipes(tmp_path)[kind])
    await first.upsert(*DOCUMENTS)
    await first.delete("3")
    before = await answers(first)
    await first.ragstone.close()
    second = App(await build(settings))
    assert await answers(second) == before
    await second.ragstone.close()


async def test_a_deleted_version_leaves_nothing_in_qdrant(app: App, tmp_path: Path) -> None:
    await app.upsert(*DOCUMENTS)
    version = await moved(app, recipes(tmp_path)["qdrant"])
    assert any((tmp_path / "store").iterdir())
    await moved(app, Recipe(index={"kind": "flat"}))
    await app.ragstone.delete_version("docs", version.name)
    assert not any((tmp_path / "store").iterdir())

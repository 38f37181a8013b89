"""A model that is new asks the serving version's index, through an adapter."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import pytest

from embedders.hashing import HashingEmbedder
from ragstone.errors import SpaceMismatch
from ragstone.types import Contexts, Document, Mode, Query, QueryAdapter, Question, Recipe, Version
from retrieval.config import RebuildSettings, Settings
from retrieval.wiring import build
from tests.app.conftest import App

DIM: Final = 96
SPACE: Final = HashingEmbedder(dim=DIM).space.id
ANOTHER_SPACE: Final = Recipe(embedder={"kind": "hashing", "dim": DIM})
WORDS: Final = [
    "lamp",
    "tower",
    "keeper",
    "dusk",
    "dawn",
    "rock",
    "tide",
    "fog",
    "bell",
    "gull",
    "oil",
    "wick",
]


def documents(count: int) -> list[Document]:
    chance = random.Random(7)
    texts = (" ".join(chance.choices(WORDS, k=6)) for _ in range(count))
    return [Document(id=str(number), text=f"{text} {number}") for number, text in enumerate(texts)]


ASKED: Final = Query(text="keeper of the lamp in the fog", mode=Mode.DENSE, space=SPACE)


async def begun(app: App) -> Version:
    """A version in another space, once it is ready and its adapter was learned, or could not be."""
    name = (await app.ragstone.create_version("docs", ANOTHER_SPACE)).name
    async with asyncio.timeout(60):
        async for version in app.ragstone.watch_version("docs", name):
            assert version.state != "failed"
        while not (version.adapter and (version.adapter.kind or version.adapter.reason != LEARNING)):
            await asyncio.sleep(0.05)
            version = await app.ragstone.get_version("docs", name)
    return version


LEARNING: Final = "it is being learned"


@pytest.fixture
async def filled(app: App) -> App:
    await app.upsert(*documents(200))
    return app


async def test_a_query_in_the_new_space_is_answered_by_the_old_index_and_says_so(filled: App) -> None:
    version = await begun(filled)
    result = await filled.search(ASKED)
    assert result.adapter == version.adapter
    assert result.adapter is not None
    assert (result.adapter.from_space, result.adapter.into_space) == (SPACE, result.space)
    assert (result.version, version.state) == ("v1", "ready")
    assert len(result.hits) == 10


async def test_what_the_adapter_finds_is_mostly_what_the_new_model_would_find(filled: App) -> None:
    version = await begun(filled)
    adapted = {hit.document_id for hit in (await filled.search(ASKED)).hits}
    await filled.ragstone.promote_version("docs", version.name, force=False)
    own = await filled.search(ASKED)
    assert own.adapter is None
    assert len(adapted & {hit.document_id for hit in own.hits}) >= 6


async def test_a_vector_of_the_new_space_is_mapped_too(filled: App) -> None:
    await begun(filled)
    [vector] = await HashingEmbedder(dim=DIM).embed_queries([ASKED.text])
    by_vector = await filled.search(Query(vector=vector, space=SPACE, mode=Mode.DENSE))
    by_text = await filled.search(ASKED)
    assert [hit.chunk_id for hit in by_vector.hits] == [hit.chunk_id for hit in by_text.hits]


async def test_explain_names_the_adapter(filled: App) -> None:
    await begun(filled)
    result = await filled.search(Query(text="lamp", space=SPACE, explain=True))
    assert "by the adapter" in result.plan["dense"]
    assert SPACE in result.plan["dense"]


async def test_an_answer_names_the_adapter_with_its_contexts(filled: App) -> None:
    await begun(filled)
    events = filled.ragstone.answer("docs", Question(query=ASKED), tenant="t", deadline_s=10.0)
    first = await anext(aiter(events))
    assert isinstance(first, Contexts)
    assert first.adapter is not None


async def test_a_query_in_the_serving_space_needs_no_adapter(filled: App) -> None:
    await begun(filled)
    serving = HashingEmbedder(dim=64).space.id
    assert (await filled.search(Query(text="lamp", space=serving))).adapter is None


async def test_a_space_that_no_version_has_is_refused_with_both(filled: App) -> None:
    with pytest.raises(SpaceMismatch, match="elsewhere") as refused:
        await filled.search(Query(text="lamp", space="elsewhere"))
    assert [violation.field for violation in refused.value.violations] == ["query.space"]
    assert refused.value.metadata["serving_space"] == HashingEmbedder(dim=64).space.id


async def test_too_few_texts_teach_nothing_and_the_rebuild_goes_on(app: App) -> None:
    await app.upsert(*documents(20))
    version = await begun(app)
    assert version.state == "ready"
    assert version.adapter is not None
    assert "20 texts" in version.adapter.reason
    with pytest.raises(SpaceMismatch, match="20 texts"):
        await app.search(ASKED)


async def test_an_adapter_that_misses_its_gate_is_not_used_and_the_numbers_are_told(
    settings: Settings,
) -> None:
    app = App(await build(settings.model_copy(update={"rebuild": RebuildSettings(adapter_recall=1.0)})))
    await app.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await app.upsert(*documents(200))
    version = await begun(app)
    assert version.adapter is not None
    assert not version.adapter.passed
    with pytest.raises(SpaceMismatch, match=f"{version.adapter.recall:.3f} through it, the limit 1"):
        await app.search(ASKED)
    await app.ragstone.close()


async def test_an_adapter_survives_a_restart(settings: Settings) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await first.upsert(*documents(200))
    learned = (await begun(first)).adapter
    before = await first.search(ASKED)
    await first.ragstone.close()
    second = App(await build(settings))
    assert await known(second) == learned
    assert (await second.search(ASKED)).hits == before.hits
    await second.ragstone.close()


async def test_a_damaged_adapter_is_learned_anew(settings: Settings) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await first.upsert(*documents(200))
    learned = (await begun(first)).adapter
    spoil = "UPDATE adapters SET data = x'00'"
    await first.ragstone._database.write(lambda c: c.exec_driver_sql(spoil).close())
    await first.ragstone.close()
    second = App(await build(settings))
    assert await known(second) == learned
    await second.ragstone.close()


async def known(app: App) -> QueryAdapter:
    """What is known of the adapter of ``v2`` once there is one."""
    async with asyncio.timeout(60):
        while True:
            adapter = (await app.ragstone.get_version("docs", "v2")).adapter
            if adapter is not None and adapter.kind:
                return adapter
            await asyncio.sleep(0.05)


async def test_an_adapter_goes_with_its_version(filled: App) -> None:
    version = await begun(filled)
    await filled.ragstone.delete_version("docs", version.name)
    with pytest.raises(SpaceMismatch):
        await filled.search(ASKED)
    kept = "SELECT count(*) FROM adapters"
    assert await filled.ragstone._database.read(lambda c: c.exec_driver_sql(kept).scalar()) == 0


async def test_nothing_is_learned_where_the_server_is_told_not_to(settings: Settings) -> None:
    app = App(await build(settings.model_copy(update={"rebuild": RebuildSettings(adapter_texts=0)})))
    await app.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await app.upsert(*documents(200))
    name = (await app.ragstone.create_version("docs", ANOTHER_SPACE)).name
    async for version in app.ragstone.watch_version("docs", name):
        assert version.adapter is None
    await app.ragstone.close()


async def test_a_version_in_the_same_space_needs_no_adapter(filled: App) -> None:
    name = (await filled.ragstone.create_version("docs", Recipe(index={"kind": "hnsw"}))).name
    async for version in filled.ragstone.watch_version("docs", name):
        assert version.adapter is None

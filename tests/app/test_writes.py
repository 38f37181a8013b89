"""Writing documents: what is stored, what is refused, and when a search sees it."""

import numpy as np
import pytest

from ragstone.errors import AlreadyExists, Conflict, InvalidArgument, InvalidFilter, NotFound, Overloaded
from ragstone.types import Document, Mode, Query, Recipe, Wait
from retrieval.config import Limits, Settings
from retrieval.wiring import build
from tests.app.conftest import App

GREETING = Document(id="1", text="Good morning to the whole village", metadata={"year": 2024})


async def test_a_document_is_found_as_soon_as_its_write_returns(app: App) -> None:
    await app.upsert(GREETING)
    for mode in Mode:
        assert await app.found(Query(text="good morning", mode=mode)) == ["1"]


async def test_writing_the_same_again_changes_nothing(app: App) -> None:
    first = await app.upsert(GREETING)
    again = await app.upsert(GREETING)
    assert (again.documents, again.unchanged, again.seq) == (0, 1, first.seq)


async def test_a_new_text_replaces_the_old_one_in_every_leg(app: App) -> None:
    await app.upsert(GREETING)
    await app.upsert(Document(id="1", text="A treatise on beekeeping"))
    for mode in Mode:
        hits = (await app.search(Query(text="good morning beekeeping", mode=mode))).hits
        assert [hit.text for hit in hits] == ["A treatise on beekeeping"]


async def test_a_deleted_document_is_gone_at_once(app: App) -> None:
    await app.upsert(GREETING, Document(id="2", text="Good morning, city"))
    await app.delete("1")
    for mode in Mode:
        assert await app.found(Query(text="good morning", mode=mode)) == ["2"]


async def test_deleting_by_filter_takes_exactly_what_matches(app: App) -> None:
    await app.upsert(
        *(Document(id=str(y), text=f"year {y}", metadata={"year": y}) for y in range(2018, 2024))
    )
    result = await app.delete(where="year < 2020")
    assert result.documents == 2
    documents, _ = await app.ragstone.list_documents("docs", page_size=100, page_token="")
    assert [d.id for d in documents] == ["2020", "2021", "2022", "2023"]


async def test_deleting_by_filter_sees_writes_that_nobody_waited_for(app: App) -> None:
    await app.upsert(GREETING, wait=Wait.COMMITTED)
    assert (await app.delete(where="year = 2024")).documents == 1


async def test_deleting_what_is_not_there_is_no_error(app: App) -> None:
    assert (await app.delete("nobody")).documents == 0


async def test_a_delete_without_ids_or_filter_is_refused(app: App) -> None:
    with pytest.raises(InvalidArgument, match="ids"):
        await app.delete()


async def test_a_delete_with_a_broken_filter_deletes_nothing(app: App) -> None:
    await app.upsert(GREETING)
    with pytest.raises(InvalidFilter) as caught:
        await app.delete(where="year = AND")
    assert caught.value.column == 8  # where AND stands
    assert await app.found(Query(text="good morning"))


async def test_a_repeated_request_is_answered_with_its_first_result(app: App) -> None:
    first = await app.upsert(GREETING, request_id="r1")
    assert await app.upsert(GREETING, request_id="r1") == first


async def test_a_request_id_stands_for_one_request(app: App) -> None:
    await app.upsert(GREETING, request_id="r1")
    with pytest.raises(Conflict):
        await app.upsert(Document(id="2", text="something else"), request_id="r1")


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (Document(id="x", text="  \n"), "documents[1].text"),
        (Document(id="x", text="a", metadata={"n": float("nan")}), "documents[1].metadata.n"),
        (Document(id="x", text="a", vector=np.ones(64, np.float32)), "documents[1].vector"),
        (Document(id="x", text="a" * (8 * 2**20 + 1)), "documents[1].text"),
        (Document(id="x", text="a\x00b"), "documents[1].text"),
    ],
)
async def test_one_wrong_document_is_named_and_nothing_is_stored(
    app: App, document: Document, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await app.upsert(GREETING, document)
    assert [v.field for v in caught.value.violations] == [field]
    assert (await app.ragstone.get_collection("docs")).documents == 0


async def test_a_long_document_is_found_by_each_of_its_passages(app: App) -> None:
    parts = [f"Section {i} is about {word}. " * 30 for i, word in enumerate(["bees", "ships", "clocks"])]
    await app.upsert(Document(id="long", text="\n\n".join(parts)))
    assert (await app.ragstone.get_collection("docs")).chunks > 3
    for word in ["bees", "ships", "clocks"]:
        hit = (await app.search(Query(text=word, mode=Mode.DENSE, k=1))).hits[0]
        assert word in hit.text


async def test_a_hits_offsets_point_into_the_documents_text(app: App) -> None:
    text = "\n\n".join(f"Paragraph {i} speaks of matter {i}. " * 20 for i in range(6))
    await app.upsert(Document(id="long", text=text))
    for hit in (await app.search(Query(text="paragraph matter", k=50))).hits:
        assert text[hit.start : hit.end] == hit.text


async def test_a_collections_name_is_given_once(app: App) -> None:
    with pytest.raises(AlreadyExists):
        await app.ragstone.create_collection("docs", Recipe())


async def test_a_recipe_that_a_back_end_refuses_leaves_no_collection_behind(app: App) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await app.ragstone.create_collection("other", Recipe(index={"kind": "hnsw", "m": -1}))
    assert caught.value.violations[0].field == "recipe.index.m"
    assert [c.name for c in await app.ragstone.list_collections()] == ["docs"]


async def test_a_deleted_collection_is_gone_with_its_files(app: App, settings: object) -> None:
    await app.upsert(GREETING)
    await app.ragstone.delete_collection("docs")
    with pytest.raises(NotFound, match="docs"):
        await app.search(Query(text="good"))
    assert not list((settings.data_dir / "versions").iterdir())  # type: ignore[attr-defined]


async def test_a_name_can_be_used_again_after_its_collection_was_deleted(app: App) -> None:
    await app.upsert(GREETING)
    await app.ragstone.delete_collection("docs")
    await app.ragstone.create_collection("docs", Recipe())
    assert await app.found(Query(text="good morning")) == []


async def test_a_nearly_full_disk_takes_no_documents_and_still_deletes(settings: Settings) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await first.upsert(Document(id="old", text="the sea"))
    await first.ragstone.close()
    full = settings.model_copy(update={"limits": Limits(min_free_disk_bytes=2**70)})

    second = App(await build(full))
    with pytest.raises(Overloaded, match="min_free_disk_bytes"):
        await second.upsert(Document(id="new", text="the sea"))
    assert (await second.delete("old")).documents == 1
    await second.ragstone.close()

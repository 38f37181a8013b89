"""Reading documents and chunks back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from retrieval.store.catalog import CollectionRow
from retrieval.store.database import Database
from retrieval.store.documents import Documents
from retrieval.store.journal import Committed, DocumentDraft, Journal

Drafter = Callable[..., DocumentDraft]
Put = Callable[..., Awaitable[Committed]]


@pytest.fixture
def documents(db: Database) -> Documents:
    return Documents(db)


async def test_document_comes_back_as_it_was_written(
    documents: Documents, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    written = draft("a", "ein Text: äöü 😀\nzwei", title="T", metadata_json='{"x":[1,2]}')
    committed = await put(written)
    row = await documents.get(collection.id, "a")
    assert row is not None
    assert (row.title, row.text, row.language) == (written.title, written.text, "en")
    assert (row.metadata_json, row.content_hash, row.seq) == (
        written.metadata_json,
        written.content_hash,
        committed.seq,
    )


async def test_unknown_documents_are_left_out(
    documents: Documents, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    await put(draft("a", "one"))
    assert await documents.get(collection.id, "b") is None
    assert list(await documents.get_many(collection.id, ["a", "b"])) == ["a"]


async def test_pages_of_documents_meet_without_gap_or_overlap(
    documents: Documents, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    ids = [f"d{number}" for number in range(7)]
    await put(*(draft(name, "text") for name in reversed(ids)))
    seen: list[str] = []
    while page := await documents.list(collection.id, after_id=seen[-1] if seen else "", limit=3):
        seen += [row.id for row in page]
    assert seen == ids


async def test_chunks_hydrate_by_key(documents: Documents, draft: Drafter, put: Put) -> None:
    committed = await put(draft("a", "one\ntwo", title="T"))
    assert committed.step is not None
    rows = await documents.chunks([row.key for row in committed.step.added] + [999])
    assert list(rows.values()) == [replace(row, context="") for row in committed.step.added]


async def test_deleted_chunks_hydrate_until_they_are_pruned(
    db: Database, documents: Documents, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    committed = await put(draft("a", "one"))
    assert committed.step is not None
    (chunk,) = committed.step.added
    await Journal(db).delete(collection.id, ["a"], request_id=None, tenant="t", fingerprint="f")
    assert (await documents.chunks([chunk.key]))[chunk.key].text == "one"


async def test_ids_of_chunks_name_each_document_once(documents: Documents, draft: Drafter, put: Put) -> None:
    committed = await put(draft("b", "one\ntwo"), draft("a", "three"))
    assert committed.step is not None
    assert await documents.ids_of_chunks([row.key for row in committed.step.added]) == ["a", "b"]


async def test_metadata_is_that_of_the_chunks_live_at_a_position(
    db: Database, documents: Documents, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    first = await put(draft("a", "1\n2", metadata_json='{"old":1}'), draft("b", "3"), draft("c", "4"))
    await put(draft("a", "1", metadata_json='{"new":1}'))
    await Journal(db).delete(collection.id, ["b"], request_id=None, tenant="t", fingerprint="f")

    async def at(seq: int) -> list[tuple[str, str]]:
        pages = documents.all_metadata(collection.id, "lines", upto_seq=seq, batch=2)
        return [(row.document_id, row.metadata_json) async for page in pages for row in page]

    assert await at(first.seq) == [("a", '{"old":1}'), ("a", '{"old":1}'), ("b", "{}"), ("c", "{}")]
    assert await at(first.seq + 2) == [("c", "{}"), ("a", '{"new":1}')]

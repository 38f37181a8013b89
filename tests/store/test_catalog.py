"""Collections, versions, and the pointer to the one that serves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ragstone.errors import AlreadyExists, Conflict, NotFound
from retrieval.store.catalog import Catalog, CollectionRow, VersionRow
from retrieval.store.database import Database
from retrieval.store.documents import Documents
from retrieval.store.journal import Committed, DocumentDraft, Journal

Drafter = Callable[..., DocumentDraft]
Put = Callable[..., Awaitable[Committed]]


@pytest.fixture
def catalog(db: Database) -> Catalog:
    return Catalog(db)


async def second(catalog: Catalog, collection: CollectionRow) -> VersionRow:
    row = await catalog.begin_version(collection.id, recipe="{}", space="s2", dim=2, chunking="words")
    await catalog.set_state(row.id, "ready", expect="building")
    return await catalog.version(collection.id, row.name)


async def test_created_collection_is_served_by_its_first_version(
    catalog: Catalog, collection: CollectionRow
) -> None:
    assert await catalog.get("books") == collection
    (version,) = await catalog.versions(collection.id)
    assert (version.id, version.name, version.state) == (collection.serving_version_id, "v1", "serving")
    assert await catalog.version(collection.id, "v1") == version


async def test_times_come_from_the_clock_and_stay_aware(db: Database) -> None:
    now = datetime(2026, 5, 17, 12, 30, tzinfo=UTC)
    catalog = Catalog(db, clock=lambda: now)
    await catalog.create("a", recipe="{}", space="s", dim=1, chunking="c")
    assert (await catalog.get("a")).created_at == now


async def test_taken_name_is_refused(catalog: Catalog, collection: CollectionRow) -> None:
    with pytest.raises(AlreadyExists, match="books"):
        await catalog.create("books", recipe="{}", space="s", dim=1, chunking="c")


async def test_collections_are_listed_by_name(catalog: Catalog) -> None:
    for name in ("b", "c", "a"):
        await catalog.create(name, recipe="{}", space="s", dim=1, chunking="c")
    assert [row.name for row in await catalog.list()] == ["a", "b", "c"]


async def test_unknown_names_are_not_found(catalog: Catalog, collection: CollectionRow) -> None:
    for call in (
        catalog.get("nothing"),
        catalog.delete("nothing"),
        catalog.version(collection.id, "v9"),
        catalog.counts(99),
        catalog.begin_version(99, recipe="{}", space="s", dim=1, chunking="c"),
        catalog.promote(replace(collection, id=99), 1, expect="ready"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_versions_are_named_one_after_another_and_no_name_comes_back(
    catalog: Catalog, collection: CollectionRow
) -> None:
    names = []
    for _ in range(3):
        version = await second(catalog, collection)
        names.append(version.name)
        await catalog.set_state(version.id, "deleted", expect="ready")
    assert names == ["v2", "v3", "v4"]
    assert [row.name for row in await catalog.versions(collection.id)] == ["v1"]


@pytest.mark.parametrize("state", ["building", "catching_up", "paused"])
async def test_a_second_rebuild_is_refused_while_one_is_under_way(
    state: str, catalog: Catalog, collection: CollectionRow
) -> None:
    recipe: dict[str, Any] = {"recipe": "{}", "space": "s", "dim": 1, "chunking": "c"}
    first = await catalog.begin_version(collection.id, **recipe)
    if state != first.state:
        await catalog.set_state(first.id, state, expect=first.state)
    with pytest.raises(Conflict, match=f"v2 is {state}"):
        await catalog.begin_version(collection.id, **recipe)


async def test_a_promotion_moves_the_pointer_and_both_states(
    catalog: Catalog, collection: CollectionRow
) -> None:
    version = await second(catalog, collection)
    moved = await catalog.promote(collection, version.id, expect="ready", detail={"forced": True})
    assert moved == await catalog.get("books")
    assert (moved.serving_version_id, moved.generation) == (version.id, 2)
    assert [row.state for row in await catalog.versions(collection.id)] == ["retiring", "serving"]
    last = (await catalog.events(version.id))[-1]
    assert (last.event, last.detail["forced"]) == ("serving", True)
    assert last.detail["instead_of"] == collection.serving_version_id


async def test_one_of_two_promoters_wins(catalog: Catalog, collection: CollectionRow) -> None:
    versions = [await second(catalog, collection) for _ in range(2)]
    promotions = (catalog.promote(collection, version.id, expect="ready") for version in versions)
    results = await asyncio.gather(*promotions, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["CollectionRow", "Conflict"]
    states = sorted(row.state for row in await catalog.versions(collection.id))
    assert states == ["ready", "retiring", "serving"]


async def test_state_changes_only_from_the_expected_one(catalog: Catalog, collection: CollectionRow) -> None:
    version = await second(catalog, collection)
    await catalog.set_state(version.id, "serving", expect="ready")
    with pytest.raises(Conflict):
        await catalog.set_state(version.id, "deleted", expect="ready")
    assert (await catalog.version(collection.id, "v2")).state == "serving"


async def test_counts_follow_upserts_replacements_and_deletions(
    db: Database, catalog: Catalog, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    assert await catalog.counts(collection.id) == (0, 0)
    await put(draft("a", "one\ntwo"), draft("b", "three"))
    assert await catalog.counts(collection.id) == (2, 3)
    await put(draft("a", "one\ntwo\nfour\nfive"))
    assert await catalog.counts(collection.id) == (2, 5)
    await Journal(db).delete(collection.id, ["a"], request_id=None, tenant="t", fingerprint="f")
    assert await catalog.counts(collection.id) == (1, 1)


async def test_deleted_collection_takes_everything_with_it_and_frees_its_name(
    db: Database, catalog: Catalog, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    committed = await put(draft("a", "one\ntwo"), request_id="r")
    assert committed.step is not None
    version = await second(catalog, collection)
    assert await catalog.delete("books") == [collection.serving_version_id, version.id]
    again = await catalog.create("books", recipe="{}", space="s2", dim=2, chunking="lines")
    assert again.id != collection.id
    assert await catalog.versions(collection.id) == []
    assert await Documents(db).chunks([chunk.key for chunk in committed.step.added]) == {}
    assert await Documents(db).get(collection.id, "a") is None
    assert await Journal(db).head(collection.id) == 0


async def test_deleting_one_collection_leaves_the_others(
    db: Database, catalog: Catalog, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    await put(draft("a", "one"))
    await catalog.create("other", recipe="{}", space="s2", dim=2, chunking="lines")
    await catalog.delete("other")
    assert await catalog.counts(collection.id) == (1, 1)


async def test_deleted_collection_takes_no_more_writes(
    catalog: Catalog, collection: CollectionRow, draft: Drafter, put: Put
) -> None:
    await catalog.delete("books")
    with pytest.raises(NotFound):
        await put(draft("a", "one"))


async def test_interrupted_deletion_is_finished_by_purge(
    db: Database,
    catalog: Catalog,
    collection: CollectionRow,
    draft: Drafter,
    put: Put,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await put(draft("a", "one"))

    async def crash(*_: object) -> None:
        raise ConnectionAbortedError

    monkeypatch.setattr(Catalog, "_purge", crash)
    with pytest.raises(ConnectionAbortedError):
        await catalog.delete("books")
    monkeypatch.undo()
    with pytest.raises(NotFound):
        await catalog.get("books")
    assert await catalog.purge() == [collection.serving_version_id]
    assert await Documents(db).get(collection.id, "a") is None
    assert await catalog.purge() == []

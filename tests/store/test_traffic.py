"""The shares of live searches that the catalog keeps."""

from __future__ import annotations

import pytest

from ragstone.errors import Conflict, FailedPrecondition
from retrieval.store.catalog import Catalog, CollectionRow, VersionRow
from retrieval.store.database import Database
from retrieval.store.traffic import Shares
from retrieval.store.values import TrafficRow

HALF = TrafficRow(shadow=0.5, canary=0.5, observed={"canary": {"answered": 3}})


@pytest.fixture
def catalog(db: Database) -> Catalog:
    return Catalog(db)


@pytest.fixture
def shares(db: Database) -> Shares:
    return Shares(db)


async def ready(catalog: Catalog, collection: CollectionRow) -> VersionRow:
    row = await catalog.begin_version(collection.id, recipe="{}", space="s2", dim=2, chunking="words")
    await catalog.set_state(row.id, "ready", expect="building")
    return await catalog.version(collection.id, row.name)


async def test_shares_come_back_as_they_were_set(
    catalog: Catalog, shares: Shares, collection: CollectionRow
) -> None:
    version = await ready(catalog, collection)
    assert await shares.of(collection.id) == {}
    for row in (HALF, TrafficRow(shadow=0.0, canary=0.25, observed={})):
        await shares.set(version, row)
        assert await shares.of(collection.id) == {version.id: row}


async def test_another_state_than_the_caller_has_seen_is_a_conflict(
    catalog: Catalog, shares: Shares, collection: CollectionRow
) -> None:
    version = await ready(catalog, collection)
    await catalog.promote(collection, version.id, expect="ready")
    with pytest.raises(Conflict, match="v2 is no longer ready"):
        await shares.set(version, HALF)


async def test_a_second_canary_is_refused_by_the_name_of_the_first(
    catalog: Catalog, shares: Shares, collection: CollectionRow
) -> None:
    first, second = await ready(catalog, collection), await ready(catalog, collection)
    other = await catalog.create("others", recipe="{}", space="s2", dim=2, chunking="lines")
    elsewhere = await ready(catalog, other)
    await shares.set(first, HALF)
    await shares.set(elsewhere, HALF)
    with pytest.raises(FailedPrecondition, match="version v2 is the canary"):
        await shares.set(second, HALF)
    await shares.set(second, TrafficRow(shadow=1.0, canary=0.0, observed={}))
    assert set(await shares.of(collection.id)) == {first.id, second.id}


async def test_what_is_observed_replaces_what_was_and_brings_no_traffic_back(
    catalog: Catalog, shares: Shares, collection: CollectionRow
) -> None:
    version = await ready(catalog, collection)
    await shares.observe(version.id, {"seen": 1})
    assert await shares.of(collection.id) == {}
    await shares.set(version, HALF)
    await shares.observe(version.id, {"seen": 2})
    row = (await shares.of(collection.id))[version.id]
    assert (row.shadow, row.canary, row.observed) == (0.5, 0.5, {"seen": 2})


async def test_a_canary_is_stopped_together_with_the_event(
    catalog: Catalog, shares: Shares, collection: CollectionRow
) -> None:
    version = await ready(catalog, collection)
    await shares.set(version, HALF)
    await shares.stop_canary(version.id, {"seen": 2}, detail={"failures": 0.5})
    row = (await shares.of(collection.id))[version.id]
    assert (row.shadow, row.canary, row.observed) == (0.5, 0.0, {"seen": 2})
    event = (await catalog.events(version.id))[-1]
    assert (event.event, event.detail) == ("canary_stopped", {"failures": 0.5})


async def test_traffic_ends_with_the_state_that_it_was_given_in(
    catalog: Catalog, shares: Shares, collection: CollectionRow
) -> None:
    version = await ready(catalog, collection)
    await shares.set(version, HALF)
    await catalog.set_state(version.id, "deleted", expect="ready")
    assert await shares.of(collection.id) == {}
    await shares.stop_canary(version.id, {}, detail={})
    assert [event.event for event in await catalog.events(version.id)] == ["ready", "deleted"]


async def test_a_promotion_ends_the_traffic_of_the_whole_collection(
    catalog: Catalog, shares: Shares, collection: CollectionRow
) -> None:
    first, second = await ready(catalog, collection), await ready(catalog, collection)
    await shares.set(second, HALF)
    await catalog.promote(collection, first.id, expect="ready")
    assert await shares.of(collection.id) == {}

"""Homes of versions, and the end of what versions had in a store that others share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from ragstone.errors import BackendUnavailable
from retrieval.store.catalog import Catalog
from retrieval.store.database import Database
from retrieval.store.doomed import DoomedIndexes
from retrieval.store.values import utc_now
from retrieval.versions.homes import Homes
from retrieval.versions.parts import Opener
from retrieval.versions.recipe import PinnedRecipe

RECIPE = PinnedRecipe.model_validate({"index": {"kind": "shared", "url": "store://here"}})


class SharedStore:
    """A store with the indexes of others in it; an opener as far as homes need one."""

    def __init__(self) -> None:
        self.indexes = {"somebody_elses"}
        self.away = False

    def is_shared(self, kind: str) -> bool:
        return kind == "shared"

    async def drop_shared(self, kind: str, *, name: str, options: Mapping[str, object]) -> None:
        assert options == {"url": "store://here"}
        if self.away:
            raise BackendUnavailable("the store is away")
        self.indexes.discard(name)


class Clock:
    now = utc_now()

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    yield database
    await database.close()


@pytest.fixture
def store() -> SharedStore:
    return SharedStore()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def homes(database: Database, store: SharedStore, clock: Clock, tmp_path: Path) -> Homes:
    """As a server makes them when it starts."""
    catalog = Catalog(database)
    return Homes(
        root=tmp_path / "versions",
        identity=await catalog.identity(),
        opener=cast(Opener, store),
        catalog=catalog,
        doomed=DoomedIndexes(database, clock=clock),
    )


async def living_version(database: Database) -> int:
    row = await Catalog(database).create("docs", recipe="{}", space="s", dim=2, chunking="c")
    return row.serving_version_id


async def test_a_catalog_keeps_its_identity_and_no_other_has_it(database: Database, tmp_path: Path) -> None:
    identity = await Catalog(database).identity()
    assert await Catalog(database).identity() == identity
    other = await Database.open(f"sqlite:///{tmp_path / 'other.db'}")
    assert await Catalog(other).identity() != identity
    await other.close()


async def test_names_are_short_and_of_letters_and_digits(homes: Homes) -> None:
    name = homes.of(2**31 - 1).of("lexical").name
    assert name.replace("_", "a").isalnum()
    assert name.islower()
    assert len(name) <= 50


async def test_clearing_a_home_drops_its_index_and_nobody_elses(homes: Homes, store: SharedStore) -> None:
    store.indexes.add(homes.of(7).of("dense").name)
    await homes.doom(7, RECIPE)
    await homes.clear(7, RECIPE)
    assert store.indexes == {"somebody_elses"}


async def test_what_a_store_keeps_that_is_away_is_swept_when_it_is_back(
    homes: Homes, store: SharedStore, clock: Clock
) -> None:
    store.indexes.add(homes.of(7).of("dense").name)
    store.away = True
    await homes.doom(7, RECIPE)
    await homes.clear(7, RECIPE)
    await homes.sweep()
    assert len(store.indexes) == 2
    store.away = False
    clock.now += timedelta(minutes=10)
    await homes.sweep()
    assert store.indexes == {"somebody_elses"}


async def test_a_version_that_could_not_be_deleted_keeps_its_index(
    homes: Homes, store: SharedStore, database: Database
) -> None:
    version_id = await living_version(database)
    name = homes.of(version_id).of("dense").name
    store.indexes.add(name)
    await homes.doom(version_id, RECIPE)
    await homes.sweep()
    assert name in store.indexes


async def test_a_trial_leaves_nothing(homes: Homes, store: SharedStore) -> None:
    with pytest.raises(RuntimeError):
        async with homes.trial(RECIPE) as home:
            store.indexes.add(home.of("dense").name)
            raise RuntimeError
    assert store.indexes == {"somebody_elses"}


async def test_a_trial_that_a_crash_ended_is_swept_when_none_could_go_on(
    homes: Homes, store: SharedStore, clock: Clock
) -> None:
    crashed = homes.trial(RECIPE)
    home = await crashed.__aenter__()
    store.indexes.add(home.of("dense").name)
    await homes.sweep()
    assert home.of("dense").name in store.indexes
    clock.now += timedelta(hours=1)
    await homes.sweep()
    assert store.indexes == {"somebody_elses"}

"""Which server builds a version: one at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from retrieval.store.database import Database
from retrieval.store.ownership import Ownership


@pytest.fixture
async def two(postgres: Callable[[], str]) -> AsyncIterator[tuple[Ownership, Ownership]]:
    """Those of two servers over one catalog."""
    url = postgres()
    databases = [await Database.open(url) for _ in range(2)]
    owners = [Ownership(database) for database in databases]
    yield owners[0], owners[1]
    for owner in owners:
        await owner.close()
    for database in databases:
        await database.close()


async def test_a_version_has_one_owner_until_that_one_lets_go(two: tuple[Ownership, Ownership]) -> None:
    a, b = two
    assert await a.take(1)
    assert await a.take(1)
    assert not await b.take(1)
    assert await b.take(2)
    await a.release(1)
    assert await b.take(1)


async def test_whoever_was_broken_off_while_it_asked_owns_nothing(two: tuple[Ownership, Ownership]) -> None:
    a, b = two
    for version_id in range(10):
        asking = asyncio.create_task(a.take(version_id))
        await asyncio.sleep(0.001 * version_id)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await a.release(version_id)
        async with asyncio.timeout(10):
            while not await b.take(version_id):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_one_server_on_sqlite_owns_all(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url)
    owner = Ownership(database)
    assert await owner.take(1)
    await owner.release(1)
    await owner.close()
    await database.close()

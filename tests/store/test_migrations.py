"""The migrations build exactly the tables that the code uses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from ragstone.errors import FailedPrecondition
from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.dialects import connect
from retrieval.store.migrations import upgrade


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def definitions(connection: Connection) -> set[str]:
    """Every table and index, as SQLite spells it, without its white space."""
    rows = connection.execute(text("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'")).scalars()
    return {"".join(sql.split()) for sql in rows if sql}


async def test_migrated_database_differs_from_the_metadata_in_nothing(db: Database) -> None:
    difference = await db.read(lambda c: compare_metadata(MigrationContext.configure(c), schema.metadata))
    assert difference == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_migrated_tables_read_as_the_created_ones(db: Database, tmp_path: Path) -> None:
    with create_engine(f"sqlite:///{tmp_path / 'other.db'}").begin() as connection:
        schema.metadata.create_all(connection)
        created = definitions(connection)
    assert await db.read(definitions) == created


async def test_open_database_can_be_opened_again(url: str, db: Database) -> None:
    await db.write(lambda c: c.execute(insert(schema.sequences).values(name="a", last=7)).close())
    again = await Database.open(url)
    assert (await again.read(lambda c: c.execute(select(schema.sequences.c.last)).scalars().all())) == [7]
    await again.close()


async def test_two_processes_may_open_a_new_database_at_once(url: str) -> None:
    for db in await asyncio.gather(Database.open(url), Database.open(url)):
        assert "journal" in await db.read(tables)
        await db.close()


async def test_database_of_a_newer_release_is_refused(url: str, db: Database) -> None:
    await db.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")).close())
    with pytest.raises(FailedPrecondition):
        await Database.open(url)


def test_failed_migration_leaves_no_tables(url: str) -> None:
    engine = connect(url, readers=1).writer
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE embeddings (mine INTEGER)"))
    with pytest.raises(DBAPIError, match="already exists"), engine.begin() as connection:
        upgrade(connection)
    with engine.begin() as connection:
        assert tables(connection) == {"embeddings"}
    engine.dispose()

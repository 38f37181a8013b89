"""The migrations build exactly the tables that the code uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from ragstone.errors import FailedPrecondition
from sqlalchemy import Connection, create_engine, text

from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.migrations import upgrade


def definitions(connection: Connection) -> set[str]:
    """Every table and index, as SQLite spells it, without its white space."""
    rows = connection.execute(text("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'")).scalars()
    return {"".join(sql.split()) for sql in rows if sql}


async def test_migrated_database_differs_from_the_metadata_in_nothing(db: Database) -> None:
    difference = await db.read(lambda c: compare_metadata(MigrationContext.configure(c), schema.metadata))
    assert difference == []


async def test_migrated_tables_read_as_the_created_ones(db: Database, tmp_path: Path) -> None:
    with create_engine(f"sqlite:///{tmp_path / 'other.db'}").begin() as connection:
        schema.metadata.create_all(connection)
        created = definitions(connection)
    assert await db.read(definitions) == created


async def test_opening_again_changes_nothing(url: str, db: Database) -> None:
    before = await db.read(definitions)
    await (await Database.open(url)).close()
    assert await db.read(definitions) == before


async def test_database_of_a_newer_release_is_refused(url: str, db: Database) -> None:
    await db.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")).close())
    with pytest.raises(FailedPrecondition):
        await Database.open(url)


def test_failed_migration_leaves_no_tables(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'other.db'}", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE embeddings (mine INTEGER)"))
        connection.execute(text("BEGIN"))
        with pytest.raises(Exception, match="already exists"):
            upgrade(connection)
        connection.execute(text("ROLLBACK"))
        assert definitions(connection) == {"CREATETABLEembeddings(mineINTEGER)"}

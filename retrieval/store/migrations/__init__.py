"""Brings a database to the tables that this release reads and writes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from ragstone.errors import FailedPrecondition


def upgrade(connection: Connection) -> None:
    """Run the migrations that ``connection``'s database lacks, in its current transaction.

    Raises FailedPrecondition when the database is newer than this release.
    """
    if MigrationContext.configure(connection).get_current_revision() == _head():
        return
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise FailedPrecondition(f"this release cannot read the catalog's tables: {exc}") from exc


@cache
def _head() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config

"""The extension that the database has to have."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import errors

from ragstone.errors import FailedPrecondition

_OLDEST: Final = (0, 8)
"""The first version that goes on with a search whose filter has left too little."""


async def know_vectors(connection: psycopg.AsyncConnection[Any]) -> None:
    """Learn the types of pgvector. Raises FailedPrecondition as ``expect_extension`` does."""
    try:
        await register_vector_async(connection)
    except psycopg.ProgrammingError:
        await expect_extension(connection)
        await register_vector_async(connection)


async def expect_extension(connection: psycopg.AsyncConnection[Any]) -> None:
    """Have the extension in the database. Raises FailedPrecondition where it cannot be, or is too old."""
    version = await _version(connection)
    if version is None:
        try:
            # Two servers may both find nothing; either makes it.
            with suppress(errors.UniqueViolation):
                await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except (errors.FeatureNotSupported, errors.UndefinedFile, errors.InsufficientPrivilege) as exc:
            raise _refused(
                "the database has no extension 'vector', and it cannot be created: install pgvector, and let "
                "a superuser run CREATE EXTENSION vector"
            ) from exc
        version = await _version(connection)
    if version is None or tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise _refused(f"the database has pgvector {version}; 0.8 or later is needed")


async def _version(connection: psycopg.AsyncConnection[Any]) -> str | None:
    cursor = await connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


def _refused(description: str) -> FailedPrecondition:
    return FailedPrecondition.at("recipe.index.url", description)

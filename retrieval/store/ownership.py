"""Which server builds a version: one at a time, and another one as soon as that one is gone."""

from __future__ import annotations

import asyncio

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ragstone.errors import BackendUnavailable
from retrieval.store.database import Database
from retrieval.store.dialects import lock_version


class Ownership:
    """Locks on versions that are being built, each on a connection of its own.

    They are PostgreSQL's advisory locks, which end with the connection: no server has to be declared dead.
    One that loses its connection and builds on may embed some texts a second time; the states of versions are
    compare-and-set, so no more can come of it. SQLite has one server, which owns all.
    """

    def __init__(self, db: Database) -> None:
        self._engine: Engine | None = db.listener
        self._held: dict[int, Connection] = {}

    async def take(self, version_id: int) -> bool:
        """Own a version from now on; False while another server does. Raises BackendUnavailable."""
        engine = self._engine
        if engine is None or version_id in self._held:
            return True
        locking = asyncio.get_running_loop().run_in_executor(None, lock_version, engine, version_id)
        try:
            connection = await asyncio.shield(locking)
        except asyncio.CancelledError:
            # The lock may be had all the same, and nobody would end it.
            locking.add_done_callback(_end)
            raise
        except SQLAlchemyError as exc:
            raise BackendUnavailable("the catalog's database does not answer") from exc
        if connection is None:
            return False
        self._held[version_id] = connection
        return True

    async def release(self, version_id: int) -> None:
        """Own it no longer."""
        connection = self._held.pop(version_id, None)
        if connection is not None:
            await asyncio.to_thread(connection.close)

    async def close(self) -> None:
        """Own nothing any more."""
        for version_id in list(self._held):
            await self.release(version_id)


def _end(locking: asyncio.Future[Connection | None]) -> None:
    if not locking.cancelled() and locking.exception() is None and (connection := locking.result()):
        connection.close()

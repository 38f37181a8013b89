"""The sweeper: versions that served before are kept for a rollback, and then swept with all they left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from ragstone.errors import RagstoneError
from retrieval.store.catalog import Catalog
from retrieval.store.values import utc_now
from retrieval.versions.collections import Collections
from retrieval.versions.homes import Homes
from retrieval.versions.lifecycle import State
from retrieval.versions.service import Versions

log = structlog.get_logger(__name__)

_LOOK_S: Final = 60.0


class Sweeper:
    """Deletes *retiring* versions when their rollback window is over, and what deleted ones left in a store
    that was away."""

    def __init__(
        self,
        *,
        versions: Versions,
        collections: Collections,
        catalog: Catalog,
        homes: Homes,
        window_s: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._versions = versions
        self._collections = collections
        self._catalog = catalog
        self._homes = homes
        self._window = timedelta(seconds=window_s)
        self._clock = clock

    async def run(self) -> None:
        """Look once a minute; never returns."""
        while True:
            try:
                await self.sweep()
                await self._homes.sweep()
            except RagstoneError as exc:
                # Somebody else's promotion or deletion came first, or the disk failed: it is looked at again.
                log.warning("sweep_failed", reason=exc.message)
            await asyncio.sleep(min(_LOOK_S, max(1.0, self._window.total_seconds())))

    async def sweep(self) -> int:
        """Delete what is due; the bytes that it freed."""
        freed, now = 0, self._clock()
        for collection in self._collections.all():
            for version in await self._catalog.versions(collection.row.id):
                if version.state != State.RETIRING:
                    continue
                events = await self._catalog.events(version.id)
                since = [event.created_at for event in events if event.event == State.RETIRING]
                if now - since[-1] >= self._window:
                    freed += await self._versions.delete(collection.row.name, version.name)
        return freed

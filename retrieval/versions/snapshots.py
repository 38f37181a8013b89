"""Leases of the serving version: one snapshot for the whole of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ragstone.errors import NotFound
from retrieval.store.values import CollectionRow, VersionRow
from retrieval.versions.applier import Applier
from retrieval.versions.parts import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a request sees from its first line to its last: one version of one collection."""

    collection: CollectionRow
    version: VersionRow
    parts: Parts
    applier: Applier


class Serving:
    """The serving snapshot of one collection, and the requests that hold it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._leases = 0
        self._retired = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot, for those who do not search it."""
        return self._snapshot

    @contextmanager
    def lease(self) -> Iterator[Snapshot]:
        """Hold the snapshot: it is not closed before the last lease ends.

        Raises NotFound when the collection is on its way out.
        """
        if self._retired:
            raise NotFound(f"collection {self._snapshot.collection.name!r} is being deleted")
        self._leases += 1
        self._idle.clear()
        try:
            yield self._snapshot
        finally:
            self._leases -= 1
            if self._leases == 0:
                self._idle.set()

    async def retire(self) -> None:
        """Refuse new leases and wait for the last one to end."""
        self._retired = True
        await self._idle.wait()

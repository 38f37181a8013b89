"""Several servers over one catalog: each follows what the others write, create, promote and delete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

import structlog

from ragstone.errors import NotFound, RagstoneError
from retrieval.store.catalog import Catalog
from retrieval.store.journal import Journal
from retrieval.store.notices import Notices
from retrieval.store.values import CollectionRow, VersionRow
from retrieval.versions.collections import Collections
from retrieval.versions.leaving import Leaving
from retrieval.versions.lifecycle import FOLLOWING
from retrieval.versions.rebuild import Rebuilds
from retrieval.versions.snapshots import OpenCollection
from retrieval.versions.traffic import Traffics

log = structlog.get_logger(__name__)

_REPORT_S: Final = 60.0
"""How often a server says how far it is, also when it has nothing to do."""


class Replication:
    """Brings what is open on this server to what the catalog says. Belongs to one event loop."""

    def __init__(
        self,
        *,
        collections: Collections,
        rebuilds: Rebuilds,
        leaving: Leaving,
        traffic: Traffics,
        catalog: Catalog,
        journal: Journal,
        notices: Notices,
    ) -> None:
        self._collections = collections
        self._rebuilds = rebuilds
        self._leaving = leaving
        self._traffic = traffic
        self._catalog = catalog
        self._journal = journal
        self._notices = notices
        self._states: dict[int, str] = {}
        """The state of each version when it was last looked at."""
        self._revision = -1
        """That of the catalog with which all here agrees."""
        self._agreeing: asyncio.Task[None] | None = None
        self._reported_at = monotonic()

    async def run(self) -> None:
        """Look whenever another server has written, and once in a while; never returns."""
        try:
            while True:
                await self._notices.wait()
                await _try(self.hear)
                # Apart: a collection that is opened may take long, and others must hear of writes meanwhile.
                if self._agreeing is None or self._agreeing.done():
                    self._agreeing = asyncio.create_task(_try(self.agree), name="catalog follower")
        finally:
            if self._agreeing is not None:
                self._agreeing.cancel()
                await asyncio.wait([self._agreeing])

    async def hear(self) -> None:
        """Tell every follower how far the journal is."""
        collections = self._collections.all()
        heads = await self._journal.heads([collection.row.id for collection in collections])
        for collection in collections:
            for follower in collection.followers.values():
                follower.snapshot.applier.hear(heads[collection.row.id])

    async def agree(self) -> None:
        """Open, close and switch what others have created, deleted and promoted."""
        revision = await self._catalog.revision()
        if revision != self._revision or self._collections.waiting:
            agreed = await self._open_and_close()
            for collection in self._collections.all():
                agreed &= await self._follow(collection)
            if agreed:
                self._revision = revision
        if monotonic() - self._reported_at > _REPORT_S:
            self._reported_at = monotonic()
            for collection in self._collections.all():
                await self._collections.report(collection)

    async def _open_and_close(self) -> bool:
        """Whether nothing is left to be opened."""
        for collection in await self._collections.vanished():
            await self._leaving.leave(collection)
            await self._collections.forget(collection)
        for opened in await self._collections.look():
            self._rebuilds.open_for(opened)
        return not self._collections.waiting

    async def _follow(self, collection: OpenCollection) -> bool:
        """Follow the changes of one collection's versions; whether all was done."""
        if collection.changing.locked():
            # What is changed here tells the catalog, and is not told by it.
            return False
        async with collection.changing:
            try:
                row = await self._catalog.get(collection.row.name)
            except NotFound:
                return False
            if row.id != collection.row.id:
                return False
            await self._follow_versions(collection, row)
            if row.generation != collection.row.generation:
                await self._follow_promotion(collection, row)
                return False  # What served until then may be gone from the catalog.
        return True

    async def _follow_versions(self, collection: OpenCollection, row: CollectionRow) -> None:
        versions = {version.id: version for version in await self._catalog.versions(row.id)}
        for version_id, gone in _known(collection).items():
            if version_id not in versions and gone is not collection.snapshot.version:
                await self._leaving.drop(collection, gone)
                self._states.pop(version_id, None)
        for version in versions.values():
            before = self._states.get(version.id)
            self._states[version.id] = version.state
            if version.id not in _known(collection):
                collection.resting[version.id] = version
            if version.id in collection.followers or self._rebuilds.knows(version.id):
                if version.state not in FOLLOWING:
                    await self._leaving.rest(collection, version)
            elif version.state in FOLLOWING and version.state != before:
                self._rebuilds.start(collection, version)

    async def _follow_promotion(self, opened: OpenCollection, row: CollectionRow) -> None:
        """Let that version answer here which another server has promoted, if it is open already.

        Raises FailedPrecondition while it is not as far as the one that answers.
        """
        follower = opened.followers.get(row.serving_version_id)
        if follower is None:
            return
        async with opened.succession(follower):
            opened.row, opened.serving = row, follower
            self._traffic.end(opened)
        log.info("promotion_followed", collection=row.name, version=follower.snapshot.version.name)


async def _try(look: Callable[[], Awaitable[None]]) -> None:
    """What fails, since the catalog is away or somebody was quicker, is done by the next look."""
    try:
        await look()
    except RagstoneError as exc:
        log.warning("look_failed", reason=exc.message)
    except Exception:
        log.exception("look_failed")


def _known(collection: OpenCollection) -> dict[int, VersionRow]:
    """All versions that this server has heard of, by their ids."""
    opened = {key: follower.snapshot.version for key, follower in collection.followers.items()}
    return {**collection.resting, **opened}

"""Traffic: versions that do not serve yet are tried on a share of the live searches."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from ragstone.errors import FailedPrecondition, RagstoneError
from ragstone.types import Traffic
from retrieval.config import Settings
from retrieval.store.catalog import Catalog
from retrieval.store.traffic import CANARY_STOPPED, Shares
from retrieval.store.values import TrafficRow, VersionRow
from retrieval.telemetry import Metrics
from retrieval.versions.asking import Ask
from retrieval.versions.collections import Collections
from retrieval.versions.lifecycle import Action, require
from retrieval.versions.rebuild import Rebuilds, Yielding
from retrieval.versions.routing import CollectionTraffic, VersionTraffic
from retrieval.versions.shadow import follow_searches
from retrieval.versions.snapshots import OpenCollection

log = structlog.get_logger(__name__)

_LOOK_S: Final = 2.0
"""How often canaries are held to their gates, and what was seen goes into the catalog."""


class Traffics:
    """The traffic of all versions of a server. Belongs to one event loop."""

    def __init__(
        self,
        *,
        collections: Collections,
        catalog: Catalog,
        shares: Shares,
        rebuilds: Rebuilds,
        ask: Ask,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._collections = collections
        self._catalog = catalog
        self._shares = shares
        self._rebuilds = rebuilds
        self._ask = ask
        self._settings = settings
        self._metrics = metrics
        self._known: dict[int, VersionTraffic] = {}
        """All that has traffic, or had in its present state, by version."""
        self._shadows: dict[int, asyncio.Task[None]] = {}
        self._writing = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Go on with the shares that the catalog has, and keep what is seen."""
        for collection in self._collections.all():
            rows = await self._shares.of(collection.row.id)
            for version in await self._catalog.versions(collection.row.id):
                if version.id in rows:
                    self._known[version.id] = self._begin(collection, version, rows[version.id])
            self._route(collection)
        self._keeping = asyncio.create_task(self._keep(), name="version traffic")

    async def close(self) -> None:
        """End it for this process; the next start goes on with it."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        for collection in self._collections.all():
            collection.traffic = None
        shadows = list(self._shadows.values())
        for shadow in shadows:
            shadow.cancel()
        await asyncio.gather(*shadows, return_exceptions=True)
        await self.look()

    async def set(self, collection: str, name: str, *, shadow: float | None, canary: float | None) -> None:
        """Give a version shares of the live searches, 0 to 1; None leaves one as it is.

        Raises NotFound, FailedPrecondition naming its state or the collection's other canary.
        """
        opened = self._collections.get(collection)
        row = await self._catalog.version(opened.row.id, name)
        require(Action.SEND_TRAFFIC, name, row.state)
        await self._rebuilds.wait_until_following(row.id)
        if row.id not in opened.followers:
            raise FailedPrecondition(f"version {name} could not be opened: the server's log says why")
        async with self._writing:
            traffic = self._known.get(row.id) or self._begin(
                opened, row, TrafficRow(shadow=0.0, canary=0.0, observed={})
            )
            await self._write(traffic)
            shares = TrafficRow(
                shadow=traffic.shadow if shadow is None else shadow,
                canary=traffic.canary if canary is None else canary,
                observed=traffic.observed(),
            )
            await self._shares.set(row, shares)
            # Not ``shares``: a share that is to stay may have been taken away meanwhile.
            traffic.share(shadow=shadow, canary=canary)
            self._known[row.id] = traffic
            self._route(opened)
        log.info(
            "traffic_set", collection=collection, version=name, shadow=shares.shadow, canary=shares.canary
        )

    def end(self, collection: OpenCollection, version_id: int | None = None) -> None:
        """Forget the traffic of a version, or of all, that the catalog has none of any more."""
        for traffic in self._of(collection):
            if version_id in (None, traffic.version.id):
                del self._known[traffic.version.id]
                self._end_shadow(traffic.version.id)
        self._route(collection)

    def describe(self, version_id: int) -> Traffic | None:
        """What was seen of a version; None when it was given no traffic in its present state."""
        traffic = self._known.get(version_id)
        return None if traffic is None else traffic.describe()

    async def look(self) -> None:
        """Hold canaries to their gates, and write down what was seen since the last time."""
        for traffic in list(self._known.values()):
            traffic.check()
            async with self._writing:
                try:
                    await self._write(traffic)
                except RagstoneError as exc:
                    traffic.changed = True
                    log.warning("traffic_not_kept", version=traffic.version.name, reason=exc.message)
        for collection in self._collections.all():
            if collection.traffic is not None:
                self._route(collection)

    # -- inside ----------------------------------------------------------------------------------------

    def _of(self, collection: OpenCollection) -> list[VersionTraffic]:
        return [one for one in self._known.values() if one.version.collection_id == collection.row.id]

    def _begin(self, collection: OpenCollection, version: VersionRow, row: TrafficRow) -> VersionTraffic:
        return VersionTraffic(
            version,
            row,
            collection=collection.row.name,
            serving_space=collection.snapshot.version.space,
            settings=self._settings.traffic,
            trials=self._metrics.trials(collection.row.name),
            when_stopped=self._stopped.set,
        )

    def _route(self, collection: OpenCollection) -> None:
        """Let the collection's searches see who has a share, and no more than that."""
        own = self._of(collection)
        active = [traffic for traffic in own if traffic.shadow or traffic.canary]
        collection.traffic = CollectionTraffic(active, collection.followers) if active else None
        for traffic in own:
            if not traffic.shadow:
                self._end_shadow(traffic.version.id)
            elif traffic.version.id not in self._shadows:
                self._shadows[traffic.version.id] = self._begin_shadow(collection, traffic)

    def _begin_shadow(self, collection: OpenCollection, traffic: VersionTraffic) -> asyncio.Task[None]:
        rest = Yielding(collection, self._settings.rebuild)
        timeout_s = self._settings.traffic.timeout_s
        return asyncio.create_task(
            follow_searches(collection, traffic, self._ask, rest=rest, timeout_s=timeout_s),
            name=f"shadow {traffic.version.name}",
        )

    def _end_shadow(self, version_id: int) -> None:
        shadow = self._shadows.pop(version_id, None)
        if shadow is not None:
            shadow.cancel()

    async def _keep(self) -> None:
        """Look every few seconds, and at once when a canary has lost its share."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._stopped.wait()
            self._stopped.clear()
            await self.look()

    async def _write(self, traffic: VersionTraffic) -> None:
        version = traffic.version
        if traffic.stopped_by:
            detail = {**traffic.stopped_by, "reason": traffic.canary_seen.stopped}
            await self._shares.stop_canary(version.id, traffic.observed(), detail=detail)
            traffic.stopped_by = {}
            log.warning(CANARY_STOPPED, collection=traffic.collection, version=version.name, **detail)
        elif traffic.changed:
            await self._shares.observe(version.id, traffic.observed())

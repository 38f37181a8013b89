"""What is left to do on this server when a version, or a collection, is closed or goes."""

from __future__ import annotations

from retrieval.store.values import VersionRow
from retrieval.versions.adapting import Adapting
from retrieval.versions.homes import Homes
from retrieval.versions.rebuild import Rebuilds, rest_version
from retrieval.versions.recipe import PinnedRecipe
from retrieval.versions.reembedding import Reembedding
from retrieval.versions.snapshots import OpenCollection
from retrieval.versions.traffic import Traffics


class Leaving:
    """Closes versions, whoever decided that: a call to this server, or another one in the catalog."""

    def __init__(
        self,
        *,
        rebuilds: Rebuilds,
        traffic: Traffics,
        adapting: Adapting,
        reembedding: Reembedding,
        homes: Homes,
    ) -> None:
        self._rebuilds = rebuilds
        self._traffic = traffic
        self._adapting = adapting
        self._reembedding = reembedding
        self._homes = homes

    async def leave(self, opened: OpenCollection) -> None:
        """Break off what runs for a collection that is deleted."""
        self._traffic.end(opened)
        await self._rebuilds.leave(opened)

    async def drop(self, opened: OpenCollection, row: VersionRow) -> int:
        """Close a version that the catalog names no more, and remove its files; the bytes that they took."""
        await self.rest(opened, row)
        opened.resting.pop(row.id, None)
        self._reembedding.forget(row.id)
        await self._adapting.forget(opened, row)
        return await self._homes.clear(row.id, PinnedRecipe.load(row.recipe))

    async def rest(self, opened: OpenCollection, row: VersionRow) -> None:
        """Close a version; what it has made durable stays."""
        self._traffic.end(opened, row.id)
        await self._rebuilds.stop(row.id)
        follower = opened.followers.get(row.id)
        if follower is not None:
            await rest_version(opened, row, follower)

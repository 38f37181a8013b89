"""The healer: an index whose files are found damaged while it serves is built again, without downtime."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from ragstone.errors import RagstoneError
from retrieval.versions.collections import Collections
from retrieval.versions.service import Versions
from retrieval.versions.snapshots import OpenCollection, OpenVersion

log = structlog.get_logger(__name__)

_LOOK_S: Final = 1.0


class Healer:
    """Looks for damage that was found after a version was opened. The journal has all that an index held.

    A version that serves gets an equal beside it, from the stored vectors, which then serves in its place;
    one that does not serve is closed and built again.
    """

    def __init__(self, *, versions: Versions, collections: Collections) -> None:
        self._versions = versions
        self._collections = collections

    async def run(self) -> None:
        """Look once a second; never returns."""
        while True:
            await self.heal()
            await asyncio.sleep(_LOOK_S)

    async def heal(self) -> None:
        """Build again what is damaged now. What fails is tried again at the next look."""
        for collection in self._collections.all():
            for follower in list(collection.followers.values()):
                damage = follower.snapshot.parts.damage
                if damage:
                    await self._heal(collection, follower, damage)

    async def _heal(self, collection: OpenCollection, damaged: OpenVersion, damage: str) -> None:
        name, version = collection.row.name, damaged.snapshot.version.name
        log.error("index_damaged", collection=name, version=version, reason=damage, action="build it again")
        try:
            if damaged is collection.serving:
                await self._versions.replace_serving(name, reason=damage)
            else:
                await self._versions.build_again(name, version)
        except RagstoneError as exc:
            # Somebody's rebuild is under way, or somebody promoted meanwhile.
            log.warning("not_healed", collection=name, version=version, reason=exc.message)

"""Leases: a request holds one snapshot from its first line to its last, whatever is promoted meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from ragstone.errors import FailedPrecondition, NotFound
from retrieval.store.values import CollectionRow, VersionRow
from retrieval.versions.applier import Applier, Offer
from retrieval.versions.new_model import NewModel
from retrieval.versions.parts import Parts
from retrieval.versions.recipe import PinnedRecipe
from retrieval.versions.recording import Recording
from retrieval.versions.routing import CollectionTraffic

_PATIENCE_S: Final = 10.0
"""With a version that is to serve next; while it is awaited, so is it by writers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a request sees from its first line to its last: one version of one collection."""

    collection: CollectionRow
    version: VersionRow
    parts: Parts
    applier: Applier


class OpenVersion:
    """An open version, and the requests that hold it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._leases = 0
        self._retired = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def lease(self) -> Iterator[Snapshot]:
        """Hold the snapshot: it is not closed before the last lease ends.

        Raises NotFound when the version is on its way out.
        """
        if self._retired:
            name = self.snapshot.version.name
            raise NotFound(f"version {name} of {self.snapshot.collection.name!r} is being deleted")
        self._leases += 1
        self._idle.clear()
        try:
            yield self.snapshot
        finally:
            self._leases -= 1
            if self._leases == 0:
                self._idle.set()

    async def catch_up_with(self, other: OpenVersion, *, patience_s: float | None = None) -> None:
        """Return when this version sees all that ``other`` sees now. Raises FailedPrecondition."""
        own, wanted = self.snapshot.applier, other.snapshot.applier.progress.applied_seq
        try:
            async with asyncio.timeout(patience_s):
                await own.reach(wanted)
        except TimeoutError as exc:
            name, reached = self.snapshot.version.name, own.progress.applied_seq
            raise FailedPrecondition(
                f"version {name} is at seq {reached} of {wanted}: promote it when it has caught up"
            ) from exc

    async def close(self) -> None:
        """Refuse new leases, wait for the last one to end, then stop following and close the indexes."""
        self._retired = True
        await self._idle.wait()
        await self.snapshot.applier.stop()
        await self.snapshot.parts.close()


class OpenCollection:
    """A collection whose versions follow the journal; one of them serves."""

    def __init__(self, row: CollectionRow, serving: OpenVersion) -> None:
        self.row = row
        self.serving = serving
        """Replaced by a promotion, at once for all later requests."""
        self.successor: OpenVersion | None = None
        """What a promotion that is under way puts in its place."""
        self.followers: dict[int, OpenVersion] = {serving.snapshot.version.id: serving}
        """All open versions, by id."""
        self.resting: dict[int, VersionRow] = {}
        """The versions that are not open, by id: those that may go on still need the journal."""
        self.traffic: CollectionTraffic | None = None
        """The versions that get a share of the live searches beside the serving one; None while none does."""
        self.new_models: dict[str, NewModel] = {}
        """The models of versions that do not serve yet, by their spaces, and how they ask the serving one."""
        self.recording = Recording()
        """A sample of what clients ask."""
        self.changing = asyncio.Lock()
        """Held while the catalog's versions and those that are open here are changed together."""
        self.requests = 0
        """How many have begun: whoever yields to them looks whether it grows."""

    @property
    def snapshot(self) -> Snapshot:
        """The serving snapshot, for those who do not search it."""
        return self.serving.snapshot

    @property
    def recipes(self) -> dict[int, PinnedRecipe]:
        """Those of all versions that this server knows of, by their ids."""
        resting = {key: PinnedRecipe.load(row.recipe) for key, row in self.resting.items()}
        return {**resting, **{key: one.snapshot.parts.recipe for key, one in self.followers.items()}}

    @contextmanager
    def lease(self, version_id: int | None = None) -> Iterator[Snapshot]:
        """Hold the serving snapshot, or that of another open version. Raises NotFound."""
        held = self.serving if version_id is None else self.followers.get(version_id)
        if held is None:
            raise NotFound(f"version number {version_id} of {self.row.name!r} is not open")
        self.requests += 1
        with held.lease() as snapshot:
            yield snapshot

    async def wait_for(self, seq: int) -> None:
        """Return when every search that begins from now on sees journal position ``seq``.

        Raises Internal when exactly that step was parked.
        """
        answering: tuple[OpenVersion, OpenVersion | None] | None = None
        while answering != (self.serving, self.successor):
            # A promotion may begin or end meanwhile: the other version may not be as far yet.
            serving, successor = answering = self.serving, self.successor
            with serving.lease() as snapshot:
                await snapshot.applier.wait_for(seq)
            if successor is not None:
                with suppress(NotFound), successor.lease() as snapshot:
                    await snapshot.applier.reach(seq)

    @asynccontextmanager
    async def succession(self, version: OpenVersion) -> AsyncIterator[None]:
        """In the block ``version`` may be made the serving one: it sees every write that was acknowledged.

        Raises FailedPrecondition when it is too far behind.
        """
        # From here on no write is acknowledged that it lacks; before, none that the serving one lacks.
        self.successor = version
        try:
            await version.catch_up_with(self.serving, patience_s=_PATIENCE_S)
            yield
        finally:
            self.successor = None

    def open_version(self, name: str) -> int:
        """The id of an open version. Raises NotFound, FailedPrecondition naming those that are open."""
        by_name = {opened.snapshot.version.name: key for key, opened in self.followers.items()}
        if name in by_name:
            return by_name[name]
        told = f"open are {', '.join(sorted(by_name))}"
        if any(row.name == name for row in self.resting.values()):
            raise FailedPrecondition(f"version {name} of {self.row.name!r} is not open; {told}")
        raise NotFound(f"{self.row.name!r} has no version {name}; {told}")

    def offer(self, offer: Offer) -> None:
        """Hand a committed step to every follower. Steps must come in journal order."""
        for follower in self.followers.values():
            follower.snapshot.applier.offer(offer)

    async def close(self) -> None:
        """Close every version, the serving one last."""
        others = [version for version in self.followers.values() if version is not self.serving]
        for version in (*others, self.serving):
            await version.close()

"""Rebuilds: each is one more follower of the journal, run in the background until it may serve."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import structlog

from ragstone.errors import RagstoneError
from ragstone.types import Gate, Progress
from retrieval.config import RebuildSettings
from retrieval.store.catalog import Catalog
from retrieval.store.ownership import Ownership
from retrieval.store.values import VersionRow
from retrieval.versions import gates
from retrieval.versions.adapting import Adapting
from retrieval.versions.applier import Sources
from retrieval.versions.collections import Collections
from retrieval.versions.lifecycle import FOLLOWING, State
from retrieval.versions.measuring import Measuring
from retrieval.versions.recipe import GatesSpec
from retrieval.versions.snapshots import OpenCollection, OpenVersion, Snapshot

log = structlog.get_logger(__name__)

UNDER_WAY: Final = (State.BUILDING, State.CATCHING_UP)
_TURN_S: Final = 0.5
_ATTEMPTS: Final = 5
"""At counting an index at one and the same position as the catalog, while writes go on."""


class Yielding:
    """Rests after each piece of work while requests come in, so that they find the machine free."""

    def __init__(self, collection: OpenCollection, settings: RebuildSettings) -> None:
        self._collection = collection
        self._busy_share = settings.busy_share
        self._seen = collection.requests

    async def __call__(self, worked_s: float) -> None:
        """Sleep so long that work takes ``busy_share`` of the time; not at all while nobody asks."""
        asked, self._seen = self._collection.requests != self._seen, self._collection.requests
        await asyncio.sleep(worked_s * (1 / self._busy_share - 1) if asked else 0)


@dataclass(slots=True)
class Rebuild:
    """A rebuild that runs in this process."""

    task: asyncio.Task[None] | None = None
    started: float = field(default_factory=monotonic)
    done_at_start: int = 0
    opened: OpenVersion | None = None
    following: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has caught up for the first time, or has failed to."""


class Rebuilds:
    """Runs the rebuilds of a server. Belongs to one event loop."""

    def __init__(
        self,
        *,
        collections: Collections,
        catalog: Catalog,
        sources: Sources,
        measuring: Measuring,
        adapting: Adapting,
        ownership: Ownership,
        settings: RebuildSettings,
    ) -> None:
        self._collections = collections
        self._catalog = catalog
        self._sources = sources
        self._measuring = measuring
        self._adapting = adapting
        self._ownership = ownership
        self.settings = settings
        self._running: dict[int, Rebuild] = {}

    def start(self, collection: OpenCollection, version: VersionRow) -> None:
        """Open a version that does not serve, let it follow, and bring a rebuild to its end."""
        rebuild = self._running[version.id] = Rebuild()
        rebuild.task = asyncio.create_task(
            self._run(collection, version, rebuild), name=f"rebuild {version.name}"
        )
        if version.state in (*UNDER_WAY, State.READY):
            self._adapting.begin(collection, version, Yielding(collection, self.settings))

    def knows(self, version_id: int) -> bool:
        """Whether a version was started here and not stopped since."""
        return version_id in self._running

    def open(self) -> None:
        """Go on with everything that the catalog names and that does not serve."""
        for collection in self._collections.all():
            self.open_for(collection)

    def open_for(self, collection: OpenCollection) -> None:
        """Go on with the versions of one collection that do not serve."""
        for version in list(collection.resting.values()):
            if version.state in FOLLOWING:
                self.start(collection, version)

    async def wait_until_following(self, version_id: int) -> None:
        """Return when a version that is being opened, after a restart perhaps, follows the journal."""
        rebuild = self._running.get(version_id)
        if rebuild is not None:
            await rebuild.following.wait()

    async def stop(self, version_id: int) -> None:
        """Break a rebuild off; what it has made durable stays."""
        await self._adapting.stop(version_id)
        rebuild = self._running.pop(version_id, None)
        if rebuild is not None and rebuild.task is not None:
            rebuild.task.cancel()
            await asyncio.gather(rebuild.task, return_exceptions=True)

    async def leave(self, collection: OpenCollection) -> None:
        """Break off what runs for a collection that is about to be deleted."""
        for version_id in (*collection.followers, *collection.resting):
            await self.stop(version_id)

    async def close(self) -> None:
        """Break all off; the next start goes on with them."""
        for version_id in list(self._running):
            await self.stop(version_id)

    async def progress(self, snapshot: Snapshot) -> Progress:
        """How far a version is that is open and does not serve yet."""
        version, applier = snapshot.version, snapshot.applier
        total = await self._sources.chunks.live(version.collection_id, version.chunking)
        head = await self._sources.journal.head(version.collection_id)
        done = min(snapshot.parts.dense.stats().live, total)
        rate, left = self._rate(version.id, done, total)
        return Progress(
            chunks_done=done,
            chunks_total=total,
            embedded=applier.progress.embedded,
            reused=applier.progress.reused,
            chunks_per_s=rate,
            seconds_left=left,
            lag=max(0, head - applier.progress.applied_seq),
        )

    def _rate(self, version_id: int, done: int, total: int) -> tuple[float, float | None]:
        rebuild = self._running.get(version_id)
        if rebuild is None:
            return 0.0, None
        rate = max(0, done - rebuild.done_at_start) / max(1e-3, monotonic() - rebuild.started)
        return round(rate, 1), round((total - done) / rate, 1) if rate else None

    # -- one rebuild ---------------------------------------------------------------------------------

    async def _run(self, collection: OpenCollection, version: VersionRow, rebuild: Rebuild) -> None:
        try:
            try:
                version = await self._turn(version)
                if version.state not in FOLLOWING:
                    return
                await self._follow(collection, version, rebuild)
            finally:
                rebuild.following.set()
            if version.state in UNDER_WAY:
                await self._finish(collection, version, rebuild)
        except RagstoneError as exc:
            await self._give_up(collection, version, rebuild, exc.message)
        except Exception as exc:
            log.exception("rebuild_broke", version=version.name, collection=collection.row.name)
            await self._give_up(collection, version, rebuild, f"{type(exc).__name__}: {exc}")
        finally:
            await self._ownership.release(version.id)

    async def _turn(self, version: VersionRow) -> VersionRow:
        """Wait until this server is the one that builds a version, or another one has built it."""
        while version.state in UNDER_WAY and not await self._ownership.take(version.id):
            await asyncio.sleep(_TURN_S)
            version = await self._catalog.version(version.collection_id, version.name)
        return version

    async def _follow(self, collection: OpenCollection, version: VersionRow, rebuild: Rebuild) -> None:
        rest = Yielding(collection, self.settings)
        opened = rebuild.opened = await self._collections.open_version(collection.row, version, rest)
        try:
            rebuild.done_at_start = opened.snapshot.parts.dense.stats().live
            self._collections.follow(collection, opened)
            await opened.snapshot.applier.start()
        except BaseException:
            # Cancelled, or failed: what it has made durable stays, and it hears of writes no more.
            await rest_version(collection, version, opened)
            raise

    async def _finish(self, collection: OpenCollection, version: VersionRow, rebuild: Rebuild) -> None:
        assert rebuild.opened is not None
        snapshot = rebuild.opened.snapshot
        await snapshot.applier.checkpoint()
        state = version.state
        if state == State.BUILDING:
            await self._catalog.set_state(version.id, State.CATCHING_UP, expect=state)
            state = State.CATCHING_UP
        await snapshot.parts.compact()
        measured = await self.measure(collection, rebuild.opened, snapshot.parts.recipe.gates)
        await self._catalog.set_state(
            version.id, State.READY, expect=state, detail={"gates": [as_json(gate) for gate in measured]}
        )
        log.info("version_ready", version=version.name, collection=snapshot.collection.name)

    async def measure(
        self, collection: OpenCollection, candidate: OpenVersion, limits: GatesSpec
    ) -> tuple[Gate, ...]:
        """All gates of a version that follows, as they are now. Takes as long as some hundred searches."""
        rest = Yielding(collection, self.settings)
        # Held: neither may be closed before the last answer.
        with collection.lease() as serving, candidate.lease() as snapshot:
            beside = await gates.beside(
                collection, serving, snapshot, measuring=self._measuring, limits=limits, rest=rest
            )
            recall = await gates.recall(snapshot, documents=self._sources.documents, limits=limits, rest=rest)
            return (*await self.count(snapshot), recall, *beside)

    async def count(self, snapshot: Snapshot) -> tuple[Gate, ...]:
        """Whether a version has every chunk that was live where it stands."""
        counted = await gates.count(snapshot, chunks=self._sources.chunks)
        for _ in range(_ATTEMPTS):
            if all(gate.passed for gate in counted):
                break
            # A difference may be a deletion that the version, reading of the past, has heard of too early.
            await snapshot.applier.reach(await self._sources.journal.head(snapshot.version.collection_id))
            counted = await gates.count(snapshot, chunks=self._sources.chunks)
        return counted

    async def _give_up(
        self, collection: OpenCollection, version: VersionRow, rebuild: Rebuild, reason: str
    ) -> None:
        log.error("rebuild_failed", version=version.name, collection=collection.row.name, reason=reason)
        if rebuild.opened is not None:
            await rest_version(collection, version, rebuild.opened)
        for row in await self._catalog.versions(collection.row.id):
            if row.id == version.id and row.state in UNDER_WAY:
                detail = {"reason": reason}
                await self._catalog.set_state(row.id, State.FAILED, expect=row.state, detail=detail)


async def rest_version(collection: OpenCollection, version: VersionRow, opened: OpenVersion) -> None:
    """Let a version follow no longer: checkpointed as far as the disk allows, and closed."""
    # From here on nothing is pruned that it has not heard of.
    collection.resting[version.id] = version
    if collection.followers.pop(version.id, None) is None:
        return
    try:
        await opened.close()
    except RagstoneError as exc:
        log.warning("checkpoint_failed", version=version.name, reason=exc.message)


def as_json(gate: Gate) -> Mapping[str, object]:
    """A gate as an event of the catalog keeps it."""
    return {
        "name": gate.name,
        "passed": gate.passed,
        "value": gate.value,
        "limit": gate.limit,
        "detail": gate.detail,
    }

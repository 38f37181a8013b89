"""Versions: begun, watched, promoted, rolled back, paused, deleted. The calls of the service Versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from embedders.base import Embedder
from ragstone.errors import FailedPrecondition, NotFound
from ragstone.types import Comparison, Gate, GoldenQuery, QuerySource, RebuildPlan, Recipe, Version
from ragstone.types import VersionEvent as PastEvent
from retrieval.store.catalog import Catalog
from retrieval.store.values import CollectionRow, VersionEvent, VersionRow
from retrieval.versions.adapting import Adapting
from retrieval.versions.applier import Sources
from retrieval.versions.collections import Collections, describe_version
from retrieval.versions.gates import require_passed
from retrieval.versions.homes import Homes
from retrieval.versions.leaving import Leaving
from retrieval.versions.lifecycle import FOLLOWING, Action, State, require
from retrieval.versions.measuring import Asked, Measuring, questions_of
from retrieval.versions.planning import Planner
from retrieval.versions.rebuild import Rebuilds, Yielding, as_json
from retrieval.versions.recipe import PinnedRecipe, change, chunking_of
from retrieval.versions.reembedding import Reembedding
from retrieval.versions.snapshots import OpenCollection, OpenVersion, Snapshot
from retrieval.versions.traffic import Traffics

log = structlog.get_logger(__name__)

_POLL_S: Final = 0.25
_FLOAT_BYTES: Final = 4
_SETTLED: Final = (State.READY, State.SERVING, State.RETIRING, State.FAILED)


class Versions:
    """The versions of all collections of a server."""

    def __init__(
        self,
        *,
        collections: Collections,
        catalog: Catalog,
        sources: Sources,
        rebuilds: Rebuilds,
        measuring: Measuring,
        adapting: Adapting,
        planner: Planner,
        reembedding: Reembedding,
        traffic: Traffics,
        homes: Homes,
        leaving: Leaving,
    ) -> None:
        self._collections = collections
        self._catalog = catalog
        self._sources = sources
        self._rebuilds = rebuilds
        self._measuring = measuring
        self._adapting = adapting
        self._planner = planner
        self._reembedding = reembedding
        self._traffic = traffic
        self._homes = homes
        self._leaving = leaving

    async def list(self, collection: str) -> Sequence[Version]:
        """All versions, oldest first. Raises NotFound."""
        opened = self._collections.get(collection)
        return [await self._describe(opened, row) for row in await self._catalog.versions(opened.row.id)]

    async def get(self, collection: str, name: str) -> Version:
        """One version. Raises NotFound."""
        opened = self._collections.get(collection)
        return await self._describe(opened, await self._catalog.version(opened.row.id, name))

    async def create(self, collection: str, recipe: Recipe, *, paused: bool = False) -> Version:
        """Begin a rebuild into the serving version's recipe with the sections of ``recipe`` in its place.

        One that begins ``paused`` waits for ``resume``, so that re-embedding jobs can go first.
        Raises InvalidArgument naming ``recipe.<section>.<key>``, FailedPrecondition when nothing would
        change, Conflict naming the rebuild that is under way, and what a back end refuses.
        """
        opened = self._collections.get(collection)
        wanted = change(opened.snapshot.parts.recipe, recipe)
        embedder = await self._collections.attempt(wanted)
        row = await self._begin(
            opened,
            State.PAUSED if paused else State.BUILDING,
            recipe=wanted.dump(),
            space=embedder.space.id,
            dim=embedder.space.dim,
            chunking=await self._chunking(opened, wanted, embedder),
        )
        log.info("rebuild_begun", collection=collection, version=row.name, space=row.space)
        return await self._describe(opened, row)

    async def plan(self, collection: str, recipe: Recipe) -> RebuildPlan:
        """What ``create`` would do, and about what it would take; changes nothing. Raises as it does."""
        opened = self._collections.get(collection)
        wanted = change(opened.snapshot.parts.recipe, recipe)
        embedder = await self._collections.attempt(wanted)
        chunking = await self._chunking(opened, wanted, embedder)
        with opened.lease() as snapshot:
            return await self._planner.plan(snapshot, wanted, chunking)

    async def watch(self, collection: str, name: str) -> AsyncIterator[Version]:
        """The version now, and whenever it has changed, until it changes by itself no more.

        Raises NotFound.
        """
        last: Version | None = None
        while True:
            try:
                now = await self.get(collection, name)
            except NotFound:
                if last is None:
                    raise
                yield replace(last, state=State.DELETED, progress=None)
                return
            if now != last:
                yield now
            last = now
            if now.state in _SETTLED:
                return
            await asyncio.sleep(_POLL_S)

    async def promote(
        self, collection: str, name: str, *, force: bool, limits: Mapping[str, Any] | None = None
    ) -> Version:
        """Let a version serve, at once for every request that begins from now on.

        With ``limits`` in place of its recipe's gates all of them are measured anew; else only those that
        count, which is quick. Raises InvalidArgument naming ``gates.<key>``, FailedPrecondition when its
        state or its gates do not allow that (``force`` passes the gates, and is written down), Conflict when
        somebody else changed the serving version meanwhile.
        """
        opened = self._collections.get(collection)
        # Whoever asks wants this one replaced, and not what another promotion may put there meanwhile.
        before = opened.row
        row = await self._catalog.version(opened.row.id, name)
        wanted = PinnedRecipe.load(row.recipe).gates.with_(limits) if limits else None
        if row.state == State.SERVING:
            return await self.get(collection, name)
        require(Action.PROMOTE, name, row.state)
        follower = await self._open(opened, row)
        if wanted is None:
            measured = await self._count_anew(follower.snapshot)
        else:
            measured = await self._rebuilds.measure(opened, follower, wanted)
        if not force:
            require_passed(name, measured)
        detail = {"gates": [as_json(gate) for gate in measured], "forced": force}
        # While it is far behind, nobody else is to wait for it.
        await follower.catch_up_with(opened.serving)
        # A caller that leaves between the two would leave catalog and requests with different versions.
        await asyncio.shield(asyncio.create_task(self._switch(opened, before, row, follower, detail)))
        return await self.get(collection, name)

    async def compare(
        self,
        collection: str,
        a: str,
        b: str,
        *,
        queries: Sequence[GoldenQuery] = (),
        source: QuerySource | None = None,
    ) -> Comparison:
        """Ask two versions the same: ``queries``, or those of a source; without either, the first there are.

        Raises NotFound, FailedPrecondition for a version that is not open, or a source without queries.
        """
        opened = self._collections.get(collection)
        rows = [await self._catalog.version(opened.row.id, name) for name in (a, b)]
        first, second = [await self._open(opened, row) for row in rows]
        if queries:
            asked = Asked(QuerySource.GIVEN, questions_of(queries))
        else:
            asked = await self._measuring.questions(opened, source)
        rest = Yielding(opened, self._rebuilds.settings)
        with first.lease() as one, second.lease() as other:
            return await self._measuring.compare(one, other, asked, rest=rest)

    async def rollback(self, collection: str) -> Version:
        """Let the version serve again that served before. Raises FailedPrecondition when there is none."""
        opened = self._collections.get(collection)
        serving = opened.snapshot.version
        promotions = [
            event for event in await self._catalog.events(serving.id) if event.event == State.SERVING
        ]
        earlier = {row.id: row for row in await self._catalog.versions(opened.row.id)}
        row = earlier.get(promotions[-1].detail["instead_of"]) if promotions else None
        if row is None:
            raise FailedPrecondition(f"no version served {collection!r} before {serving.name}, or it is gone")
        # It served before: what its gates would say now is no reason to stay where one wants to leave.
        return await self.promote(collection, row.name, force=True)

    async def set_traffic(
        self, collection: str, name: str, *, shadow: float | None, canary: float | None
    ) -> Version:
        """Give a version that does not serve yet a share of the live searches. Raises FailedPrecondition."""
        await self._traffic.set(collection, name, shadow=shadow, canary=canary)
        return await self.get(collection, name)

    async def pause(self, collection: str, name: str) -> Version:
        """Break a rebuild off where it is, to go on later. Raises FailedPrecondition."""
        opened, row = await self._of(collection, name)
        if row.state == State.PAUSED:
            return await self.get(collection, name)
        require(Action.PAUSE, name, row.state)
        async with opened.changing:
            await self._catalog.set_state(row.id, State.PAUSED, expect=row.state, detail={"reason": "paused"})
            await self._leaving.rest(opened, row)
        return await self.get(collection, name)

    async def resume(self, collection: str, name: str) -> Version:
        """Go on with a rebuild that was paused or has failed. Raises FailedPrecondition."""
        opened, row = await self._of(collection, name)
        if row.state in (State.BUILDING, State.CATCHING_UP):
            return await self.get(collection, name)
        require(Action.RESUME, name, row.state)
        async with opened.changing:
            await self._catalog.set_state(row.id, State.BUILDING, expect=row.state)
            self._rebuilds.start(opened, replace(row, state=State.BUILDING))
        return await self.get(collection, name)

    async def replace_serving(self, collection: str, *, reason: str) -> Version:
        """Build the serving version's equal, let that serve, and delete the one that served.

        For a version whose files are damaged: its vectors are stored, so nothing is embedded. One that an
        earlier call began is taken. Raises Conflict while another rebuild is under way, and what a promotion
        raises.
        """
        opened = self._collections.get(collection)
        damaged = opened.snapshot.version
        equal = await self._equal(opened, damaged) or await self._begin(
            opened,
            State.BUILDING,
            recipe=damaged.recipe,
            space=damaged.space,
            dim=damaged.dim,
            chunking=damaged.chunking,
        )
        async for version in self.watch(collection, equal.name):
            if version.state == State.FAILED:
                raise FailedPrecondition(f"version {version.name} failed: {version.reason}")
        promoted = await self.promote(collection, equal.name, force=False)
        await self.delete(collection, damaged.name)
        log.info("index_replaced", collection=collection, version=equal.name, reason=reason)
        return promoted

    async def build_again(self, collection: str, name: str) -> None:
        """Close a version that does not serve, and build its dense index from the journal."""
        opened, row = await self._of(collection, name)
        async with opened.changing:
            await self._leaving.rest(opened, row)
            await self._homes.remove_dense(row.id, PinnedRecipe.load(row.recipe))
            self._rebuilds.start(opened, row)

    async def delete(self, collection: str, name: str) -> int:
        """Delete a version that does not serve; the bytes that its indexes and its vectors took.

        Chunks and vectors stay that another version uses. Raises FailedPrecondition for one that serves.
        """
        opened, row = await self._of(collection, name)
        require(Action.DELETE, name, row.state)
        await self._homes.doom(row.id, PinnedRecipe.load(row.recipe))
        # Not between a promotion's two steps, when this version may be the one that answers still.
        async with opened.changing:
            await self._catalog.set_state(row.id, State.DELETED, expect=row.state)
            freed = await self._leaving.drop(opened, row)
        others = await self._catalog.versions(opened.row.id)
        if all(other.chunking != row.chunking for other in others):
            await self._sources.chunks.forget(opened.row.id, row.chunking)
        if row.space not in await self._catalog.spaces():
            freed += await self._sources.embeddings.forget(row.space) * row.dim * _FLOAT_BYTES
        log.info("version_deleted", collection=collection, version=name, freed_bytes=freed)
        return freed

    # -- inside ----------------------------------------------------------------------------------------

    async def _switch(
        self,
        opened: OpenCollection,
        before: CollectionRow,
        row: VersionRow,
        follower: OpenVersion,
        detail: Mapping[str, Any],
    ) -> None:
        async with opened.changing, opened.succession(follower):
            opened.row = await self._catalog.promote(before, row.id, expect=row.state, detail=detail)
            opened.serving = follower
            # All of it: what was seen of others was beside the version that serves no longer.
            self._traffic.end(opened)
        log.info("version_promoted", collection=opened.row.name, version=row.name, forced=detail["forced"])

    async def _equal(self, opened: OpenCollection, version: VersionRow) -> VersionRow | None:
        """Another version of the same recipe that serves soon."""
        for row in await self._catalog.versions(opened.row.id):
            begun = row.state in (State.BUILDING, State.CATCHING_UP, State.READY)
            if begun and row.recipe == version.recipe and row.id != version.id:
                return row
        return None

    async def _begin(
        self, opened: OpenCollection, state: State, *, recipe: str, space: str, dim: int, chunking: str
    ) -> VersionRow:
        async with opened.changing:
            row = await self._catalog.begin_version(
                opened.row.id, recipe=recipe, space=space, dim=dim, chunking=chunking, state=state
            )
            opened.resting[row.id] = row
            if state != State.PAUSED:
                self._rebuilds.start(opened, row)
        return row

    async def _open(self, opened: OpenCollection, row: VersionRow) -> OpenVersion:
        async with opened.changing:
            pass  # It may be closed just now, to be built again.
        await self._rebuilds.wait_until_following(row.id)
        follower = opened.followers.get(row.id)
        if follower is None:
            why = "the server's log says why" if row.state in FOLLOWING else f"it is {row.state}"
            raise FailedPrecondition(f"version {row.name} is not open: {why}")
        return follower

    async def _of(self, collection: str, name: str) -> tuple[OpenCollection, VersionRow]:
        opened = self._collections.get(collection)
        return opened, await self._catalog.version(opened.row.id, name)

    async def _chunking(self, opened: OpenCollection, wanted: PinnedRecipe, embedder: Embedder) -> str:
        if wanted.embedder.kind == "precomputed":
            # Whatever it is called: nobody could cut these documents anew.
            return opened.snapshot.version.chunking
        return await asyncio.to_thread(chunking_of, wanted, embedder)

    async def _count_anew(self, candidate: Snapshot) -> tuple[Gate, ...]:
        """The gates as they were measured last, but those that count as they are now: they are quick."""
        counted, events = await asyncio.gather(
            self._rebuilds.count(candidate), self._catalog.events(candidate.version.id)
        )
        names = {gate.name for gate in counted}
        last = _gates(events)
        return (*counted, *(gate for gate in last if gate.name not in names))

    async def _history(self, opened: OpenCollection, events: Sequence[VersionEvent]) -> tuple[PastEvent, ...]:
        names = {row.id: row.name for row in await self._catalog.versions(opened.row.id)}
        return tuple(
            PastEvent(event=event.event, at=event.created_at, detail=_named(event.detail, names))
            for event in events
        )

    async def _describe(self, opened: OpenCollection, row: VersionRow) -> Version:
        follower = opened.followers.get(row.id)
        snapshot = None if follower is None else follower.snapshot
        shown = describe_version(opened.row.name, row, snapshot)
        events = await self._catalog.events(row.id)
        progress = None
        if snapshot is not None and row.state in (State.BUILDING, State.CATCHING_UP):
            progress = await self._rebuilds.progress(snapshot)
        return replace(
            shown,
            progress=progress,
            reason=_reason(row, events),
            gates=_gates(events),
            adapter=self._adapting.describe(row.id),
            history=await self._history(opened, events),
            parked=self._reembedding.parked(row.id),
            traffic=self._traffic.describe(row.id),
        )


def _reason(row: VersionRow, events: Sequence[VersionEvent]) -> str:
    if row.state not in (State.FAILED, State.PAUSED) or not events:
        return ""
    return str(events[-1].detail.get("reason", ""))


def _named(detail: Mapping[str, Any], names: Mapping[int, str]) -> Mapping[str, Any]:
    """What an event tells, with the name of the version that served before; a deleted one has none."""
    if "instead_of" not in detail:
        return detail
    return {**detail, "instead_of": names.get(detail["instead_of"], "a deleted version")}


def _gates(events: Sequence[VersionEvent]) -> tuple[Gate, ...]:
    """Those that were measured last."""
    measured = [event.detail["gates"] for event in events if "gates" in event.detail]
    return tuple(Gate(**gate) for gate in measured[-1]) if measured else ()

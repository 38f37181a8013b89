"""The open collections: created, found, deleted, each with its serving version."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import monotonic
from typing import Any, Final

import structlog

from embedders.base import Embedder
from indexes.base import IndexStats, TokenIndex
from ragstone.errors import BackendUnavailable, NotFound, SpaceMismatch
from ragstone.types import Collection, Recipe, Version
from retrieval.config import Settings
from retrieval.store.catalog import Catalog
from retrieval.store.followers import Followers
from retrieval.store.values import CollectionRow, VersionRow
from retrieval.versions.applier import Applier, Rest, Sources
from retrieval.versions.homes import Homes
from retrieval.versions.likeness import expect_same_vectors
from retrieval.versions.parts import Opener, open_parts
from retrieval.versions.recipe import PinnedRecipe, chunking_of, pin
from retrieval.versions.snapshots import OpenCollection, OpenVersion, Snapshot

log = structlog.get_logger(__name__)

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A collection that could not be opened: why, and when it is tried again."""

    reason: str
    pause_s: float
    until: float


class Collections:
    """All collections of a server, open and following."""

    def __init__(
        self,
        *,
        opener: Opener,
        catalog: Catalog,
        sources: Sources,
        homes: Homes,
        followers: Followers,
        settings: Settings,
    ) -> None:
        self._opener = opener
        self._catalog = catalog
        self._sources = sources
        self._homes = homes
        self._followers = followers
        self._settings = settings
        self._open: dict[str, OpenCollection] = {}
        self._waiting: dict[str, _Waiting] = {}
        """Collections whose model or store is away, by name."""
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Open what the catalog names and sweep the files of versions that it does not.

        A collection whose model or store is away is opened later: see ``look``.
        """
        await self._catalog.purge()
        await self.look()
        await asyncio.to_thread(self._homes.sweep_folders, await self._catalog.version_ids())

    async def look(self) -> Sequence[OpenCollection]:
        """Open those of the catalog's collections that are not open here: the ones that were opened.

        One whose model or store is away is tried again by later calls.
        """
        async with self._changing:
            rows = await self._catalog.list()
            opened = [await self._try_to_serve(row) for row in rows if self._is_due(row)]
        return [collection for collection in opened if collection is not None]

    async def vanished(self) -> Sequence[OpenCollection]:
        """Those that are open here, and that somebody else has deleted."""
        async with self._changing:
            there = {row.id: row.name for row in await self._catalog.list()}
            for name in self._waiting.keys() - set(there.values()):
                del self._waiting[name]
            return [collection for collection in self.all() if collection.row.id not in there]

    async def forget(self, collection: OpenCollection) -> None:
        """Close a collection that somebody else has deleted, and remove what it has here."""
        async with self._changing:
            if self._open.get(collection.row.name) is collection:
                await self._forget(collection.row.name, collection.recipes)
                log.info("collection_forgotten", collection=collection.row.name)

    async def close(self) -> None:
        """Checkpoint and close every collection."""
        for name in list(self._open):
            await self._open.pop(name).close()

    def all(self) -> Sequence[OpenCollection]:
        """All open collections."""
        return tuple(self._open.values())

    @property
    def waiting(self) -> bool:
        """Whether a collection is to be tried again."""
        return bool(self._waiting)

    def readiness(self) -> dict[str, bool]:
        """Whether each collection is open here and not far behind, by name."""
        limit_s = self._settings.indexing.max_lag_s
        opened = {name: one.snapshot.applier.lag_s <= limit_s for name, one in self._open.items()}
        return {**dict.fromkeys(self._waiting, False), **opened}

    def get(self, name: str) -> OpenCollection:
        """The open collection of that name. Raises NotFound, BackendUnavailable while it waits for a part."""
        if name in self._open:
            return self._open[name]
        if name in self._waiting:
            raise BackendUnavailable(f"{name!r} is not open here yet: {self._waiting[name].reason}")
        raise NotFound(
            f"there is no collection {name!r}; create it, or see the list of collections",
            metadata={"collection": name},
        )

    async def create(self, name: str, recipe: Recipe) -> Collection:
        """Create a collection, and open it.

        Raises AlreadyExists; InvalidArgument naming ``recipe.<section>.<key>``. Nothing stays behind then.
        """
        pinned = pin(recipe, self._settings.recipe)
        async with self._changing:
            embedder = await self.attempt(pinned)
            row = await self._catalog.create(
                name,
                recipe=pinned.dump(),
                space=embedder.space.id,
                dim=embedder.space.dim,
                chunking=await asyncio.to_thread(chunking_of, pinned, embedder),
            )
            self._open[name] = await self._serve(row, await self._catalog.versions(row.id))
        log.info("collection_created", collection=name, space=embedder.space.id)
        return await self.describe(name)

    async def delete(self, name: str) -> None:
        """Delete a collection with all its documents. Requests that hold it end first. Raises NotFound."""
        async with self._changing:
            collection = self.get(name)
            versions = await self._catalog.versions(collection.row.id)
            recipes = {version.id: PinnedRecipe.load(version.recipe) for version in versions}
            for version_id, recipe in recipes.items():
                await self._homes.doom(version_id, recipe)
            await self._catalog.delete(name)
            await self._forget(name, recipes)
        log.info("collection_deleted", collection=name)

    async def compact(self, name: str) -> Collection:
        """Merge what the indexes have in pieces, and checkpoint. Raises NotFound."""
        with self.get(name).lease() as snapshot:
            await snapshot.parts.compact()
            await snapshot.applier.checkpoint()
            return await self.describe(name)

    async def list(self) -> list[Collection]:
        """All collections, by name."""
        return [await self.describe(name) for name in sorted(self._open)]

    async def describe(self, name: str) -> Collection:
        """A collection as clients see it. Raises NotFound."""
        collection = self.get(name)
        row, snapshot = collection.row, collection.snapshot
        documents, chunks = await self._catalog.counts(row.id)
        return Collection(
            name=name,
            serving=describe_version(name, replace(snapshot.version, state="serving"), snapshot),
            documents=documents,
            chunks=chunks,
            seq=await self._sources.journal.head(row.id),
            created_at=row.created_at,
        )

    # -- inside --------------------------------------------------------------------------------

    async def _forget(self, name: str, recipes: Mapping[int, PinnedRecipe]) -> None:
        """Close a collection and remove what its versions, by their ids, have here and in shared stores."""
        await self._open.pop(name).close()
        for version_id, recipe in recipes.items():
            await self._homes.clear(version_id, recipe)

    def _is_due(self, row: CollectionRow) -> bool:
        waiting = self._waiting.get(row.name)
        return row.name not in self._open and (waiting is None or waiting.until <= monotonic())

    async def _try_to_serve(self, row: CollectionRow) -> OpenCollection | None:
        try:
            versions = await self._catalog.versions(row.id)
            collection = self._open[row.name] = await self._serve(row, versions)
        except BackendUnavailable as exc:
            before = self._waiting.get(row.name)
            pause_s = _FIRST_PAUSE_S if before is None else min(_LONGEST_PAUSE_S, 2 * before.pause_s)
            self._waiting[row.name] = _Waiting(exc.message, pause_s, monotonic() + pause_s)
            log.warning("collection_waits", collection=row.name, reason=exc.message, retry_s=pause_s)
            return None
        self._waiting.pop(row.name, None)
        return collection

    async def _serve(self, row: CollectionRow, versions: Sequence[VersionRow]) -> OpenCollection:
        serving = {version.id: version for version in versions}.get(row.serving_version_id)
        if serving is None:
            raise BackendUnavailable("it was changed while it was opened")
        opened = await self.open_version(row, serving)
        collection = OpenCollection(row, opened)
        # Whoever does not follow yet must find the deletions that it has not heard of.
        collection.resting.update({version.id: version for version in versions if version is not serving})
        self.follow(collection, opened)
        await opened.snapshot.applier.start(serving=True)
        return collection

    async def open_version(
        self, collection: CollectionRow, version: VersionRow, rest: Rest | None = None
    ) -> OpenVersion:
        """Open the indexes of a version; its applier stands still.

        Raises SpaceMismatch when the recipe's model is not the one any more that the version was built with.
        """
        recipe = PinnedRecipe.load(version.recipe)
        embedder = await self._opener.embedder(recipe.embedder)
        now = embedder.space.id
        if now != version.space:
            raise SpaceMismatch(
                f"version {version.name} of {collection.name!r} was built in space {version.space!r}, but "
                f"the model of its recipe is {now!r} now: put the old weights back, or pin a revision",
                metadata={"version_space": version.space, "model_space": now},
            )
        await expect_same_vectors(embedder, self._sources.embeddings)
        # Before anything is read: from here on no server prunes what this one has still to hear of.
        waited = await self._followers.enter(version.id)
        pruned_seq = 0 if waited else await self._followers.pruned(collection.id, version.chunking)
        with ExitStack() as held:
            parts = await open_parts(
                self._opener,
                recipe,
                version.chunking,
                self._homes.of(version.id),
                tokens_like=self._same_tokens(collection, version, recipe, held),
                pruned_seq=pruned_seq,
            )
        applier = Applier(
            parts,
            version,
            self._sources,
            tenant=collection.name,
            settings=self._settings.indexing,
            max_pending_chunks=self._settings.limits.max_pending_chunks,
            rest=rest,
        )
        return OpenVersion(Snapshot(collection=collection, version=version, parts=parts, applier=applier))

    def _same_tokens(
        self, collection: CollectionRow, version: VersionRow, recipe: PinnedRecipe, held: ExitStack
    ) -> TokenIndex | None:
        """That of a version whose tokens are those of ``version``, key by key. It stays open while held."""
        opened = self._open.get(collection.name)
        for follower in () if opened is None else opened.followers.values():
            other = follower.snapshot
            same_chunks = (other.version.chunking, other.version.space) == (version.chunking, version.space)
            if same_chunks and other.version.id != version.id and other.parts.recipe.tokens == recipe.tokens:
                return held.enter_context(follower.lease()).parts.tokens
        return None

    def follow(self, collection: OpenCollection, opened: OpenVersion) -> None:
        """Let an open version hear of writes, and hold what it still needs of the journal."""
        version = opened.snapshot.version
        opened.snapshot.applier.when_durable(partial(self._prune, collection, version.chunking))
        collection.followers[version.id] = opened
        collection.resting.pop(version.id, None)

    async def attempt(self, recipe: PinnedRecipe) -> Embedder:
        """The recipe's embedder. All parts are opened once, elsewhere: what a back end refuses must not
        reach the catalog. Raises SpaceMismatch when another model's vectors are stored under its space."""
        async with self._homes.trial(recipe) as home:
            parts = await open_parts(self._opener, recipe, "", home)
            await parts.close()
        await expect_same_vectors(parts.embedder, self._sources.embeddings)
        return parts.embedder

    async def report(self, collection: OpenCollection) -> None:
        """Tell other servers from where this one needs the journal."""
        snapshots = [follower.snapshot for follower in collection.followers.values()]
        await self._followers.report({one.version.id: one.applier.durable_seq for one in snapshots})

    async def _prune(self, collection: OpenCollection, chunking: str) -> None:
        """Let go of deleted chunks that no follower, here or elsewhere, has still to hear of."""
        await self.report(collection)
        elsewhere = await self._followers.slowest(collection.row.id, chunking) or 0
        # Looked at last: a version may have begun to follow meanwhile.
        if any(version.chunking == chunking for version in collection.resting.values()):
            return
        snapshots = [follower.snapshot for follower in collection.followers.values()]
        here = [one.applier.durable_seq for one in snapshots if one.version.chunking == chunking]
        if upto := min([elsewhere, *here]):
            await self._sources.journal.prune(collection.row.id, chunking, upto)


def describe_version(collection: str, row: VersionRow, snapshot: Snapshot | None) -> Version:
    """A version as clients see it; ``snapshot`` is None while it is not open."""
    return Version(
        name=row.name,
        collection=collection,
        state=row.state,
        recipe=PinnedRecipe.load(row.recipe).public(),
        space=row.space,
        dim=row.dim,
        applied_seq=0 if snapshot is None else snapshot.applier.progress.applied_seq,
        created_at=row.created_at,
        stats={} if snapshot is None else _stats(snapshot),
    )


def _stats(snapshot: Snapshot) -> Mapping[str, Any]:
    parts = snapshot.parts
    progress = snapshot.applier.progress
    return {
        "dense": _plain(parts.dense.stats()),
        "lexical": _plain(parts.lexical.stats()),
        **({} if parts.tokens is None else {"tokens": _plain(parts.tokens.stats())}),
        "pending_chunks": snapshot.applier.pending_chunks,
        "parked_steps": len(progress.parked_steps),
        "parked_chunks": len(progress.parked_chunks),
    }


def _plain(stats: IndexStats) -> dict[str, Any]:
    return {**asdict(stats), "details": dict(stats.details)}

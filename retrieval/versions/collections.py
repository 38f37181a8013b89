"""The open collections: created, found, deleted, each with its serving version."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog

from indexes.base import IndexStats
from ragstone.errors import NotFound
from ragstone.types import Collection, Recipe, Version
from retrieval.config import Settings
from retrieval.store.catalog import Catalog
from retrieval.store.documents import Documents
from retrieval.store.embeddings import Embeddings
from retrieval.store.journal import Journal
from retrieval.store.values import CollectionRow, VersionRow
from retrieval.versions.applier import Applier
from retrieval.versions.parts import Opener, open_parts
from retrieval.versions.recipe import PinnedRecipe, pin
from retrieval.versions.snapshots import Serving, Snapshot

log = structlog.get_logger(__name__)


class Collections:
    """All collections of a server, open and following."""

    def __init__(
        self,
        *,
        opener: Opener,
        catalog: Catalog,
        journal: Journal,
        documents: Documents,
        embeddings: Embeddings,
        settings: Settings,
    ) -> None:
        self._opener = opener
        self._catalog = catalog
        self._journal = journal
        self._documents = documents
        self._embeddings = embeddings
        self._settings = settings
        self._root = settings.data_dir / "versions"
        self._open: dict[str, Serving] = {}
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Open what the catalog names and sweep the files of versions that it does not."""
        await self._catalog.purge()
        rows = await self._catalog.list()
        for row in rows:
            self._open[row.name] = await self._serve(row)
        await asyncio.to_thread(self._sweep, {row.serving_version_id for row in rows})

    async def close(self) -> None:
        """Checkpoint and close every collection."""
        for name in list(self._open):
            serving = self._open.pop(name)
            await serving.retire()
            await _close(serving.snapshot)

    def get(self, name: str) -> Serving:
        """The open collection of that name. Raises NotFound."""
        try:
            return self._open[name]
        except KeyError:
            raise NotFound(
                f"there is no collection {name!r}; create it, or see the list of collections",
                metadata={"collection": name},
            ) from None

    @property
    def names(self) -> list[str]:
        """The names of the open collections, sorted."""
        return sorted(self._open)

    async def create(self, name: str, recipe: Recipe) -> Collection:
        """Create a collection, and open it.

        Raises AlreadyExists; InvalidArgument naming ``recipe.<section>.<key>``. Nothing stays behind then.
        """
        pinned = pin(recipe, self._settings.recipe)
        async with self._changing:
            await self._try(pinned)
            embedder = await self._opener.embedder(pinned.embedder)
            row = await self._catalog.create(
                name,
                recipe=pinned.dump(),
                space=embedder.space.id,
                dim=embedder.space.dim,
                chunking=pinned.chunker.fingerprint,
            )
            self._open[name] = await self._serve(row)
        log.info("collection_created", collection=name, space=embedder.space.id)
        return await self.describe(name)

    async def delete(self, name: str) -> None:
        """Delete a collection with all its documents. Requests that hold it end first. Raises NotFound."""
        async with self._changing:
            serving = self.get(name)
            await self._catalog.delete(name)
            del self._open[name]
            await serving.retire()
            await _close(serving.snapshot)
            await asyncio.to_thread(shutil.rmtree, self._path(serving.snapshot.version), ignore_errors=True)
        log.info("collection_deleted", collection=name)

    async def compact(self, name: str) -> Collection:
        """Merge what the indexes have in pieces, and checkpoint. Raises NotFound."""
        with self.get(name).lease() as snapshot:
            await snapshot.parts.compact()
            await snapshot.applier.checkpoint()
            return await self.describe(name)

    async def list(self) -> list[Collection]:
        """All collections, by name."""
        return [await self.describe(name) for name in self.names]

    async def describe(self, name: str) -> Collection:
        """A collection as clients see it. Raises NotFound."""
        snapshot = self.get(name).snapshot
        documents, chunks = await self._catalog.counts(snapshot.collection.id)
        return Collection(
            name=name,
            serving=describe_version(snapshot),
            documents=documents,
            chunks=chunks,
            seq=await self._journal.head(snapshot.collection.id),
            created_at=snapshot.collection.created_at,
        )

    # -- inside --------------------------------------------------------------------------------

    async def _serve(self, row: CollectionRow) -> Serving:
        version = next(v for v in await self._catalog.versions(row.id) if v.id == row.serving_version_id)
        recipe = PinnedRecipe.load(version.recipe)
        parts = await open_parts(self._opener, recipe, self._path(version))
        applier = Applier(
            parts,
            collection_id=row.id,
            chunking=version.chunking,
            journal=self._journal,
            documents=self._documents,
            embeddings=self._embeddings,
            settings=self._settings.indexing,
            max_pending_chunks=self._settings.limits.max_pending_chunks,
        )
        await applier.start()
        return Serving(Snapshot(collection=row, version=version, parts=parts, applier=applier))

    async def _try(self, recipe: PinnedRecipe) -> None:
        """Open the parts once, elsewhere: what a back end refuses must not reach the catalog."""
        scratch = self._root / f"try-{uuid4().hex}"
        try:
            await (await open_parts(self._opener, recipe, scratch)).close()
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    def _path(self, version: VersionRow) -> Path:
        return self._root / str(version.id)

    def _sweep(self, kept: set[int]) -> None:
        with suppress(FileNotFoundError):
            for path in self._root.iterdir():
                if path.name not in {str(version_id) for version_id in kept}:
                    shutil.rmtree(path, ignore_errors=True)
                    log.info("swept", path=str(path))


async def _close(snapshot: Snapshot) -> None:
    await snapshot.applier.stop()
    await snapshot.parts.close()


def describe_version(snapshot: Snapshot) -> Version:
    """A version as clients see it."""
    row, progress = snapshot.version, snapshot.applier.progress
    return Version(
        name=row.name,
        collection=snapshot.collection.name,
        state=row.state,
        recipe=snapshot.parts.recipe.public(),
        space=row.space,
        dim=row.dim,
        applied_seq=progress.applied_seq,
        created_at=row.created_at,
        stats=_stats(snapshot),
    )


def _stats(snapshot: Snapshot) -> Mapping[str, Any]:
    dense, lexical = snapshot.parts.dense.stats(), snapshot.parts.lexical.stats()
    progress = snapshot.applier.progress
    return {
        "dense": _plain(dense),
        "lexical": _plain(lexical),
        "pending_chunks": snapshot.applier.pending_chunks,
        "parked_steps": len(progress.parked_steps),
        "parked_chunks": len(progress.parked_chunks),
    }


def _plain(stats: IndexStats) -> dict[str, Any]:
    return {**asdict(stats), "details": dict(stats.details)}

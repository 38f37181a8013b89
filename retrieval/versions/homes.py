"""Where the indexes of versions live, and how a home is cleared when its version goes.

An index in a store that others share (a database, a cluster) is written down as doomed before its version
goes: whatever comes between, a crash or a store that is away, it is removed when it can be.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog

from ragstone.errors import InvalidArgument, RagstoneError
from retrieval.store.catalog import Catalog
from retrieval.store.doomed import DoomedIndex, DoomedIndexes
from retrieval.versions.parts import Home, Opener, remove_index
from retrieval.versions.recipe import PinnedRecipe

log = structlog.get_logger(__name__)

_TRIAL_S: Final = 3600.0
"""Whoever tries a recipe, on any server of the catalog, is done with it by then."""
_AGAIN_S: Final = 600.0
"""A store that is away for good, or never was there, is asked no more often than that."""


class Homes:
    """The homes of all versions of a catalog, with their folders under ``root``."""

    def __init__(
        self, *, root: Path, identity: str, opener: Opener, catalog: Catalog, doomed: DoomedIndexes
    ) -> None:
        """``identity`` is the catalog's: many of them may share a store."""
        self._root = root
        self._prefix = f"ragstone_{identity[:12]}"
        self._opener = opener
        self._catalog = catalog
        self._doomed = doomed

    def of(self, version_id: int) -> Home:
        """That of a version: the same after a restart, and on every server of the catalog."""
        return Home(self._root / str(version_id), self._name(version_id))

    @asynccontextmanager
    async def trial(self, recipe: PinnedRecipe) -> AsyncIterator[Home]:
        """One for a while, to try a recipe in."""
        random = uuid4().hex[:12]
        home = Home(self._root / f"try-{random}", f"{self._prefix}_t{random}")
        await self._doom(home, recipe, due_in_s=_TRIAL_S)
        try:
            yield home
        finally:
            await self._clear(home, recipe)

    async def doom(self, version_id: int, recipe: PinnedRecipe) -> None:
        """Write down what a version that is about to be deleted has elsewhere."""
        await self._doom(self.of(version_id), recipe)

    async def clear(self, version_id: int, recipe: PinnedRecipe) -> int:
        """Remove what a deleted version has left; the bytes of its files.

        What a store that is away keeps is left to ``sweep``.
        """
        home = self.of(version_id)
        freed = await asyncio.to_thread(_bytes_under, home.path)
        await self._clear(home, recipe)
        return freed

    async def remove_dense(self, version_id: int, recipe: PinnedRecipe) -> None:
        """Remove the closed dense index of a version. Raises BackendUnavailable."""
        await remove_index(self._opener, self.of(version_id).of("dense"), recipe.index)

    async def sweep(self) -> None:
        """Remove what is doomed, due, and no living version's. What fails is tried again after a while."""
        doomed = await self._doomed.due()
        living = {self._name(version_id) for version_id in await self._catalog.version_ids()}
        for index in doomed:
            # One of a living version is about to be deleted, or could not be.
            if index.name.rpartition("_")[0] not in living and not await self._drop(index):
                await self._doomed.add([index], due_in_s=_AGAIN_S)

    def sweep_folders(self, kept: set[int]) -> None:
        """Remove the folders of all versions but ``kept``."""
        with suppress(FileNotFoundError):
            for path in self._root.iterdir():
                if path.name not in {str(version_id) for version_id in kept}:
                    shutil.rmtree(path, ignore_errors=True)
                    log.info("swept", path=str(path))

    def _name(self, version_id: int) -> str:
        return f"{self._prefix}_v{version_id}"

    def _shared(self, home: Home, recipe: PinnedRecipe) -> list[DoomedIndex]:
        return [
            DoomedIndex(home.of(leg).name, index.kind, index.options)
            for leg, index in recipe.indexes.items()
            if self._opener.is_shared(index.kind)
        ]

    async def _doom(self, home: Home, recipe: PinnedRecipe, *, due_in_s: float = 0.0) -> None:
        await self._doomed.add(self._shared(home, recipe), due_in_s=due_in_s)

    async def _clear(self, home: Home, recipe: PinnedRecipe) -> None:
        await asyncio.to_thread(shutil.rmtree, home.path, ignore_errors=True)
        for index in self._shared(home, recipe):
            await self._drop(index)

    async def _drop(self, index: DoomedIndex) -> bool:
        """Whether it is gone."""
        try:
            await self._opener.drop_shared(index.kind, name=index.name, options=index.options)
        except InvalidArgument:
            # No index was ever opened with such options.
            log.debug("index_never_was", index=index.name)
        except RagstoneError as exc:
            log.warning("index_left_behind", index=index.name, kind=index.kind, reason=exc.message)
            return False
        await self._doomed.remove(index.name)
        return True


def _bytes_under(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

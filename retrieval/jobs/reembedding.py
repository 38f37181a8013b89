"""One worker of a re-embedding job: borrows texts from the server, embeds them, brings the vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Final

from embedders.base import Embedder
from ragstone import AsyncClient
from ragstone.types import MissingText, MissingTexts
from retrieval.jobs.borrowing import Borrower, Tally, WorkerLimits
from retrieval.jobs.embedding import embed_slice, open_embedder

_LANES: Final = 2
"""Slices at a time: while one is on its way to the server the model has another."""


class Worker:
    """Works until the server says that nothing is left. Several may work at one version, anywhere."""

    def __init__(
        self,
        client: AsyncClient,
        collection: str,
        version: str,
        *,
        name: str,
        limits: WorkerLimits | None = None,
        on_progress: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        self._borrower = Borrower(
            client, collection, version, name=name, limits=limits or WorkerLimits(), on_progress=on_progress
        )
        self._embedder: Embedder | None = None

    async def run(self) -> Tally:
        """Embed what nobody else does, until all of the version is embedded or parked.

        Can be broken off at any moment and run again. Raises SpaceMismatch when the model here is not the
        one of the version's space, BackendUnavailable when the server or the model stays away, and what the
        embedder raises when it is opened.
        """
        try:
            async with self._borrower, aclosing(self._borrower.ranges()) as ranges:
                async for part in ranges:
                    await self._embed(part)
        finally:
            if self._embedder is not None:
                await self._embedder.close()
        return self._borrower.tally

    async def _embed(self, part: MissingTexts) -> None:
        if self._embedder is None:
            self._embedder = await open_embedder(part.space, part.embedder)
        slices = self._borrower.slices(part)
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(_LANES):
                    lanes.create_task(self._embed_slices(part, self._embedder, slices))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _embed_slices(
        self, part: MissingTexts, embedder: Embedder, slices: Iterator[Sequence[MissingText]]
    ) -> None:
        for some in slices:
            outcomes = await embed_slice(embedder, [missing.text for missing in some])
            await self._borrower.bring(part, some, outcomes)

"""One worker of a re-embedding job: borrows texts from the server, embeds them, brings the vectors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

from embedders.base import Embedder
from ragstone import AsyncClient
from retrieval.jobs.borrowing import Borrower, Slice, Tally, WorkerLimits
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

    async def run(self) -> Tally:
        """Embed what nobody else does, until all of the version is embedded or parked.

        Can be broken off at any moment and run again. Raises SpaceMismatch when the model here is not the
        one of the version's space, BackendUnavailable when the server or the model stays away, and what the
        embedder raises when it is opened.
        """
        async with self._borrower, aclosing(self._borrower.slices()) as slices:
            first = await anext(slices, None)
            if first is not None:
                embedder = await open_embedder(first.part.space, first.part.embedder)
                try:
                    await self._embed(embedder, first, slices)
                finally:
                    await embedder.close()
        return self._borrower.tally

    async def _embed(self, embedder: Embedder, first: Slice, others: AsyncIterator[Slice]) -> None:
        turn = asyncio.Lock()

        async def next_slice() -> Slice | None:
            async with turn:
                return await anext(others, None)

        async def lane(some: Slice | None) -> None:
            while some is not None:
                outcomes = await embed_slice(embedder, [missing.text for missing in some.texts])
                await self._borrower.bring(some, outcomes)
                some = await next_slice()

        try:
            async with asyncio.TaskGroup() as lanes:
                lanes.create_task(lane(first))
                for _ in range(_LANES - 1):
                    lanes.create_task(lane(await next_slice()))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

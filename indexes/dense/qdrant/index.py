"""A dense index in Qdrant: one collection, whose points have the keys as their ids.

Qdrant has no transactions, so a step is idempotent and in an order that loses nothing: what enters, what
leaves, and then the position, in a point of its own. What a crash left half done is done again in full.
Searches meanwhile see whole steps: they drop hits that their view does not have, and nothing leaves before
the last search has ended that is to see it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from pyroaring import BitMap64

from indexes.base import IndexStats, Metric, Neighbours, SearchParams, VectorBatch, Vectors
from indexes.dense.options import parse_options
from indexes.dense.position import Position, recall, remember
from indexes.dense.qdrant.collection import Collection
from indexes.dense.qdrant.options import QdrantOptions
from indexes.dense.qdrant.points import Ranking, Walk, after, batches, leaving
from indexes.dense.qdrant.views import Views
from indexes.dense.vectors import prepare_batch, prepare_queries
from indexes.dense.worker import to_the_end
from indexes.directory import Directory, LocalDirectory
from ragstone.errors import BackendUnavailable, CorruptIndex

log = structlog.get_logger(__name__)


async def open_index(
    kind: str, *, directory: Directory, name: str, dim: int, metric: Metric, options: Mapping[str, object]
) -> QdrantIndex:
    """Open the collection ``name``, or make it. ``directory`` has only where it stood.

    One that was open before opens also while Qdrant does not answer: then its calls raise
    BackendUnavailable until it does.

    Raises InvalidArgument for wrong options, FailedPrecondition when the collection was made for another
    dimension or metric or Qdrant refuses the caller, CorruptIndex when it has less than it had,
    BackendUnavailable when it does not answer.
    """
    parsed = parse_options(QdrantOptions, options)
    known = await asyncio.to_thread(recall, directory)
    collection = await asyncio.to_thread(Collection, name, parsed)
    index = QdrantIndex(collection, parsed, directory, dim=dim, metric=metric, known=known or Position())
    try:
        await index.checkpoint()
    except BackendUnavailable as exc:
        if known is None:
            await index.close()
            raise
        log.warning("index_away", index=name, reason=exc.message)
    except BaseException:
        await index.close()
        raise
    return index


async def drop_index(*, name: str, options: Mapping[str, object]) -> None:
    """Remove the collection ``name``; one that is not there is no error.

    Raises BackendUnavailable when Qdrant does not answer.
    """
    parsed = parse_options(QdrantOptions, options)
    if parsed.path is not None:
        await asyncio.to_thread(LocalDirectory(parsed.path).remove_tree, name)
        return
    collection = Collection(name, parsed)
    try:
        await collection.drop()
    finally:
        await collection.close()


class QdrantIndex:
    """A VectorIndex over one collection, its only writer. Belongs to one event loop."""

    def __init__(
        self,
        collection: Collection,
        options: QdrantOptions,
        directory: Directory,
        *,
        dim: int,
        metric: Metric,
        known: Position,
    ) -> None:
        """Use ``open_index``; this asks nobody. ``known`` is where it stood at the last checkpoint."""
        self._collection = collection
        self._options = options
        self._directory = directory
        self._dim = dim
        self._metric = metric
        self._known = known
        self._applied_seq = known.applied_seq
        self._views: Views | None = None
        """None until Qdrant has told what it has."""
        self._meeting: asyncio.Task[Views] | None = None
        self._writing = asyncio.Lock()
        self._facts: Mapping[str, Any] = {}
        self._damage = ""

    @property
    def applied_seq(self) -> int:
        """The last journal position that is whole in Qdrant."""
        return self._applied_seq

    async def apply(self, batch: VectorBatch, *, seq: int) -> None:
        """Make ``batch`` visible and durable. Does nothing when ``seq <= applied_seq``.

        Raises BackendUnavailable when Qdrant does not answer; then it has to be applied again, and searches
        see all of it or nothing.
        """
        await to_the_end(self._apply(prepare_batch(batch, dim=self._dim, metric=self._metric), seq))

    async def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allow: BitMap64 | None = None,
        params: SearchParams | None = None,
    ) -> Neighbours:
        """The best ``k`` keys for each row of ``queries`` ``(n, dim)``, among ``allow`` when given."""
        asked = prepare_queries(queries, dim=self._dim, metric=self._metric)
        walk = Walk.of(self._options, params)
        with self._damage_noted():
            views = await self._met()
        # Where Qdrant is not asked: whoever searches over and over leaves others their turn.
        await asyncio.sleep(0)
        with views.reading() as live:
            ranking = Ranking(len(asked), k, self._metric, live, allow)
            while ranking.open:
                with self._damage_noted():
                    ranking.take(
                        await self._collection.query(asked[ranking.open], ranking.limit, ranking.among, walk)
                    )
        return ranking.neighbours()

    async def checkpoint(self) -> int:
        """The position: what is applied is durable already.

        Raises BackendUnavailable when Qdrant does not answer, CorruptIndex when it has less than it had.
        """
        with self._damage_noted():
            await self._met()
            # Writes go on meanwhile: what was there before is what has to be there.
            before = self._applied_seq
            self._expect(await self._collection.position(), before)
            self._facts = await self._collection.facts()
        async with self._writing:
            self._known = Position(applied_seq=self._applied_seq, live=self._live)
            await asyncio.to_thread(remember, self._directory, self._known)
            return self._known.applied_seq

    def stats(self) -> IndexStats:
        """What the index holds now; ``details`` are what Qdrant said at the last checkpoint."""
        return IndexStats(
            live=self._live,
            segments=self._facts.get("segments") or 0,
            damage=self._damage,
            details={"place": self._options.place, "collection": self._collection.name, **self._facts},
        )

    def explain(self, k: int, *, allow: BitMap64 | None = None, params: SearchParams | None = None) -> str:
        """How a search with these arguments is answered now, in words."""
        live = BitMap64() if self._views is None else self._views.live
        ranking, walk = Ranking(1, k, self._metric, live, allow), Walk.of(self._options, params)
        return f"{self._options.place}: {walk}, {ranking}"

    async def close(self) -> None:
        """Close the connections, once a write that has begun has ended."""
        if self._meeting is not None and not self._meeting.done():
            self._meeting.cancel()
            await asyncio.wait([self._meeting])
        async with self._writing:
            await self._collection.close()

    @property
    def _live(self) -> int:
        return self._known.live if self._views is None else len(self._views.live)

    async def _met(self) -> Views:
        """What searches see, asked of Qdrant the first time; all who wait for it get one answer."""
        if self._views is not None:
            return self._views
        if self._meeting is None or self._meeting.done():
            self._meeting = asyncio.create_task(self._meet(), name="qdrant meeting")
        return await to_the_end(self._meeting)

    async def _meet(self) -> Views:
        await self._collection.make(self._dim, self._metric)
        # Before the keys: what is added in between is found again when it is applied again.
        seq = await self._collection.position()
        self._expect(seq, self._known.applied_seq)
        self._views, self._applied_seq = Views(await self._collection.keys()), seq
        return self._views

    def _expect(self, seq: int, at_least: int) -> None:
        if seq < at_least:
            raise CorruptIndex(
                f"{self._options.place} has {self._collection.name} up to {seq} only, "
                f"and had it up to {at_least}"
            )

    async def _apply(self, batch: VectorBatch, seq: int) -> None:
        async with self._writing:
            with self._damage_noted():
                views = await self._met()
            if seq <= self._applied_seq:
                return
            with self._damage_noted():
                # Nobody sees these yet: they are in no view.
                for keys, vectors in batches(batch, self._options.batch):
                    await self._collection.upsert(keys, vectors)
                await views.replace(after(views.live, batch))
                if len(gone := leaving(batch)):
                    await self._collection.delete(gone)
                # Last: from here on the step is never done again.
                await self._collection.set_position(seq)
            self._applied_seq = seq

    @contextmanager
    def _damage_noted(self) -> Iterator[None]:
        try:
            yield
        except CorruptIndex as exc:
            self._damage = exc.message
            raise

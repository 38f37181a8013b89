"""The applier: journal -> version. One for each open version; the only writer of its indexes.

It starts by reading the journal from where each index stands. From then on the writer hands it every
committed step in memory, in journal order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import structlog
from numpy.typing import NDArray
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from indexes.base import Vectors
from ragstone.errors import BackendUnavailable, Internal, Overloaded, RagstoneError
from retrieval.config import IndexingSettings
from retrieval.store.documents import Documents
from retrieval.store.embeddings import Embeddings
from retrieval.store.journal import ChunkRow, Journal, Step
from retrieval.versions.parts import Parts
from retrieval.versions.passages import passage_text
from retrieval.versions.steps import merge, metadata_rows, text_batch, vector_batch

log = structlog.get_logger(__name__)

Found: TypeAlias = NDArray[np.bool_]
_LAST_BATCH_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A committed step, with the vectors that came with it (little-endian float32, by text hash)."""

    step: Step
    vectors: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Progress:
    """How far a version has come, and what it could not take."""

    applied_seq: int = 0
    parked_steps: dict[int, str] = field(default_factory=dict)
    """Journal position -> why it could not be applied. Never retried by itself; a rebuild takes it again."""
    parked_chunks: list[str] = field(default_factory=list)
    """Chunk ids that the embedder refused: only the lexical leg finds them."""


class Applier:
    """Follows the journal for one version."""

    def __init__(
        self,
        parts: Parts,
        *,
        collection_id: int,
        chunking: str,
        journal: Journal,
        documents: Documents,
        embeddings: Embeddings,
        settings: IndexingSettings,
        max_pending_chunks: int,
    ) -> None:
        self._parts = parts
        self._collection_id = collection_id
        self._chunking = chunking
        self._journal = journal
        self._documents = documents
        self._embeddings = embeddings
        self._settings = settings
        self._max_pending = max_pending_chunks
        self._offers: deque[Offer] = deque()
        self._pending_chunks = 0
        self._stopping = False
        self._changed = asyncio.Condition()
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._checkpoint_lock = asyncio.Lock()
        self._checkpointed = 0
        self.head = 0
        """The last journal position that the applier knows of."""
        self.progress = Progress()

    @property
    def pending_chunks(self) -> int:
        """Chunks that are committed and not yet searchable."""
        return self._pending_chunks

    async def start(self) -> None:
        """Catch up with the journal, then follow it in the background."""
        self.head = head = await self._journal.head(self._collection_id)
        await self._catch_up(lambda: self._parts.dense.applied_seq, head, self._feed_dense)
        await self._catch_up(lambda: self._parts.lexical.applied_seq, head, self._feed_lexical)
        async for rows in self._documents.all_metadata(self._collection_id, self._chunking, upto_seq=head):
            self._parts.metadata.apply(metadata_rows(rows), [])
        self.progress.applied_seq = head
        self._tasks = [
            asyncio.create_task(self._follow(), name="applier"),
            asyncio.create_task(self._checkpoint_regularly(), name="checkpointer"),
        ]

    async def stop(self) -> None:
        """Finish the batch in hand, then checkpoint. What is left is read from the journal next time."""
        self._stopping = True
        self._work.set()
        await asyncio.wait(self._tasks[:1], timeout=_LAST_BATCH_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.checkpoint()

    async def checkpoint(self) -> None:
        """Make the indexes durable, then let go of what only a replay would have needed."""
        async with self._checkpoint_lock:
            seq = await self._parts.checkpoint()
            await self._journal.prune(self._collection_id, self._chunking, seq)
            self._checkpointed = seq

    # -- the writer's side -------------------------------------------------------------------

    def offer(self, offer: Offer) -> None:
        """Hand over a committed step. Steps must come in journal order."""
        self._offers.append(offer)
        self.head = offer.step.seq
        self._pending_chunks += len(offer.step.added)
        self._work.set()

    async def room(self) -> None:
        """Wait until the backlog is small enough for another write."""
        if self._pending_chunks < self._max_pending:
            return
        async with self._changed:
            await self._changed.wait_for(lambda: self._pending_chunks < self._max_pending)

    async def wait_for(self, seq: int) -> None:
        """Return when a search sees journal position ``seq``.

        Raises Internal when exactly that step was parked.
        """
        if self.progress.applied_seq < seq:
            async with self._changed:
                await self._changed.wait_for(lambda: self.progress.applied_seq >= seq)
        if reason := self.progress.parked_steps.get(seq):
            raise Internal(f"the write is stored at seq {seq}, but could not be indexed: {reason}")

    # -- following -----------------------------------------------------------------------------

    async def _follow(self) -> None:
        while not self._stopping:
            await self._work.wait()
            self._work.clear()
            while self._offers and not self._stopping:
                offers = self._take()
                await self._apply_or_park(offers)
                self._pending_chunks -= sum(len(offer.step.added) for offer in offers)
                async with self._changed:
                    self._changed.notify_all()

    def _take(self) -> list[Offer]:
        taken = [self._offers.popleft()]
        chunks = len(taken[0].step.added)
        while self._offers and chunks + len(self._offers[0].step.added) <= self._settings.batch_chunks:
            chunks += len(self._offers[0].step.added)
            taken.append(self._offers.popleft())
        return taken

    async def _apply_or_park(self, offers: Sequence[Offer]) -> None:
        batch = merge([offer.step for offer in offers])
        handed = {key: vector for offer in offers for key, vector in offer.vectors.items()}
        try:
            await asyncio.gather(self._feed_dense(batch, handed), self._feed_lexical(batch))
            self._parts.metadata.apply(metadata_rows(batch.added), batch.deleted)
        except Exception as exc:
            log.exception("apply_failed", seq=batch.seq, steps=len(offers))
            if len(offers) > 1:
                for offer in offers:
                    await self._apply_or_park([offer])
                return
            self.progress.parked_steps[batch.seq] = str(exc) or type(exc).__name__
        self.progress.applied_seq = batch.seq

    async def _catch_up(
        self, position: Callable[[], int], head: int, feed: Callable[[Step], Awaitable[None]]
    ) -> None:
        while position() < head:
            steps = await self._journal.read(self._collection_id, self._chunking, after=position(), upto=head)
            if not steps:
                return
            batch = merge(steps)
            log.info("replaying", after=position(), seq=batch.seq, head=head, chunks=len(batch.added))
            await feed(batch)

    async def _feed_lexical(self, batch: Step) -> None:
        await self._parts.lexical.apply(text_batch(batch), seq=batch.seq)

    async def _feed_dense(self, batch: Step, handed: Mapping[bytes, bytes] = MappingProxyType({})) -> None:
        vectors, found = await self._vectors(batch.added, handed)
        await self._parts.dense.apply(vector_batch(batch, vectors, found), seq=batch.seq)

    # -- vectors -------------------------------------------------------------------------------

    async def _vectors(
        self, rows: Sequence[ChunkRow], handed: Mapping[bytes, bytes]
    ) -> tuple[Vectors, Found]:
        """The rows' vectors, and which rows have one: handed over, stored, or embedded now."""
        space = self._parts.embedder.space
        if rows and all(row.text_hash in handed for row in rows):
            joined = b"".join(handed[row.text_hash] for row in rows)
            return np.frombuffer(joined, dtype="<f4").reshape(len(rows), space.dim), _all(rows)
        hashes = [row.text_hash for row in rows]
        vectors, missing = await self._embeddings.get_many(space.id, hashes, space.dim)
        if not missing.any():
            return vectors, _all(rows)
        fresh = await self._embed([row for row, lacks in zip(rows, missing, strict=True) if lacks])
        vectors = np.array(vectors)
        found = ~missing
        for i in np.flatnonzero(missing):
            vector = fresh.get(hashes[i])
            if vector is not None:
                vectors[i], found[i] = vector, True
        return vectors, found

    async def _embed(self, rows: Sequence[ChunkRow]) -> dict[bytes, Vectors]:
        """Embed each distinct text once, and store what came out."""
        distinct = _distinct(rows)
        embedded = await self._embed_or_park(distinct)
        if embedded:
            await self._embeddings.put_many(
                self._parts.embedder.space.id, list(embedded), np.stack(list(embedded.values()))
            )
        return embedded

    async def _embed_or_park(self, rows: Sequence[ChunkRow]) -> dict[bytes, Vectors]:
        texts = [passage_text(row.title, row.text) for row in rows]
        try:
            vectors = await self._embed_patiently(texts)
        except RagstoneError as exc:
            if len(rows) > 1:
                halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
                return {**await self._embed_or_park(halves[0]), **await self._embed_or_park(halves[1])}
            log.error("chunk_parked", chunk_id=rows[0].chunk_id, reason=exc.message)
            self.progress.parked_chunks.append(rows[0].chunk_id)
            return {}
        return {row.text_hash: vector for row, vector in zip(rows, vectors, strict=True)}

    async def _embed_patiently(self, texts: Sequence[str]) -> Vectors:
        """A model that is away or busy holds the follower up; it does not lose it anything."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((BackendUnavailable, Overloaded)),
            wait=wait_random_exponential(multiplier=0.2, max=30),
            before_sleep=lambda state: log.warning("embedder_unavailable", attempt=state.attempt_number),
        ):
            with attempt:
                return await self._parts.embedder.embed_passages(texts)
        raise AssertionError("the retry loop ends by returning or raising")

    async def _checkpoint_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._settings.checkpoint_s)
            if self.progress.applied_seq == self._checkpointed:
                continue
            try:
                await self.checkpoint()
            except Exception:
                # The journal still has everything: a failed checkpoint costs a longer replay, not data.
                log.exception("checkpoint_failed")


def _distinct(rows: Sequence[ChunkRow]) -> list[ChunkRow]:
    return list({row.text_hash: row for row in rows}.values())


def _all(rows: Sequence[ChunkRow]) -> Found:
    return np.ones(len(rows), dtype=np.bool_)

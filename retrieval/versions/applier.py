"""The applier: journal -> version. One for each open version; the only writer of its indexes.

It starts by reading the journal from where each index stands. From then on the writer hands it every
committed step in memory, in journal order. A rebuild is nothing else: an applier that starts from nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Final, TypeAlias

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from ragstone.errors import Internal, RagstoneError
from retrieval.config import IndexingSettings
from retrieval.store.chunks import Chunks
from retrieval.store.documents import Documents
from retrieval.store.embeddings import Embeddings
from retrieval.store.journal import Journal, Step
from retrieval.store.values import VersionRow
from retrieval.versions.cuts import cut_some
from retrieval.versions.feeding import Feed, Feeder, feed_or_park
from retrieval.versions.parts import Parts
from retrieval.versions.passage_vectors import PassageVectors, Progress
from retrieval.versions.steps import merge

log = structlog.get_logger(__name__)

Rest: TypeAlias = Callable[[float], Awaitable[None]]

_LAST_BATCH_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 2.0
"""Between two attempts to catch up: what was away is followed again as soon as it is back."""
_MOST_OFFERED: Final = 2
"""Of the pending chunks at which writers wait. Only a follower that nobody waits for comes to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A committed step for followers of ``chunking``, with the vectors of ``space`` that came with it.

    ``previous`` is the journal position of the collection before it. ``vectors`` are little-endian float32,
    by text hash.
    """

    step: Step
    previous: int
    chunking: str
    space: str
    vectors: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a follower reads, and where it keeps vectors."""

    journal: Journal
    documents: Documents
    chunks: Chunks
    embeddings: Embeddings


class Applier:
    """Follows the journal for one version.

    While it keeps up it takes what the writer hands over in memory. What was written for another chunking,
    before it began, or faster than it goes, it reads from the journal, and cuts what nobody has cut for it.
    """

    def __init__(
        self,
        parts: Parts,
        version: VersionRow,
        sources: Sources,
        *,
        tenant: str,
        settings: IndexingSettings,
        max_pending_chunks: int,
        rest: Rest | None = None,
    ) -> None:
        """``tenant`` is for whom the embedder works: the collection, by its name.

        ``rest`` is awaited after each piece of catching up, with the seconds that it took.
        """
        self._parts = parts
        self._collection_id = version.collection_id
        self._chunking = version.chunking
        self._space = version.space
        self._sources = sources
        self._settings = settings
        self._max_pending = max_pending_chunks
        self._rest = rest
        self._offers: deque[Offer] = deque()
        self._pending_chunks = 0
        self._behind = True
        """Whether the journal has steps that ``_offers`` lacks."""
        self._cut_seq = parts.applied_seq
        self._parks = True
        """Whether a step that is at fault is left out; a version that is being built must have them all."""
        self._stopping = False
        self._changed = asyncio.Condition()
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._awaited_seq = 0
        """The last position that somebody has waited for."""
        self._tasks: list[asyncio.Task[None]] = []
        self._checkpoint_lock = asyncio.Lock()
        self._checkpointed_at = monotonic()
        self._on_durable: Callable[[], Awaitable[None]] | None = None
        self.durable_seq = self._cut_seq
        """The position from which a restart needs the journal."""
        self._abreast_at = monotonic()
        self.head = 0
        """The last journal position that the applier knows of."""
        self.progress = Progress()
        vectors = PassageVectors(parts.embedder, sources.embeddings, self.progress, tenant=tenant)
        self._feeder = Feeder(parts, vectors)

    @property
    def lag_s(self) -> float:
        """For how long a search has not seen all that this server knows to be written, in seconds."""
        return monotonic() - self._abreast_at if self.progress.applied_seq < self.head else 0.0

    @property
    def pending_chunks(self) -> int:
        """Chunks that were handed over and are not yet searchable."""
        return self._pending_chunks

    async def start(self, *, serving: bool = False) -> None:
        """Catch up with the journal, then follow it in the background.

        For a version that serves, a step that is at fault is parked, and what is away is tried again in the
        background; for another one both are raised, as by ``catch_up``.
        """
        self._parks = serving
        try:
            await self.catch_up()
        except RagstoneError as exc:
            if not serving:
                raise
            log.warning("catching_up_failed", reason=exc.message)
            self._work.set()
        self._parks = True
        self._tasks = [
            asyncio.create_task(self._follow(), name="applier"),
            asyncio.create_task(self._checkpoint_regularly(), name="checkpointer"),
        ]

    async def stop(self) -> None:
        """Finish the batch in hand, then checkpoint. What is left is read from the journal next time."""
        self._stopping = True
        self._work.set()
        if self._tasks:
            await asyncio.wait(self._tasks[:1], timeout=_LAST_BATCH_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.checkpoint()

    def when_durable(self, call: Callable[[], Awaitable[None]]) -> None:
        """Await ``call`` after each checkpoint."""
        self._on_durable = call

    async def checkpoint(self) -> None:
        """Make the indexes durable, so that others may let go of what only a replay would have needed."""
        async with self._checkpoint_lock:
            self.durable_seq = max(self.durable_seq, await self._parts.checkpoint())
            self._checkpointed_at = monotonic()
            if self._on_durable is not None:
                await self._on_durable()

    # -- the writer's side -------------------------------------------------------------------

    def offer(self, offer: Offer) -> None:
        """Hand over a committed step. Steps must come in journal order.

        One that does not follow the last position known here, since another server has written in between,
        is read from the journal with what it lacks.
        """
        missed = offer.previous > self.head
        self._learn(offer.step.seq)
        full = self._pending_chunks >= _MOST_OFFERED * self._max_pending
        if offer.chunking != self._chunking or missed or full:
            self._fall_behind()
        elif not self._behind:
            self._offers.append(offer)
            self._pending_chunks += len(offer.step.added)
        self._work.set()

    def hear(self, head: int) -> None:
        """Somebody else has written up to ``head``: it is read from the journal."""
        if head > self.head:
            self._learn(head)
            self._fall_behind()
            self._work.set()

    def _learn(self, head: int) -> None:
        if self.progress.applied_seq >= self.head:
            self._abreast_at = monotonic()
        self.head = max(self.head, head)

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
        await self.reach(seq)
        if reason := self.progress.parked_steps.get(seq):
            raise Internal(f"the write is stored at seq {seq}, but could not be indexed: {reason}")

    async def reach(self, seq: int) -> None:
        """Return when nothing up to journal position ``seq`` is yet to be applied, or parked."""
        if self.progress.applied_seq < seq:
            self._awaited_seq = max(self._awaited_seq, seq)
            self._hurry.set()
            async with self._changed:
                await self._changed.wait_for(lambda: self.progress.applied_seq >= seq)

    # -- following -----------------------------------------------------------------------------

    async def _follow(self) -> None:
        while not self._stopping:
            await self._work.wait()
            self._work.clear()
            while (self._behind or self._offers) and not self._stopping:
                if self._behind:
                    await self._catch_up_patiently()
                else:
                    offers = self._take()
                    await self._apply_offers(offers)
                    chunks = sum(len(offer.step.added) for offer in offers)
                    self._pending_chunks = max(0, self._pending_chunks - chunks)
                await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _take(self) -> list[Offer]:
        taken = [self._offers.popleft()]
        chunks = len(taken[0].step.added)
        while self._offers and chunks + len(self._offers[0].step.added) <= self._settings.batch_chunks:
            chunks += len(self._offers[0].step.added)
            taken.append(self._offers.popleft())
        return taken

    def _fall_behind(self) -> None:
        """Forget what was handed over and not taken: the journal has it."""
        self._behind = True
        self._offers.clear()
        self._pending_chunks = 0

    async def _apply_offers(self, offers: Sequence[Offer]) -> None:
        # The journal was read up to there meanwhile: a lexical index would take a chunk a second time.
        offers = [offer for offer in offers if offer.step.seq > self.progress.applied_seq]
        if not offers:
            return
        handed = {
            key: vector
            for offer in offers
            if offer.space == self._space
            for key, vector in offer.vectors.items()
        }
        try:
            await self._feed([offer.step for offer in offers], partial(self._feeder.all, handed=handed))
        except Exception:
            # From here on each index reads in the journal what it lacks, until it has it.
            log.warning("apply_failed", seq=offers[-1].step.seq, exc_info=True)
            self._fall_behind()
        else:
            self.progress.applied_seq = self._cut_seq = offers[-1].step.seq

    # -- catching up ---------------------------------------------------------------------------

    async def catch_up(self) -> None:
        """Read the journal until nothing is left that the writer has not handed over in memory.

        Raises what the embedder, the indexes and the catalog raise; then all goes on from where it was.
        """
        while self._behind:
            # From here on offers are kept. What was committed before is at or below the head that is read
            # next, so between the two no step is lost; what is in both is applied once.
            self._behind = False
            try:
                await self._catch_up_to(await self._sources.journal.head(self._collection_id))
            except BaseException:
                self._behind = True
                raise

    async def _catch_up_patiently(self) -> None:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(),
            wait=wait_random_exponential(multiplier=0.2, max=_LONGEST_PAUSE_S),
            before_sleep=lambda state: log.warning(
                "catching_up_failed", attempt=state.attempt_number, exc_info=_failure(state)
            ),
        ):
            with attempt:
                await self.catch_up()

    async def _catch_up_to(self, head: int) -> None:
        self._learn(head)
        await self._cut_up_to(head)
        try:
            await self._read_vectors(head)
            away = None
        except RagstoneError as exc:
            away = exc  # The lexical leg goes on without the other.
        await self._read(lambda: self._parts.lexical.applied_seq, head, self._feeder.lexical)
        if self._feeder.metadata_seq < 0:
            where = self._collection_id, self._chunking
            await self._feeder.load_metadata(
                self._sources.documents.all_metadata(*where, upto_seq=head), head
            )
        await self._read(lambda: self._feeder.metadata_seq, head, self._feeder.metadata)
        if away is not None:
            raise away
        self.progress.applied_seq = max(self.progress.applied_seq, head)
        await self._notify()

    async def _read_vectors(self, head: int) -> None:
        tokens, dense = self._parts.tokens, self._parts.dense
        if tokens is not None:
            # Then both read the same steps, and one pass of the model feeds both.
            await self._read(lambda: tokens.applied_seq, min(head, dense.applied_seq), self._feeder.tokens)
        await self._read(lambda: dense.applied_seq, head, self._feeder.vectors)

    async def _cut_up_to(self, head: int) -> None:
        """Cut the documents that nobody has cut for this version's chunking."""
        chunks, cutter = self._sources.chunks, self._parts.cutter
        where = self._collection_id, self._chunking
        position: tuple[int, int] | None = (self._cut_seq + 1, 0)
        while cutter is not None and position is not None:
            start = monotonic()
            position = await cut_some(chunks, cutter, *where, after=position, upto=head)
            await self._pause(start)
        self._cut_seq = max(self._cut_seq, head)

    async def _feed(self, steps: Sequence[Step], feed: Feed) -> None:
        await (feed_or_park(steps, feed, self.progress) if self._parks else feed(merge(steps)))

    async def _read(self, position: Callable[[], int], head: int, feed: Feed) -> None:
        while position() < head:
            start, after = monotonic(), position()
            steps = await self._sources.journal.read(
                self._collection_id,
                self._chunking,
                after=after,
                upto=head,
                limit_chunks=self._settings.batch_chunks,
            )
            if not steps:
                return
            log.debug("replaying", after=after, seq=steps[-1].seq, head=head)
            await self._feed(steps, feed)
            if monotonic() - self._checkpointed_at > self._settings.checkpoint_s:
                await self._try_checkpoint()
            await self._pause(start)

    async def _pause(self, start: float) -> None:
        """Rest from what was begun at ``start``, while nobody waits for what is yet to be applied."""
        if self._rest is None:
            return
        if self.progress.applied_seq >= self._awaited_seq:
            self._hurry.clear()
        resting = asyncio.ensure_future(self._rest(monotonic() - start))
        hurried = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait((resting, hurried), return_when=asyncio.FIRST_COMPLETED)
        finally:
            resting.cancel()
            hurried.cancel()

    async def _checkpoint_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._settings.checkpoint_s)
            if self.progress.applied_seq != self.durable_seq:
                await self._try_checkpoint()

    async def _try_checkpoint(self) -> None:
        try:
            await self.checkpoint()
        except Exception:
            # The journal still has everything: a failed checkpoint costs a longer replay, not data.
            log.exception("checkpoint_failed")


def _failure(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()

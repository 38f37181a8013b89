"""Token-budget batching: many small calls share one model, and no call waits for company.

A worker that is free takes what is waiting, at once; batches form by themselves while workers are busy.
Entries of like length go together, so that little padding is computed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Final, Generic, TypeVar, cast

from ragstone.errors import BackendUnavailable, Internal, Overloaded, RagstoneError

Item = TypeVar("Item")
Row = TypeVar("Row")

_BULK_EVERY: Final = 4
"""Where queries and passages both wait, every fourth batch of a worker is of passages."""
_QUIET_S: Final = 0.5
"""Passages may take the last free worker when no query has come for so long."""
_FIRST_RETRY_S: Final = 1.0
_RATE_WEIGHT: Final = 0.2
_tokens_of = attrgetter("tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Bounds of a batcher, in tokens; padding counts."""

    workers: int
    query_tokens: int
    bulk_tokens: int
    queue_tokens: int
    """For queries and for passages each."""


class _Call(Generic[Row]):
    """One ``submit``: where its rows go and who waits. ``missing`` changes under the batcher's lock."""

    def __init__(self, rows: int, loop: asyncio.AbstractEventLoop) -> None:
        self.out: list[Row | None] = [None] * rows
        self.missing = rows
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.over = False

    def finish(self, error: RagstoneError | None) -> None:
        """Wake the waiter, from any thread."""
        self.over = True
        self.notify(partial(self._resolve, error))

    def notify(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` on the waiter's event loop, from any thread."""
        try:
            self.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return  # the loop is closed, so nobody waits

    def _resolve(self, error: RagstoneError | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Row]):
    item: Item
    tokens: int
    row: int
    call: _Call[Row]
    taken: bool = False


class _Lane(Generic[Item, Row]):
    """Waiting entries of one class, by length; the oldest decides which length goes next."""

    def __init__(self) -> None:
        self.tokens = 0
        self._by_length: list[_Entry[Item, Row]] = []
        self._by_age: deque[_Entry[Item, Row]] = deque()

    def __bool__(self) -> bool:
        return bool(self._by_length)

    def add(self, entries: Sequence[_Entry[Item, Row]]) -> None:
        self._by_age.extend(entries)
        self._by_length.extend(entries)
        self._by_length.sort(key=_tokens_of)  # nearly linear: two sorted runs
        self.tokens += sum(map(_tokens_of, entries))

    def discard(self, call: _Call[Row]) -> None:
        for entry in self._by_length:
            if entry.call is call:
                entry.taken = True
                self.tokens -= entry.tokens
        self._by_length = [entry for entry in self._by_length if not entry.taken]

    def take(self, budget: int) -> list[_Entry[Item, Row]]:
        """The oldest entry and its neighbours in length: one, or up to ``budget`` tokens with padding."""
        while self._by_age[0].taken:
            self._by_age.popleft()
        oldest = self._by_age.popleft()
        queue = self._by_length
        low = queue.index(oldest, bisect_left(queue, oldest.tokens, key=_tokens_of))
        high = low + 1
        while True:
            shorter = low > 0 and queue[high - 1].tokens * (high - low + 1) <= budget
            longer = high < len(queue) and queue[high].tokens * (high - low + 1) <= budget
            if shorter and longer:
                # The neighbour nearer in length costs less padding.
                longer = queue[high].tokens - oldest.tokens <= oldest.tokens - queue[low - 1].tokens
            if longer:
                high += 1
            elif shorter:
                low -= 1
            else:
                break
        batch = queue[low:high]
        del queue[low:high]
        for entry in batch:
            entry.taken = True
        self.tokens -= sum(map(_tokens_of, batch))
        return batch


class Batcher(Generic[Item, Row]):
    """Gives items to ``run`` in batches, from ``limits.workers`` threads.

    ``run`` blocks, and may be called by several threads at once. It turns each item into its row, or into the
    error that its caller gets.
    Queries go before passages. Passages always move: by every fourth batch, and by all workers but one while
    queries keep coming.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Row | RagstoneError]],
        *,
        limits: BatchLimits,
        name: str = "embed",
    ) -> None:
        self._run = run
        self._limits = limits
        self._changed = threading.Condition()
        self._queries: _Lane[Item, Row] = _Lane()
        self._bulk: _Lane[Item, Row] = _Lane()
        self._bulk_running = 0
        self._free = 0
        self._last_query_s = float("-inf")
        self._tokens_per_s = 0.0
        self._closing = False
        self._calls = 0
        self._room: set[asyncio.Event] = set()
        self._idle: asyncio.Event | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True)
            for i in range(limits.workers)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, items: Sequence[Item], tokens: Sequence[int], *, bulk: bool = False) -> list[Row]:
        """The rows of ``items``, in their order; ``tokens`` is the length of each.

        A full queue makes ``bulk`` wait, and anything else raise Overloaded. Raises the RagstoneError that
        ``run`` raises or gives for an item, Internal for any other failure, BackendUnavailable after
        ``close``. Cancelling drops what was not begun.
        """
        if self._closing:
            raise BackendUnavailable("the embedder is closed")
        if not items:
            return []
        call: _Call[Row] = _Call(len(items), asyncio.get_running_loop())
        lane = self._bulk if bulk else self._queries
        # Longest first: neighbours in the queue are neighbours in length, over the whole call.
        order = sorted(range(len(items)), key=tokens.__getitem__, reverse=True)
        entries = [_Entry(items[i], tokens[i], i, call) for i in order]
        self._calls += 1
        try:
            if bulk:
                await self._feed(call, entries)
            else:
                self._enqueue_queries(entries)
            await call.future
        finally:
            self._leave(call, lane)
        return cast(list[Row], call.out)

    async def close(self) -> None:
        """Finish what was accepted, then end the threads."""
        self._closing = True
        if self._calls:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    # -- the caller's side: the event loop -------------------------------------------------------

    def _enqueue_queries(self, entries: Sequence[_Entry[Item, Row]]) -> None:
        new = sum(map(_tokens_of, entries))
        with self._changed:
            if self._queries and self._queries.tokens + new > self._limits.queue_tokens:
                raise Overloaded("too many texts wait for the embedder", retry_after_s=self._drain_s())
            self._queries.add(entries)
            self._last_query_s = time.monotonic()
            self._changed.notify(len(entries))

    async def _feed(self, call: _Call[Row], entries: Sequence[_Entry[Item, Row]]) -> None:
        """Put ``entries`` into the passages' lane as room appears, until all are in or the call is over."""
        room = asyncio.Event()
        self._room.add(room)
        try:
            begin = 0
            while begin < len(entries) and not call.over:
                room.clear()
                begin = self._enqueue_bulk(entries, begin)
                if begin < len(entries):
                    await room.wait()
        finally:
            self._room.discard(room)

    def _enqueue_bulk(self, entries: Sequence[_Entry[Item, Row]], begin: int) -> int:
        """Put in what fits, from ``begin``; the first entry that did not fit."""
        with self._changed:
            free = self._limits.queue_tokens - self._bulk.tokens
            end = begin
            while end < len(entries) and (entries[end].tokens <= free or (end == begin and not self._bulk)):
                free -= entries[end].tokens
                end += 1
            if end > begin:
                self._bulk.add(entries[begin:end])
                self._changed.notify_all()
        return end

    def _leave(self, call: _Call[Row], lane: _Lane[Item, Row]) -> None:
        with self._changed:
            if not call.future.done() or call.future.cancelled() or call.future.exception() is not None:
                call.over = True
                lane.discard(call)
        self._calls -= 1
        self._make_room()
        if self._idle is not None and self._calls == 0:
            self._idle.set()

    def _make_room(self) -> None:
        for room in self._room:
            room.set()

    def _drain_s(self) -> float:
        """How long the waiting queries will take at the measured rate."""
        if not self._tokens_per_s:
            return _FIRST_RETRY_S
        return self._queries.tokens / (self._tokens_per_s * self._limits.workers)

    # -- the workers' side: threads ---------------------------------------------------------------

    def _work(self) -> None:
        since_bulk = 0
        while (taken := self._next(since_bulk)) is not None:
            batch, bulk = taken
            since_bulk = 0 if bulk else since_bulk + 1
            began = time.monotonic()
            self._compute(batch)
            with self._changed:
                self._bulk_running -= bulk
                self._measure(batch, time.monotonic() - began)
                if bulk:
                    self._changed.notify()
            # Drop the last references to the callers' texts before sleeping.
            del batch, taken

    def _next(self, since_bulk: int) -> tuple[list[_Entry[Item, Row]], bool] | None:
        """Wait for the next batch; None when the batcher is closed and empty."""
        with self._changed:
            self._free += 1
            while (taken := self._take(since_bulk)) is None:
                if self._closing and not self._calls:
                    return None
                self._changed.wait(_QUIET_S if self._bulk else None)
            self._free -= 1
            return taken

    def _take(self, since_bulk: int) -> tuple[list[_Entry[Item, Row]], bool] | None:
        if self._bulk and self._bulk_may_run(since_bulk):
            self._bulk_running += 1
            batch = self._bulk.take(self._share(self._bulk, self._limits.bulk_tokens))
            self._wake_feeders(batch[0].call)
            return batch, True
        if self._queries:
            return self._queries.take(self._share(self._queries, self._limits.query_tokens)), False
        return None

    def _bulk_may_run(self, since_bulk: int) -> bool:
        if self._queries:
            return since_bulk >= _BULK_EVERY - 1 and not self._bulk_running
        if self._bulk_running + 1 < self._limits.workers or self._limits.workers == 1:
            return True
        return time.monotonic() - self._last_query_s > _QUIET_S

    def _share(self, lane: _Lane[Item, Row], budget: int) -> int:
        """What one of the free workers takes: all, or a part where others are free to take the rest."""
        return budget if self._free == 1 else min(budget, -(-lane.tokens // self._free))

    def _wake_feeders(self, call: _Call[Row]) -> None:
        if self._room:
            call.notify(self._make_room)

    def _measure(self, batch: Sequence[_Entry[Item, Row]], seconds: float) -> None:
        rate = sum(map(_tokens_of, batch)) / max(seconds, 1e-6)
        weight = _RATE_WEIGHT if self._tokens_per_s else 1.0
        self._tokens_per_s += weight * (rate - self._tokens_per_s)

    def _compute(self, batch: Sequence[_Entry[Item, Row]]) -> None:
        """Run one batch and hand out its rows. A failure of a shared batch is tried again call by call."""
        batch = [entry for entry in batch if not entry.call.over]
        if not batch:
            return
        try:
            rows = self._run([entry.item for entry in batch])
            if len(rows) != len(batch):
                raise Internal(f"the model returned {len(rows)} rows for {len(batch)} texts")
        except Exception as exc:  # noqa: BLE001 - a worker outlives any failure, and its callers get it
            calls = list(dict.fromkeys(entry.call for entry in batch))
            if len(calls) == 1:
                self._fail(calls, exc)
                return
            for call in calls:
                self._compute([entry for entry in batch if entry.call is call])
            return
        self._deliver(batch, rows)

    def _deliver(self, batch: Sequence[_Entry[Item, Row]], rows: Sequence[Row | RagstoneError]) -> None:
        for entry, row in zip(batch, rows, strict=True):
            if isinstance(row, RagstoneError) and not entry.call.over:
                self._fail([entry.call], row)
        with self._changed:
            done = []
            for entry, row in zip(batch, rows, strict=True):
                call = entry.call
                if call.over or isinstance(row, RagstoneError):
                    continue
                call.out[entry.row] = row
                call.missing -= 1
                if not call.missing:
                    done.append(call)
        for call in done:
            call.finish(None)

    def _fail(self, calls: Iterable[_Call[Row]], exc: Exception) -> None:
        if isinstance(exc, RagstoneError):
            error = exc
        else:
            error = Internal(f"the model failed: {type(exc).__name__}: {exc}")
            error.__cause__ = exc
        for call in calls:
            call.finish(error)
            self._wake_feeders(call)  # its feeder ends here, instead of waiting for room

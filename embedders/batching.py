"""Token-budget batching: many small calls share one model, and no call waits for company.

A worker that is free takes what is waiting, at once; batches form by themselves while workers are busy.
Entries of like length go together, so that little padding is computed; tenants take turns (``fairness``).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar, cast

from embedders.fairness import Entry, Lane
from ragstone.errors import BackendUnavailable, Internal, Overloaded, RagstoneError

Item = TypeVar("Item")
Row = TypeVar("Row")

_BULK_EVERY: Final = 4
"""Where queries and passages both wait, every fourth batch of a worker is of passages."""
_QUIET_S: Final = 0.5
"""Passages may take the last free worker when no query has come for so long."""
_FIRST_RETRY_S: Final = 1.0
_RATE_WEIGHT: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Bounds of a batcher, in tokens; padding counts."""

    workers: int
    query_tokens: int
    bulk_tokens: int
    queue_tokens: int
    """For queries and for passages each. One tenant alone gets four fifths of it: others still get in."""


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


@dataclass(slots=True, eq=False, kw_only=True)
class _Entry(Entry, Generic[Item, Row]):
    item: Item
    row: int
    call: _Call[Row]


class Batcher(Generic[Item, Row]):
    """Gives items to ``run`` in batches, from ``limits.workers`` threads.

    ``run`` blocks, and may be called by several threads at once. It turns each item into its row, or into the
    error that its caller gets.
    Queries go before passages. Passages always move: by every fourth batch, and by all workers but one while
    queries keep coming. Within each of the two, tenants take turns.
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
        self._queries: Lane[_Entry[Item, Row]] = Lane(limits.query_tokens)
        self._bulk: Lane[_Entry[Item, Row]] = Lane(limits.bulk_tokens)
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

    async def submit(
        self, items: Sequence[Item], tokens: Sequence[int], *, bulk: bool = False, tenant: str = ""
    ) -> list[Row]:
        """The rows of ``items``, in their order; ``tokens`` is the length of each.

        Those of a ``tenant`` that has its share of a queue waiting wait outside where they are ``bulk``, and
        raise Overloaded where they are not. Raises the RagstoneError that ``run`` raises or gives for an
        item, Internal for any other failure, BackendUnavailable after ``close``. Cancelling drops what was
        not begun.
        """
        if self._closing:
            raise BackendUnavailable("the embedder is closed")
        if not items:
            return []
        call: _Call[Row] = _Call(len(items), asyncio.get_running_loop())
        lane = self._bulk if bulk else self._queries
        # Longest first: neighbours in the queue are neighbours in length, over the whole call.
        order = sorted(range(len(items)), key=tokens.__getitem__, reverse=True)
        entries = [_Entry(item=items[i], tokens=tokens[i], row=i, call=call) for i in order]
        self._calls += 1
        try:
            if bulk:
                await self._feed(call, tenant, entries)
            else:
                self._enqueue_queries(tenant, entries)
            await call.future
        finally:
            self._leave(call, lane, entries)
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

    def _enqueue_queries(self, tenant: str, entries: Sequence[_Entry[Item, Row]]) -> None:
        new = _tokens(entries)
        with self._changed:
            if self._queries and new > self._queries.room(tenant, self._limits.queue_tokens):
                raise Overloaded(
                    "too many texts wait for the embedder", retry_after_s=self._drain_s(tenant, new)
                )
            self._queries.add(tenant, entries)
            self._last_query_s = time.monotonic()
            self._changed.notify(len(entries))

    async def _feed(self, call: _Call[Row], tenant: str, entries: Sequence[_Entry[Item, Row]]) -> None:
        """Put ``entries`` into the passages' lane as room appears, until all are in or the call is over."""
        room = asyncio.Event()
        self._room.add(room)
        try:
            begin = 0
            while begin < len(entries) and not call.over:
                room.clear()
                begin = self._enqueue_bulk(tenant, entries, begin)
                if begin < len(entries):
                    await room.wait()
        finally:
            self._room.discard(room)

    def _enqueue_bulk(self, tenant: str, entries: Sequence[_Entry[Item, Row]], begin: int) -> int:
        """Put in what fits, from ``begin``; the first entry that did not fit."""
        with self._changed:
            room = self._bulk.room(tenant, self._limits.queue_tokens)
            end = begin
            if not self._bulk.held(tenant):
                # However long it is, and however much others have waiting: it has its turn.
                room -= entries[end].tokens
                end += 1
            while end < len(entries) and entries[end].tokens <= room:
                room -= entries[end].tokens
                end += 1
            if end > begin:
                self._bulk.add(tenant, entries[begin:end])
                self._changed.notify_all()
        return end

    def _leave(
        self, call: _Call[Row], lane: Lane[_Entry[Item, Row]], entries: Sequence[_Entry[Item, Row]]
    ) -> None:
        with self._changed:
            if not call.future.done() or call.future.cancelled() or call.future.exception() is not None:
                call.over = True
                lane.discard(entries)
        self._calls -= 1
        self._make_room()
        if self._idle is not None and self._calls == 0:
            self._idle.set()

    def _make_room(self) -> None:
        for room in self._room:
            room.set()

    def _drain_s(self, tenant: str, new: int) -> float:
        """How long the queries ahead of ``new`` tokens of a tenant's will take at the measured rate."""
        if not self._tokens_per_s:
            return _FIRST_RETRY_S
        return self._queries.ahead(tenant, new) / (self._tokens_per_s * self._limits.workers)

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

    def _share(self, lane: Lane[_Entry[Item, Row]], budget: int) -> int:
        """What one of the free workers takes: all, or a part where others are free to take the rest."""
        return budget if self._free == 1 else min(budget, -(-lane.tokens // self._free))

    def _wake_feeders(self, call: _Call[Row]) -> None:
        if self._room:
            call.notify(self._make_room)

    def _measure(self, batch: Sequence[_Entry[Item, Row]], seconds: float) -> None:
        rate = _tokens(batch) / max(seconds, 1e-6)
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


def _tokens(entries: Iterable[Entry]) -> int:
    return sum(entry.tokens for entry in entries)

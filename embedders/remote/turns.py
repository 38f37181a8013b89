"""Who may ask a server next: so many requests at once, so many a second, queries before passages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiolimiter import AsyncLimiter

from ragstone.errors import Overloaded

_BULK_EVERY: Final = 4
"""Where queries and passages both wait, every fourth turn is of passages."""
_WEIGHT: Final = 0.2
"""Of the last request in the mean duration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLimits:
    """Bounds on the requests to one server; a rate of None is no bound."""

    at_once: int
    """Requests; passages leave one of them to queries."""
    waiting: int
    """Queries' requests that may wait."""
    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    patience_s: float = 10.0
    """A pause that the server asks for is waited for, if it is no longer than this."""


@dataclass(slots=True, eq=False)
class _Waiter:
    tokens: int
    ready: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Turns:
    """Gives turns, for one event loop. ``close`` ends it."""

    def __init__(self, limits: TurnLimits) -> None:
        self._limits = limits
        self._requests = _limiter(limits.requests_per_s)
        self._tokens = _limiter(limits.tokens_per_s)
        self._queries: deque[_Waiter] = deque()
        self._bulk: deque[_Waiter] = deque()
        self._running = 0
        self._bulk_running = 0
        self._since_bulk = 0
        self._paused_until_s = float("-inf")
        self._request_s = 1.0
        self._changed = asyncio.Event()
        self._giving: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def turn(self, tokens: int, *, bulk: bool) -> AsyncIterator[None]:
        """Wait for a turn, and hold it. Raises Overloaded where a query would wait for too long."""
        await self._wait(tokens, bulk=bulk)
        began = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            took = asyncio.get_running_loop().time() - began
            self._request_s += _WEIGHT * (took - self._request_s)
            self._leave(bulk=bulk)

    def pause(self, seconds: float) -> None:
        """Let nobody ask for so long: the server is busy."""
        self._paused_until_s = max(self._paused_until_s, asyncio.get_running_loop().time() + seconds)

    async def close(self) -> None:
        """Give no more turns."""
        if self._giving is not None:
            self._giving.cancel()
            await asyncio.gather(self._giving, return_exceptions=True)

    async def _wait(self, tokens: int, *, bulk: bool) -> None:
        self._refuse_long_waits(bulk=bulk)
        waiter = _Waiter(tokens)
        (self._bulk if bulk else self._queries).append(waiter)
        self._changed.set()
        if self._giving is None:
            self._giving = asyncio.create_task(self._give())
        try:
            await waiter.ready
        except asyncio.CancelledError:
            # Both may happen at once: the turn was given, and the caller went away.
            if not waiter.ready.cancelled():
                self._leave(bulk=bulk)
            raise

    def _refuse_long_waits(self, *, bulk: bool) -> None:
        paused_s = self._paused_until_s - asyncio.get_running_loop().time()
        if paused_s > self._limits.patience_s:
            raise Overloaded("the embedding server asked for a pause", retry_after_s=paused_s)
        if not bulk and len(self._queries) >= self._limits.waiting:
            drain_s = len(self._queries) * self._request_s / self._limits.at_once
            raise Overloaded("too many texts wait for the embedding server", retry_after_s=drain_s)

    def _leave(self, *, bulk: bool) -> None:
        self._running -= 1
        self._bulk_running -= bulk
        self._changed.set()

    # -- who gives the turns: one task -----------------------------------------------------------

    async def _give(self) -> None:
        while True:
            while self._next_is_bulk() is None:
                self._changed.clear()
                await self._changed.wait()
            await self._pause_over()
            if self._requests is not None:
                await self._requests.acquire()
            # Who is next is decided as late as can be: a query that came meanwhile goes before passages.
            bulk = self._next_is_bulk()
            if bulk is None:
                continue
            waiter = (self._bulk if bulk else self._queries)[0]
            if self._tokens is not None:
                await self._tokens.acquire(min(waiter.tokens, self._tokens.max_rate))
            self._admit(waiter, bulk=bulk)

    def _admit(self, waiter: _Waiter, *, bulk: bool) -> None:
        if waiter.ready.done():
            return  # went away meanwhile; its lane drops it
        (self._bulk if bulk else self._queries).popleft()
        self._running += 1
        self._bulk_running += bulk
        self._since_bulk = 0 if bulk else self._since_bulk + 1
        waiter.ready.set_result(None)

    def _next_is_bulk(self) -> bool | None:
        """Whose turn it is; None while nobody waits who may go."""
        _drop_gone(self._queries)
        _drop_gone(self._bulk)
        if self._running >= self._limits.at_once:
            return None
        bulk = bool(self._bulk) and self._bulk_running < max(1, self._limits.at_once - 1)
        if self._queries:
            return bulk and not self._bulk_running and self._since_bulk >= _BULK_EVERY - 1
        return True if bulk else None

    async def _pause_over(self) -> None:
        # The server may ask for a longer one meanwhile.
        while (left_s := self._paused_until_s - asyncio.get_running_loop().time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)


def _drop_gone(lane: deque[_Waiter]) -> None:
    while lane and lane[0].ready.done():
        lane.popleft()


def _limiter(per_s: float | None) -> AsyncLimiter | None:
    """A leaky bucket of one second's worth, or of one where that is less."""
    if per_s is None:
        return None
    return AsyncLimiter(per_s, 1.0) if per_s >= 1 else AsyncLimiter(1.0, 1 / per_s)

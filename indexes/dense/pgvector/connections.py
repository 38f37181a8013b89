"""Connections to one database: few, kept, with deadlines; and what its errors mean.

Connections are made by whoever needs one, and not in the background as psycopg_pool makes them, so that a
caller hears at once that the server refuses, and why.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo

from indexes.circuit import CircuitBreaker
from indexes.dense.pgvector.binary import KeyArray, KeyArrayDumper
from indexes.dense.pgvector.extension import know_vectors
from indexes.dense.pgvector.options import PgvectorOptions
from ragstone.errors import (
    BackendUnavailable,
    CorruptIndex,
    FailedPrecondition,
    Internal,
    Overloaded,
    RagstoneError,
)

T = TypeVar("T")

_FAILURES: Final = 2
_OPEN_S: Final = 1.0
GRACE_S: Final = 1.0
"""PostgreSQL itself ends what takes too long; so much later it is taken for dead."""
_DEFAULTS: Final = {
    "application_name": "ragstone",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""Also a connection that waits for a long build hears that its server is gone."""
_SETTINGS: Final = "-c plan_cache_mode=force_custom_plan"
"""A plan for any filter would look keys up one by one; one for this filter hashes them."""


class Session(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that knows its settings. Each statement is its own transaction unless one is begun."""

    settings: dict[str, str]
    """Those that are known: the ones that were set here."""

    @classmethod
    async def open(cls, options: PgvectorOptions) -> Self:
        """Connect. Raises what psycopg raises, and TimeoutError."""
        given = options.connection()
        timeout_ms = round(options.timeout_s * 1000)
        settings = f"{given.pop('options', '')} {_SETTINGS} -c statement_timeout={timeout_ms}"
        for name, value in _DEFAULTS.items():
            given.setdefault(name, value)
        async with asyncio.timeout(options.connect_timeout_s):
            session = await cls.connect(make_conninfo(**given, options=settings.strip()), autocommit=True)
        session.settings = {}
        session.adapters.register_dumper(KeyArray, KeyArrayDumper)
        return session

    async def set(self, settings: Mapping[str, str]) -> None:
        """Change settings of the connection, unless they are so already."""
        if settings.items() <= self.settings.items():
            return
        for name, value in settings.items():
            # A call that is broken off in between leaves it unknown.
            self.settings.pop(name, None)
            await self.execute("SELECT set_config(%s, %s, false)", (name, value))
            self.settings[name] = value

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Break the line after so long, so that whoever waits for an answer hears that none will come.

        A cancellation would wait itself, for the server to cancel what it does.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self._hang_up)
        try:
            yield
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as line:
            line.shutdown(socket.SHUT_RDWR)


class Connections:
    """At most ``options.pool`` sessions, each lent to one piece of work at a time. Of one event loop."""

    def __init__(self, options: PgvectorOptions) -> None:
        self._options = options
        self._free = asyncio.Semaphore(options.pool)
        self._idle: list[Session] = []
        self._breaker = CircuitBreaker(failures=_FAILURES, open_s=_OPEN_S)
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def run(self, work: Callable[[Session], Awaitable[T]], *, timeout_s: float | None = None) -> T:
        """Do ``work`` on a session. It may be done twice, when a line breaks that was idle until then.

        Work that has begun goes on when its caller is cancelled: so much is learned about a store that does
        not answer, whatever the caller's patience. Raises BackendUnavailable within the timeouts, Overloaded
        when all sessions are busy or a statement takes too long, and what else ``translate`` tells.
        """
        if self._closed:
            raise FailedPrecondition("the dense index is closed")
        await self._take_turn()
        task = asyncio.create_task(self._run(work, timeout_s or self._options.timeout_s))
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def _take_turn(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._options.timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise Overloaded("all connections to PostgreSQL are busy", retry_after_s=_OPEN_S) from None

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Session]:
        """A session beside the others, without a deadline, for work that takes as long as it takes."""
        try:
            session = await self._connect()
            try:
                await session.set({"statement_timeout": "0"})
                yield session
            finally:
                await session.close()
        except (psycopg.Error, TimeoutError) as exc:
            raise translate(exc) from exc

    async def close(self) -> None:
        """Wait for the work that runs, and close all sessions."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running)
        await self._close_idle()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._free.release()
        # Whoever waited for it may be gone.
        task.cancelled() or task.exception()

    async def _run(self, work: Callable[[Session], Awaitable[T]], timeout_s: float) -> T:
        with self._breaker.call():
            try:
                return await self._try(work, timeout_s)
            except (psycopg.Error, TimeoutError) as exc:
                raise translate(exc) from exc

    async def _try(self, work: Callable[[Session], Awaitable[T]], timeout_s: float) -> T:
        if self._idle:
            try:
                return await self._use(self._idle.pop(), work, timeout_s)
            except errors.QueryCanceled:
                raise
            except _AWAY:
                # The server was restarted, perhaps: then the other lines are broken as well.
                await self._close_idle()
        return await self._use(await self._connect(), work, timeout_s)

    async def _connect(self) -> Session:
        session = await Session.open(self._options)
        try:
            await know_vectors(session)
        except BaseException:
            await session.close()
            raise
        return session

    async def _use(self, session: Session, work: Callable[[Session], Awaitable[T]], timeout_s: float) -> T:
        try:
            with session.deadline(timeout_s + GRACE_S):
                return await work(session)
        finally:
            if session.broken or session.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await session.close()
            else:
                self._idle.append(session)

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()


_AWAY: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # the standby that a failover has not reached yet
)
_REFUSED: Final = (
    errors.InvalidAuthorizationSpecification,
    errors.InvalidCatalogName,
    errors.InsufficientPrivilege,
)
"""By the server's settings, not by its state: the password, the database's name, what a role may do."""


def translate(error: psycopg.Error | TimeoutError) -> RagstoneError:
    """The error of Ragstone's tree for one of psycopg's."""
    if isinstance(error, TimeoutError):
        return BackendUnavailable("PostgreSQL does not answer")
    if isinstance(error, _REFUSED):
        return FailedPrecondition.at("recipe.index.url", f"PostgreSQL refuses: {reason(error)}")
    if isinstance(error, errors.UndefinedTable):
        return CorruptIndex("the tables of the dense index are gone from PostgreSQL")
    if isinstance(error, errors.QueryCanceled):
        # An answer: whoever asks for less may well be served.
        return Overloaded("PostgreSQL took longer than timeout_s allows", retry_after_s=_OPEN_S)
    if isinstance(error, _AWAY):
        return BackendUnavailable(f"PostgreSQL does not answer as it should: {reason(error)}")
    return Internal(f"a statement of the dense index failed: {reason(error)}")


def reason(error: psycopg.Error) -> str:
    """The first line of the server's own words: the others would quote statements."""
    words = error.diag.message_primary or str(error)
    return words.strip().partition("\n")[0] or type(error).__name__

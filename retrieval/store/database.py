"""One database, many readers, one writer whose concurrent writes share a commit."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import uuid4

from sqlalchemy import Connection, Engine, exc

from ragstone.errors import BackendUnavailable, CorruptIndex, Internal, Overloaded, RagstoneError
from retrieval.store.dialects import Engines, announce, connect
from retrieval.store.migrations import upgrade

T = TypeVar("T")
Work = Callable[[Connection], T]

RETRY_AFTER_S: Final = 0.25
"""What a caller is told when the queue is full: a few group commits later."""


class Database:
    """The catalog's database. Every call may come from any number of tasks of one event loop."""

    def __init__(self, engines: Engines, *, readers: int, queue_size: int, group_size: int) -> None:
        """Use ``open``; this starts threads on ``engines``, whose tables must exist."""
        self._engines = engines
        self.server = uuid4().hex
        """The name under which this process tells others that it has written."""
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="store-read")
        self._writer = _Writer(engines, self.server, queue_size=queue_size, group_size=group_size)

    @classmethod
    async def open(
        cls, url: str, *, readers: int = 4, queue_size: int = 1024, group_size: int = 64
    ) -> Database:
        """Connect to ``url``, a SQLAlchemy URL for SQLite or PostgreSQL, and bring its tables up to date.

        At most ``queue_size`` writes wait, at most ``group_size`` share a commit. Raises InvalidArgument for
        a bad URL, FailedPrecondition when a newer Ragstone has written the database, BackendUnavailable.
        """
        engines = connect(url, readers=readers)

        def prepare() -> None:
            with engines.writer.begin() as connection:
                upgrade(connection)

        try:
            await asyncio.to_thread(_translated, prepare)
        except BaseException:
            engines.dispose()
            raise
        return cls(engines, readers=readers, queue_size=queue_size, group_size=group_size)

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` on a reader thread, in a transaction that sees one snapshot.

        Raises what ``work`` raises; BackendUnavailable when the database does not answer.
        """

        def run() -> T:
            with self._engines.reader.begin() as connection:
                return work(connection)

        loop = asyncio.get_running_loop()
        try:
            pending = loop.run_in_executor(self._readers, _translated, run)
        except RuntimeError as error:  # the executor's word for "shut down"
            raise BackendUnavailable("the catalog is closed") from error
        return await pending

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` on the writer thread; when this returns, what it wrote is durable.

        Waiting writes run one after another in one transaction, each in its own savepoint: when ``work``
        raises, only its own effects are undone. A caller cancelled while waiting leaves no trace; one
        cancelled later may find its write done. Raises what ``work`` raises; Overloaded when too many writes
        wait; BackendUnavailable when nothing of the group could be committed (a full disk, a lost server).
        """
        return await asyncio.wrap_future(self._writer.submit(work))

    @property
    def listener(self) -> Engine | None:
        """What makes connections that hear of other servers; None where there are no others."""
        return self._engines.listener

    @property
    def waiting(self) -> int:
        """How many writes wait for the writer now."""
        return self._writer.waiting

    async def close(self) -> None:
        """Commit the writes that wait, refuse new ones, stop the threads, close all connections."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        self._readers.shutdown()
        self._engines.dispose()


@dataclass(slots=True)
class _Job:
    """A write that waits, and how it went before the group's commit."""

    work: Work[Any]
    future: Future[Any] = field(default_factory=Future)
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Writer:
    """The one thread that writes."""

    def __init__(self, engines: Engines, server: str, *, queue_size: int, group_size: int) -> None:
        self._engine = engines.writer
        self._server = server
        self._group_size = group_size
        self._queue_size = queue_size
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-write", daemon=True)
        self._thread.start()

    def submit(self, work: Work[T]) -> Future[T]:
        """Queue ``work``. Raises Overloaded, or BackendUnavailable after ``close``."""
        job = _Job(work)
        with self._lock:
            if self._closed:
                raise BackendUnavailable("the catalog is closed")
            if self._queue.qsize() >= self._queue_size:
                raise Overloaded("too many writes wait for the catalog", retry_after_s=RETRY_AFTER_S)
            self._queue.put(job)
        return job.future

    @property
    def waiting(self) -> int:
        """How many writes are queued."""
        return self._queue.qsize()

    def close(self) -> None:
        """Finish what is queued, then stop. May be called again."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            self._commit([job for job in group if job.future.set_running_or_notify_cancel()])

    def _next_group(self) -> list[_Job]:
        """All that waits, up to the group size; empty at the end."""
        group: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            group.append(job)
            if len(group) == self._group_size or self._queue.empty():
                return group
            job = self._queue.get()
        if group:
            self._queue.put(None)  # nothing can be behind the end marker: it comes round again
        return group

    def _commit(self, group: Sequence[_Job]) -> None:
        try:
            if group:
                self._transact(group)
        except exc.SQLAlchemyError as error:
            for job in group:
                job.error = translate(error)
        except BaseException as error:  # noqa: BLE001 - or the callers would wait for ever
            for job in group:
                job.error = error
        for job in group:
            job.settle()

    def _transact(self, group: Sequence[_Job]) -> None:
        with self._engine.begin() as connection:
            for job in group:
                savepoint = connection.begin_nested()
                try:
                    job.result = job.work(connection)
                except (exc.OperationalError, exc.InterfaceError):
                    # The database itself failed. SQLite may have undone the whole transaction by now,
                    # savepoints included, so no earlier member of the group can be kept.
                    raise
                except BaseException as error:  # noqa: BLE001 - it goes to the caller
                    savepoint.rollback()
                    job.error = translate(error) if isinstance(error, exc.SQLAlchemyError) else error
                else:
                    savepoint.commit()
            announce(connection, self._server)


def translate(error: exc.SQLAlchemyError) -> RagstoneError:
    """The error of Ragstone's tree for one of SQLAlchemy's, which becomes its cause."""
    told: RagstoneError
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        told = BackendUnavailable(f"the catalog's database failed: {_reason(error)}")
    elif type(error) is exc.DatabaseError:
        told = CorruptIndex(f"the catalog's database is damaged: {_reason(error)}")
    else:
        told = Internal(f"a statement of the catalog failed: {_reason(error)}")
    told.__cause__ = error
    return told


def _reason(error: exc.SQLAlchemyError) -> str:
    """The first line of the driver's own words: what else there is would quote statements and users' data."""
    words = str(error.orig).strip() if isinstance(error, exc.DBAPIError) else ""
    return words.partition("\n")[0] or type(error).__name__


def _translated(work: Callable[[], T]) -> T:
    try:
        return work()
    except exc.SQLAlchemyError as error:
        raise translate(error) from error

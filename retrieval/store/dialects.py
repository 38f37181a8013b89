"""All that differs between SQLite and PostgreSQL: engines, locks, notices, "insert or ignore"."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from ragstone.errors import InvalidArgument

_WRITE_LOCK = 0x52616773
"""PostgreSQL's advisory lock that makes this catalog's writers take turns, across processes."""

_DRIVER = "postgresql+psycopg"
"""PostgreSQL's, where a URL names none."""

_DEADLINES = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "tcp_user_timeout": 15_000,
}
"""After which a server that is gone without a word is given up: seconds, the last one in milliseconds."""

CHANNEL = "ragstone"
"""Where servers on PostgreSQL tell one another that they have written."""

_BUSY_S = 5.0
"""How long SQLite waits for another process's lock."""

_VERSION_LOCKS = 0x5261
"""The first half of the advisory locks of versions that are being built."""

_NOTIFY = text("SELECT pg_notify(:channel, :server)")
_TRY_LOCK = text("SELECT pg_try_advisory_lock(:space, :version)")

_SQLITE_PRAGMAS = (
    f"PRAGMA busy_timeout = {int(_BUSY_S * 1000)}",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -65536",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA wal_autocheckpoint = 4000",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Engines on one database: ``writer`` has one connection, ``reader`` only reads.

    ``listener`` makes a connection for each use, without transactions; None where the database tells nothing.
    """

    writer: Engine
    reader: Engine
    listener: Engine | None = None

    def dispose(self) -> None:
        """Close every connection."""
        self.reader.dispose()
        self.writer.dispose()
        if self.listener is not None:
            self.listener.dispose()


def connect(url: str, *, readers: int) -> Engines:
    """The engines for ``url``; no connection is opened yet.

    A writing transaction excludes all others from its first statement on, so commit order is the order of
    sequence numbers. A reading transaction sees one snapshot. Raises InvalidArgument for a bad
    URL.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return _sqlite(parsed, readers)
        if backend == "postgresql":
            named = parsed.drivername != backend
            return _postgresql(parsed if named else parsed.set(drivername=_DRIVER), readers)
    except (ArgumentError, NoSuchModuleError, ImportError) as exc:
        raise InvalidArgument.at("store.url", str(exc)) from exc
    raise InvalidArgument.at("store.url", f"{backend} is not supported: use sqlite or postgresql")


def insert_or_ignore(connection: Connection, table: Table) -> Insert:
    """An INSERT into ``table`` that skips rows whose primary key is already there."""
    return _insert_or_ignore(connection.dialect.name, table)


@cache
def _insert_or_ignore(dialect: str, table: Table) -> Insert:
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def announce(connection: Connection, server: str) -> None:
    """Tell other servers, once the transaction is committed, that ``server`` has written."""
    if connection.dialect.name == "postgresql":
        connection.execute(_NOTIFY, {"channel": CHANNEL, "server": server})


def lock_version(listener: Engine, version_id: int) -> Connection | None:
    """The connection that holds PostgreSQL's lock of a version from now on; None while another one does."""
    connection = listener.connect()
    try:
        lock = {"space": _VERSION_LOCKS, "version": version_id}
        if connection.execute(_TRY_LOCK, lock).scalar_one():
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def _sqlite(url: URL, readers: int) -> Engines:
    if url.database in (None, "", ":memory:"):
        raise InvalidArgument.at("store.url", "a catalog in memory would not survive; name a file")
    writer = create_engine(url, pool_size=1, max_overflow=0)
    reader = create_engine(url, pool_size=readers, max_overflow=0)
    for engine, begin, query_only in ((writer, "BEGIN IMMEDIATE", False), (reader, "BEGIN", True)):
        _prepare_sqlite(engine, begin, query_only=query_only)
    return Engines(writer=writer, reader=reader)


def _prepare_sqlite(engine: Engine, begin: str, *, query_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        # The driver's own implicit BEGIN comes too late for savepoints and DDL: it is off, and
        # SQLAlchemy's begin event below sends the real one.
        connection.isolation_level = None
        for pragma in _SQLITE_PRAGMAS:
            connection.execute(pragma)
        if query_only:
            connection.execute("PRAGMA query_only = ON")
        else:
            _use_wal(connection)

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to a write-ahead log, unless it has one already."""
    attempts_end = time.monotonic() + _BUSY_S
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            # Two processes that open a new file together: this one statement does not wait by itself.
            if time.monotonic() > attempts_end:
                raise
            time.sleep(0.01)


def _postgresql(url: URL, readers: int) -> Engines:
    given = _DEADLINES if url.get_driver_name() == "psycopg" else {}
    writer = create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True, connect_args=given)
    reader = create_engine(
        url,
        pool_size=readers,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args=given,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )

    @event.listens_for(writer, "begin")
    def take_turns(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")

    listener = create_engine(url, poolclass=NullPool, connect_args=given, isolation_level="AUTOCOMMIT")
    return Engines(writer=writer, reader=reader, listener=listener)

"""The tables in PostgreSQL: one for each index, and one row for each in a table of them all.

The row says which journal position the table has reached. Both change in one transaction, under the row's
lock: a crash leaves one state or the other, and of two servers that apply the same step one finds it done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import numpy as np
from psycopg import AsyncCursor, errors
from psycopg.sql import SQL, Composed, Identifier, Literal

from indexes.base import Keys, Metric, VectorBatch, Vectors
from indexes.dense.pgvector.binary import COPY_HEADER, COPY_TRAILER, KeyArray, copied_rows
from indexes.dense.pgvector.connections import Session
from ragstone.errors import CorruptIndex, FailedPrecondition, Internal

_INDEXES: Final = Identifier("ragstone_indexes")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,49}")
_WHERE: Final = {False: SQL(""), True: SQL("WHERE key = ANY(%(allow)s)")}
_SETUP_LOCK: Final = 0x52616774
"""The advisory lock of whoever makes or drops tables."""


@dataclass(frozen=True, slots=True)
class State:
    """What an index holds, and how far it has come."""

    applied_seq: int
    live: int
    last_key: int = -1
    """The greatest that ever was: keys after it are new."""

    def expect_at_least(self, seq: int) -> None:
        """Raises CorruptIndex when this is before what was committed already."""
        if self.applied_seq < seq:
            raise CorruptIndex(
                f"PostgreSQL has lost what it had committed: it is at position {self.applied_seq}, and was "
                f"at {seq} before"
            )


@dataclass(frozen=True, slots=True)
class Shape:
    """How rows are compared. Those by cosine are of unit length, and compared by their product."""

    dim: int
    metric: Metric

    @property
    def operator(self) -> LiteralString:
        """The distance that indexes are ordered by."""
        return "<->" if self.metric is Metric.L2 else "<#>"


class Table:
    """The statements of one index. ``name`` is its table's: no text of a user's is ever part of a statement.

    ``half`` says that the index is over 16-bit numbers. Raises what psycopg raises, and what is said.
    """

    def __init__(self, name: str, shape: Shape, *, half: bool) -> None:
        self.name = name
        self.shape = shape
        self._table = _table_of(name)
        self._half = half
        self._dim = Literal(shape.dim)
        self._walks = {among: self._walk(where).as_bytes() for among, where in _WHERE.items()}
        self._scans = {among: self._scan(where).as_bytes() for among, where in _WHERE.items()}

    async def make(self, session: Session) -> None:
        """Make the tables that are not there.

        Raises FailedPrecondition for one that was made for other vectors, CorruptIndex for half an index.
        """
        async with session.transaction():
            await session.execute("SELECT pg_advisory_xact_lock(%s)", (_SETUP_LOCK,))
            await session.execute(
                SQL(
                    "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, dim int NOT NULL, "
                    "metric text NOT NULL, applied_seq bigint NOT NULL, live bigint NOT NULL, "
                    "last_key bigint NOT NULL)"
                ).format(_INDEXES)
            )
            described = SQL("SELECT dim, metric, to_regclass(%s) IS NOT NULL FROM {} WHERE name = %s")
            cursor = await session.execute(described.format(_INDEXES), (self.name, self.name))
            row = await cursor.fetchone()
            if row is None:
                await self._make_table(session)
            else:
                self._expect(*row)

    async def _make_table(self, session: Session) -> None:
        try:
            await session.execute(
                SQL("CREATE TABLE {} (key bigint PRIMARY KEY, embedding vector({}) NOT NULL)").format(
                    self._table, self._dim
                )
            )
        except errors.DuplicateTable as exc:
            raise CorruptIndex(f"PostgreSQL has a table {self.name}, but does not know what it is") from exc
        row = (self.name, self.shape.dim, self.shape.metric.value)
        await session.execute(SQL("INSERT INTO {} VALUES (%s, %s, %s, 0, 0, -1)").format(_INDEXES), row)

    def _expect(self, dim: int, metric: str, is_there: bool) -> None:
        if not is_there:
            raise CorruptIndex(f"the table {self.name} is gone from PostgreSQL")
        if (dim, metric) != (self.shape.dim, self.shape.metric.value):
            raise FailedPrecondition(
                f"the index was made for dimension {dim}, {metric}, "
                f"not for dimension {self.shape.dim}, {self.shape.metric.value}"
            )

    async def state(self, session: Session) -> State:
        """What is applied now."""
        query = SQL("SELECT applied_seq, live, last_key FROM {} WHERE name = %s").format(_INDEXES)
        return self._known(await (await session.execute(query, (self.name,))).fetchone())

    async def _lock_state(self, session: Session, timeout_s: float) -> State:
        """The same; nobody else applies anything until the transaction ends, whose statements may take so
        long."""
        query = SQL(
            "SELECT applied_seq, live, last_key, set_config('statement_timeout', %s, true) "
            "FROM {} WHERE name = %s FOR UPDATE"
        ).format(_INDEXES)
        cursor = await session.execute(query, (str(round(timeout_s * 1000)), self.name))
        row = await cursor.fetchone()
        return self._known(None if row is None else row[:3])

    def _known(self, row: tuple[Any, ...] | None) -> State:
        if row is None:
            raise CorruptIndex(f"PostgreSQL does not know the index {self.name} any more")
        return State(*row)

    async def apply(
        self, session: Session, batch: VectorBatch, seq: int, *, at_least: int, timeout_s: float
    ) -> State:
        """Apply a prepared batch, whole or not at all; nothing when ``seq`` is applied already.

        Raises CorruptIndex when not even ``at_least`` is.
        """
        async with session.transaction():
            before = await self._lock_state(session, timeout_s)
            before.expect_at_least(at_least)
            if seq <= before.applied_seq:
                return before
            # What comes again is brought anew: rows can be copied into a table, and not over others.
            again = batch.keys[batch.keys <= before.last_key]
            gone = await self._delete(session, np.concatenate([batch.deleted, again]))
            if len(batch.keys):
                await self._copy(session, batch.keys, batch.vectors)
            last_key = int(batch.keys.max(initial=before.last_key))
            after = State(seq, before.live - gone + len(batch.keys), last_key)
            await session.execute(
                SQL("UPDATE {} SET applied_seq = %s, live = %s, last_key = %s WHERE name = %s").format(
                    _INDEXES
                ),
                (after.applied_seq, after.live, after.last_key, self.name),
            )
        return after

    async def _delete(self, session: Session, keys: Keys) -> int:
        if not len(keys):
            return 0
        query = SQL("DELETE FROM {} WHERE key = ANY(%s)").format(self._table)
        return (await session.execute(query, (KeyArray(keys),))).rowcount

    async def _copy(self, session: Session, keys: Keys, vectors: Vectors) -> None:
        query = SQL("COPY {} (key, embedding) FROM STDIN (FORMAT BINARY)").format(self._table)
        async with session.cursor() as cursor, cursor.copy(query) as copy:
            await copy.write(COPY_HEADER)
            for block in copied_rows(keys, vectors):
                await copy.write(block)
            await copy.write(COPY_TRAILER)

    @property
    def indexed(self) -> Composed:
        """What an index is over: the vectors, or what 16 bits keep of them."""
        return self._cast(SQL("embedding"))

    @property
    def operators(self) -> SQL:
        """The class of operators that an index is made with."""
        l2 = self.shape.metric is Metric.L2
        if self._half:
            return SQL("halfvec_l2_ops" if l2 else "halfvec_ip_ops")
        return SQL("vector_l2_ops" if l2 else "vector_ip_ops")

    # -- searching -------------------------------------------------------------------------------------

    async def nearest(
        self, session: Session, query: Vectors, limit: int, allow: KeyArray | None, *, indexed: bool
    ) -> AsyncCursor[Any]:
        """Keys and scores of the best ``limit``: by the index, in about their order; or by a scan, in order
        of their scores, then their keys."""
        asked = {"query": query, "limit": limit, "allow": allow}
        statements = self._walks if indexed else self._scans
        return await session.execute(statements[allow is not None], asked, binary=True)

    @property
    def _score(self) -> Composed:
        if self.shape.metric is Metric.L2:
            return SQL("(-((embedding <-> %(query)s) ^ 2))::real AS score").format()
        return SQL("(-(embedding <#> %(query)s))::real AS score").format()

    def _walk(self, where: SQL) -> Composed:
        query = self._cast(SQL("%(query)s::vector"))
        order = SQL("{} " + self.shape.operator + " {}").format(self.indexed, query)
        return SQL("SELECT key, {} FROM {} {} ORDER BY {} LIMIT %(limit)s").format(
            self._score, self._table, where, order
        )

    def _scan(self, where: SQL) -> Composed:
        # An index is ordered by distance, so none has this order: every row that counts is compared.
        return SQL("SELECT key, {} FROM {} {} ORDER BY score DESC, key LIMIT %(limit)s").format(
            self._score, self._table, where
        )

    def _cast(self, vector: SQL) -> Composed:
        cast = SQL("::halfvec({})").format(self._dim) if self._half else SQL("")
        return SQL("({}{})").format(vector, cast)


async def drop_table(session: Session, name: str) -> None:
    """Remove the index of that name with all its rows; nothing where there is none."""
    async with session.transaction():
        await session.execute("SELECT pg_advisory_xact_lock(%s)", (_SETUP_LOCK,))
        await session.execute(SQL("DROP TABLE IF EXISTS {}").format(_table_of(name)))
        known = await session.execute("SELECT to_regclass('ragstone_indexes') IS NOT NULL")
        if await known.fetchone() == (True,):
            await session.execute(SQL("DELETE FROM {} WHERE name = %s").format(_INDEXES), (name,))


def _table_of(name: str) -> Identifier:
    if not _NAME.fullmatch(name):
        raise Internal(f"{name!r} is no name for a table")
    return Identifier(name)

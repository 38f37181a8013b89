"""The approximate index over a table: built while searches and writes go on, by one server at a time."""

from __future__ import annotations

from typing import Final, LiteralString

from psycopg.sql import SQL, Composed, Identifier, Literal

from indexes.dense.pgvector.connections import Session
from indexes.dense.pgvector.options import HnswOptions, IndexedOptions, IvfflatOptions
from indexes.dense.pgvector.table import Table

INDEX_FROM: Final = 2_000
"""Fewer rows are scanned in no time."""

_BUILD_LOCK: Final = 0x52616775
"""The first half of the advisory lock of whoever builds; the other is made of the table's name."""


async def lock_build(session: Session, table: Table) -> bool:
    """Whether nobody else builds an index over the table; then nobody does while the session lasts."""
    query = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"
    cursor = await session.execute(query, (_BUILD_LOCK, table.name))
    return await cursor.fetchone() == (True,)


async def is_indexed(session: Session, table: Table) -> bool:
    """Whether there is an index that answers searches."""
    return await _validity(session, table) is True


async def build(session: Session, table: Table, options: IndexedOptions, *, again: bool) -> None:
    """Build the index where there is none, or ``again``, unless the table has too few rows for one.

    The caller holds the lock. What a broken build has left is removed first.
    """
    valid = await _validity(session, table)
    index = Identifier(_index_of(table))
    if valid is False:
        await session.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index))
    rows = (await table.state(session)).live
    if rows < INDEX_FROM or (valid and not again):
        return
    memory, workers = f"{options.build_memory_mb}MB", str(options.build_workers)
    await session.set({"maintenance_work_mem": memory, "max_parallel_maintenance_workers": workers})
    parameters = _parameters(options, rows)
    if valid:
        await session.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(_left_of(table)))
        await session.execute(SQL("ALTER INDEX {} SET ({})").format(index, parameters))
        await session.execute(SQL("REINDEX INDEX CONCURRENTLY {}").format(index))
        return
    await session.execute(
        SQL("CREATE INDEX CONCURRENTLY {} ON {} USING {} ({} {}) WITH ({})").format(
            index,
            Identifier(table.name),
            SQL("hnsw" if isinstance(options, HnswOptions) else "ivfflat"),
            table.indexed,
            table.operators,
            parameters,
        )
    )


async def tidy(session: Session, table: Table) -> None:
    """Free what deleted rows took, in the table and in its index."""
    await session.execute(SQL("VACUUM (ANALYZE) {}").format(Identifier(table.name)))


async def bytes_on_disk(session: Session, table: Table) -> int:
    """What the table and all that belongs to it take."""
    cursor = await session.execute("SELECT pg_total_relation_size(to_regclass(%s))", (table.name,))
    row = await cursor.fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def lists_of(options: IvfflatOptions, rows: int) -> int:
    """Into how many lists an index over so many rows parts them."""
    return options.lists or min(32_768, max(1, round(rows**0.5)))


async def _validity(session: Session, table: Table) -> bool | None:
    """Whether the index is whole; None where there is none."""
    query = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
    row = await (await session.execute(query, (_index_of(table),))).fetchone()
    return None if row is None else bool(row[0])


def _index_of(table: Table) -> str:
    return f"{table.name}_index"


def _left_of(table: Table) -> Identifier:
    """What PostgreSQL leaves of a build in another index's place that was broken off."""
    return Identifier(f"{_index_of(table)}_ccnew")


def _parameters(options: IndexedOptions, rows: int) -> Composed:
    chosen: tuple[tuple[LiteralString, int], ...] = ()
    if isinstance(options, HnswOptions):
        chosen = ("m", options.m), ("ef_construction", options.ef_construction)
    elif isinstance(options, IvfflatOptions):
        chosen = (("lists", lists_of(options, rows)),)
    return SQL(", ").join(SQL(name + " = {}").format(Literal(value)) for name, value in chosen)

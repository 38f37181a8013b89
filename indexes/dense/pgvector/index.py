"""A ``VectorIndex`` in PostgreSQL: the table is the index, the same one for every server of a catalog.

The table keeps float32 vectors, of unit length where they are compared by cosine, and every hit is scored
with them. New rows are searchable when they are committed: a search scans the table until there is an index
over it, and wherever a scan costs less.

The index is built when the first load is over, in one pass by several processes, and not row by row: by
``compact``, which a rebuild calls before its version may serve and which waits for it; and, for a
collection that just grows, in the background from a ``checkpoint`` on, as soon as the table grows by less
than a hundredth in half a minute. Searches and writes go on meanwhile; one server builds, the others find
it built.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias, TypeVar

import numpy as np
import psycopg
import structlog
from pyroaring import BitMap64

from indexes.base import IndexStats, Metric, Neighbours, SearchParams, VectorBatch, Vectors
from indexes.dense.pgvector.binary import KeyArray, keys_of
from indexes.dense.pgvector.building import INDEX_FROM, build, bytes_on_disk, is_indexed, lock_build, tidy
from indexes.dense.pgvector.connections import GRACE_S, Connections, Session, translate
from indexes.dense.pgvector.extension import expect_extension
from indexes.dense.pgvector.options import IndexedOptions, PgvectorOptions, expect_dimension, parse
from indexes.dense.pgvector.plan import Plan, plan
from indexes.dense.pgvector.table import Shape, State, Table, drop_table
from indexes.dense.position import Position, recall, remember
from indexes.dense.vectors import prepare_batch, prepare_queries
from indexes.directory import Directory
from ragstone.errors import BackendUnavailable, CorruptIndex, RagstoneError

T = TypeVar("T")
Hits: TypeAlias = list[tuple[int, float]]
"""Keys and scores, the latter rounded to float32."""

log = structlog.get_logger(__name__)

_STEADY: Final = 1.01
_SETTLE_S: Final = 30.0
"""A table that grows less than so many times in so long is no longer being loaded."""
_APPLY_ROW_S: Final = 0.02
"""So much longer may a step take for each of its rows: a graph takes them in one by one."""
_LOOK_S: Final = 0.5


async def open_index(
    kind: str,
    *,
    directory: Directory,
    name: str,
    dim: int,
    metric: Metric,
    options: Mapping[str, object],
) -> PgvectorIndex:
    """Open or make the index ``name`` in the database that the options tell.

    One that was open before opens also while the database does not answer: then its calls raise
    BackendUnavailable until it does. ``directory`` has where it stood.

    Raises InvalidArgument for wrong options and too many dimensions, FailedPrecondition when the database
    refuses, lacks the extension, or has an index of that name for other vectors, CorruptIndex when it has
    only half of it or less than it had, BackendUnavailable when it does not answer.
    """
    parsed = parse(options)
    expect_dimension(parsed, dim)
    half = isinstance(parsed, IndexedOptions) and parsed.storage == "float16"
    known = await asyncio.to_thread(recall, directory)
    table = Table(name, Shape(dim, metric), half=half)
    index = PgvectorIndex(parsed, table, directory, known=known or Position())
    try:
        await index.checkpoint()
    except BackendUnavailable as exc:
        if known is None:
            await index.close()
            raise
        log.warning("index_away", index=name, reason=exc.message)
    except BaseException:
        await index.close()
        raise
    return index


async def drop_index(*, name: str, options: Mapping[str, object]) -> None:
    """Remove an index from its database. Raises as ``open_index`` does."""
    parsed = parse(options)
    try:
        session = await Session.open(parsed)
        try:
            with session.deadline(parsed.timeout_s + GRACE_S):
                await drop_table(session, name)
        finally:
            await session.close()
    except (psycopg.Error, TimeoutError) as exc:
        raise translate(exc) from exc


class PgvectorIndex:
    """A dense follower in PostgreSQL. Belongs to one event loop."""

    def __init__(
        self,
        options: PgvectorOptions,
        table: Table,
        directory: Directory,
        *,
        known: Position,
    ) -> None:
        """Use ``open_index``; this asks nobody. ``known`` is where the index stood at the last checkpoint."""
        self._options = options
        self._table = table
        self._shape = table.shape
        self._directory = directory
        self._connections = Connections(options)
        self._state = State(known.applied_seq, known.live)
        self._prepared = False
        self._indexed = False
        self._bytes = 0
        self._applying = asyncio.Lock()
        self._building: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        """That a build need not wait until the table is steady."""
        self._damage = ""
        self._last_error = ""

    @property
    def applied_seq(self) -> int:
        """The last journal position that this server has applied, or found applied; a search may see more."""
        return self._state.applied_seq

    async def apply(self, batch: VectorBatch, *, seq: int) -> None:
        """Make ``batch`` visible and durable. Does nothing when ``seq <= applied_seq``, here or in the table.

        Raises InvalidArgument for a wrong batch, BackendUnavailable when the database does not answer (then
        nothing of it is visible, or all), CorruptIndex when the database has lost what it had.
        """
        if seq <= self._state.applied_seq:
            return
        prepared = prepare_batch(batch, dim=self._shape.dim, metric=self._shape.metric)
        async with self._applying:
            timeout_s = self._options.timeout_s + _APPLY_ROW_S * len(prepared.keys)
            work = partial(self._apply, batch=prepared, seq=seq, timeout_s=timeout_s)
            await self._run(work, timeout_s=timeout_s)

    async def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allow: BitMap64 | None = None,
        params: SearchParams | None = None,
    ) -> Neighbours:
        """The best ``k`` keys for each of ``queries``.

        Raises InvalidArgument for a wrong query, BackendUnavailable when the database does not answer.
        """
        prepared = prepare_queries(queries, dim=self._shape.dim, metric=self._shape.metric)
        keys = np.full((len(prepared), max(0, k)), -1, np.int64)
        scores = np.full(keys.shape, -np.inf, np.float32)
        if k > 0 and (allow is None or allow):
            how = params or SearchParams()
            for row, query in enumerate(prepared):
                hits = await self._run(partial(self._nearest, query=query, k=k, allow=allow, params=how))
                keys[row, : len(hits)] = [key for key, _ in hits]
                scores[row, : len(hits)] = [score for _, score in hits]
        return Neighbours(keys, scores)

    async def checkpoint(self) -> int:
        """The ``seq`` of the last commit: commits are durable already. Begins the build of an index."""
        async with self._applying:
            seq = await self._run(self._checkpoint)
        position = Position(applied_seq=self._state.applied_seq, live=self._state.live)
        await asyncio.to_thread(remember, self._directory, position)
        self._begin_building()
        return seq

    async def compact(self) -> None:
        """Free what deleted rows took, and wait until there is an index over the table, if it is to have one.

        An inverted file is built anew: its centroids are those of the rows that there were then.
        """
        if self._building is not None:
            self._hurry.set()
            await asyncio.wait([self._building])
        async with self._connections.apart() as session:
            await tidy(session, self._table)
        await self._build(again=self._options.method == "ivfflat")

    def explain(self, k: int, *, allow: BitMap64 | None = None, params: SearchParams | None = None) -> str:
        """How a search with these arguments is answered now, in words."""
        return self._plan(k, allow, params or SearchParams()).explain(self._options)

    def stats(self) -> IndexStats:
        """What the index held after this server's last transaction, and took at its last checkpoint."""
        return IndexStats(
            live=self._state.live,
            pending=0 if self._indexed or self._options.method == "exact" else self._state.live,
            segments=int(self._state.live > 0),
            bytes_on_disk=self._bytes,
            damage=self._damage,
            details={
                "table": self._table.name,
                "method": self._options.method,
                "indexed": self._indexed,
                "building": self._building is not None,
                "last_error": self._last_error,
            },
        )

    async def close(self) -> None:
        """Close the connections. A build that runs is broken off; the next one begins anew."""
        building = self._building
        if building is not None:
            building.cancel()
            await asyncio.gather(building, return_exceptions=True)
        await self._connections.close()

    async def _run(self, work: Callable[[Session], Awaitable[T]], *, timeout_s: float | None = None) -> T:
        try:
            return await self._connections.run(
                work if self._prepared else partial(self._prepare, work), timeout_s=timeout_s
            )
        except CorruptIndex as exc:
            self._damage = exc.message
            raise

    async def _prepare(self, work: Callable[[Session], Awaitable[T]], session: Session) -> T:
        """Make what is not there, and see how far it has come; then do ``work``."""
        await expect_extension(session)
        await self._table.make(session)
        await self._checkpoint(session)
        self._prepared = True
        return await work(session)

    # -- searching -------------------------------------------------------------------------------------

    def _plan(self, k: int, allow: BitMap64 | None, params: SearchParams) -> Plan:
        live, indexed = self._state.live, self._indexed
        return plan(self._options, k, live=live, indexed=indexed, allow=allow, params=params)

    async def _nearest(
        self, session: Session, query: Vectors, k: int, allow: BitMap64 | None, params: SearchParams
    ) -> Hits:
        """The best ``k`` for one query ``(dim,)``, in order.

        An index gives its rows in about their order, and ties in any: so more than ``k`` are fetched, twice
        as many each time, until the worst of them is surely beyond the last one wanted.
        """
        chosen = self._plan(k, allow, params)
        while chosen.indexed:
            await session.set(chosen.settings(self._options))
            hits = await self._fetch(session, query, chosen, allow)
            hits.sort(key=_rank)
            best = hits if allow is None or chosen.among else [hit for hit in hits if hit[0] in allow]
            if len(best) >= k and hits[-1][1] < best[k - 1][1]:
                return best[:k]
            chosen = chosen.wider(self._state.live, found=len(hits))
        return await self._fetch(session, query, chosen, allow)

    async def _fetch(self, session: Session, query: Vectors, chosen: Plan, allow: BitMap64 | None) -> Hits:
        among = KeyArray(keys_of(allow)) if chosen.among and allow is not None else None
        cursor = await self._table.nearest(session, query, chosen.limit, among, indexed=chosen.indexed)
        return await cursor.fetchall()

    # -- upkeep ----------------------------------------------------------------------------------------

    async def _apply(self, session: Session, batch: VectorBatch, seq: int, timeout_s: float) -> None:
        before = self._state.applied_seq
        self._see(await self._table.apply(session, batch, seq, at_least=before, timeout_s=timeout_s))

    async def _checkpoint(self, session: Session) -> int:
        before = self._state.applied_seq
        state = await self._table.state(session)
        state.expect_at_least(before)
        self._see(state)
        self._indexed = await is_indexed(session, self._table)
        self._bytes = await bytes_on_disk(session, self._table)
        return state.applied_seq

    def _see(self, state: State) -> None:
        # An apply that nobody waits for any more may end after the next one.
        if state.applied_seq >= self._state.applied_seq:
            self._state = state

    def _begin_building(self) -> None:
        """Build in the background, where the table is worth it, as soon as it is no longer being loaded."""
        wanted = isinstance(self._options, IndexedOptions) and self._state.live >= INDEX_FROM
        if wanted and not self._indexed and self._building is None:
            self._hurry.clear()
            self._building = asyncio.create_task(self._build_when_steady(), name="pgvector build")

    async def _build_when_steady(self) -> None:
        try:
            seen = 0
            while self._state.live >= _STEADY * seen and not self._hurry.is_set():
                seen = self._state.live
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), _SETTLE_S)
            await self._build()
        except RagstoneError as exc:
            # Searches scan meanwhile; the next checkpoint tries again.
            self._last_error = exc.message
            log.warning("index_not_built", index=self._table.name, reason=exc.message)
        finally:
            self._building = None

    async def _build(self, *, again: bool = False) -> None:
        options = self._options
        if not isinstance(options, IndexedOptions):
            return
        async with self._connections.apart() as session:
            # Waiting inside PostgreSQL would hold up the very build that is waited for.
            while not await lock_build(session, self._table):  # noqa: ASYNC110 - the lock is PostgreSQL's
                await asyncio.sleep(_LOOK_S)
            await build(session, self._table, options, again=again)
        await self._run(self._checkpoint)
        self._last_error = ""


def _rank(hit: tuple[int, float]) -> tuple[float, int]:
    return -hit[1], hit[0]

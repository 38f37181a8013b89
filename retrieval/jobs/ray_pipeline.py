"""A re-embedding job as a Ray Data pipeline: texts flow to a pool of actors, on this machine or on a cluster.

    borrow (driver) -> queue -> read (one task) -> map_batches (an actor for each worker) -> bring (driver)

Only the driver, the command's process, talks to the server: it borrows, renews, and brings what comes out of
the pipeline. An actor needs the model alone. One that dies is replaced by Ray, and its slices go to another;
when the driver dies its leases expire, as any worker's do.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from itertools import count
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.util.queue import Queue

from embedders.base import Embedder
from embedders.refusals import Outcome
from ragstone import AsyncClient
from ragstone.errors import BackendUnavailable, RagstoneError
from ragstone.types import MissingTexts
from retrieval.jobs.borrowing import Borrower, Slice, Tally
from retrieval.jobs.crew import Assignment
from retrieval.jobs.embedding import embed_slice, open_embedder
from retrieval.jobs.ray_cluster import Share, fair_share, joined

T = TypeVar("T")

_LANES: Final = 2
"""Slices at a time in an actor: while one is tokenised or on its way the model has another."""
_AWAY: Final = 4
"""Slices of each actor between the driver's two ends: in its lanes, and waiting for them."""

_BEGIN: Final = "begin"

# A row is a slice, and a block of its own: Ray gives a block to an actor as a whole.
_SLICE: Final = pa.schema({"slice": pa.int64(), "texts": pa.list_(pa.large_string())})
_EMBEDDED: Final = pa.schema(
    {
        "slice": pa.int64(),
        "vectors": pa.large_binary(),  # float32, of the texts that were not refused
        "refused": pa.list_(pa.string()),  # a text each: why, or null
        "error": pa.binary(),  # pickled; then there is nothing else
    }
)


def run(
    assignment: Assignment,
    *,
    address: str,
    gpus_per_worker: float | None = None,
    on_progress: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Join the Ray at ``address`` (``local`` starts one) and work there until nothing is left.

    Can be broken off at any moment and run again. Raises InvalidArgument when there is no room for so many
    workers, SpaceMismatch when an actor's model is not the one of the version's space, BackendUnavailable
    when Ray or the server cannot be reached, and what the embedder raises when it is opened or fails.
    """
    with joined(address):
        share = fair_share(assignment.workers, gpus_per_worker=gpus_per_worker)
        return asyncio.run(_Pipeline(assignment, share, on_progress).run())


class _Pipeline:
    """The driver: one assignment's texts on their way through Ray. ``run`` is called once."""

    def __init__(self, assignment: Assignment, share: Share, on_progress: Callable[[Tally], None]) -> None:
        self._assignment = assignment
        self._share = share
        self._on_progress = on_progress
        self._room = asyncio.Semaphore(_AWAY * assignment.workers)
        self._away: dict[int, Slice] = {}
        """What is in the pipeline, by number."""
        self._numbers = count()

    async def run(self) -> Tally:
        assignment = self._assignment
        async with AsyncClient(assignment.server) as client:
            borrower = Borrower(
                client,
                assignment.collection,
                assignment.version,
                name=f"{socket.gethostname()}/{os.getpid()}/ray",
                limits=assignment.limits,
                on_progress=self._on_progress,
            )
            async with borrower, aclosing(borrower.slices()) as slices:
                first = await anext(slices, None)
                if first is not None:
                    await self._flow(borrower, first, slices)
        return borrower.tally

    async def _flow(self, borrower: Borrower, first: Slice, others: AsyncIterator[Slice]) -> None:
        feed = Queue(actor_options={"num_cpus": 0})
        await feed.put_async(_BEGIN)
        embedded = _embedded(feed, first.part, self._assignment.workers, self._share)
        try:
            async with asyncio.TaskGroup() as ends:
                ends.create_task(self._collect(borrower, embedded, feed))
                await self._send(first, feed)
                async for some in others:
                    await self._send(some, feed)
                await feed.put_async(None)
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _send(self, some: Slice, feed: Queue) -> None:
        await self._room.acquire()
        number = next(self._numbers)
        self._away[number] = some
        await feed.put_async({"slice": number, "texts": [missing.text for missing in some.texts]})

    async def _collect(self, borrower: Borrower, embedded: Dataset, feed: Queue) -> None:
        async with aclosing(_rows(embedded, feed)) as rows:
            async for row in rows:
                if row["error"] is not None:
                    raise pickle.loads(row["error"])
                some = self._away.pop(row["slice"])
                await borrower.bring(some, _outcomes(row, some.part.dim))
                self._room.release()


# -- the stages ------------------------------------------------------------------------------------


def _embedded(feed: Queue, first: MissingTexts, workers: int, share: Share) -> Dataset:
    """What the actors make of the slices in ``feed``, in any order."""
    # A block ends as soon as it has more bytes than this: after every row.
    DataContext.get_current().target_max_block_size = 1
    slices = ray.data.read_datasource(_Slices(feed), num_cpus=0, override_num_blocks=1)
    embedded: Dataset = slices.map_batches(
        SliceEmbedder,
        fn_constructor_kwargs={"space": first.space, "options": share.options(first.embedder)},
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            size=workers,
            max_tasks_in_flight_per_actor=_LANES,
            max_concurrent_calls_per_actor=_LANES,
            enable_true_multi_threading=True,
        ),
        num_cpus=share.cpus,
        num_gpus=share.gpus,
    )
    return embedded


class _Slices(Datasource):
    """The slices that the driver puts into a queue, until it puts None."""

    def __init__(self, feed: Queue) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._feed = feed

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One: there is one queue."""
        feed = self._feed

        def read() -> Iterator[pa.Table]:
            # Ray replaces a reader that it has lost. What that one had taken is gone: the job must end.
            if feed.get(block=False) != _BEGIN:
                raise RuntimeError("the reader of the slices was lost")
            for some in iter(feed.get, None):
                yield pa.Table.from_pylist([some], _SLICE)

        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(read, unknown)]

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known."""
        return None


class SliceEmbedder:
    """An actor: the version's embedder, opened once, for the slices that come. Its calls may overlap."""

    def __init__(self, *, space: str, options: Mapping[str, Any]) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._embedder: Future[Embedder] = self._begin(open_embedder(space, options))

    def __call__(self, slices: pa.Table) -> pa.Table:
        """What became of each text of one slice.

        An error is a result, too: of an exception Ray brings nothing but the text to the driver.
        """
        [row] = slices.to_pylist()
        result: dict[str, Any] = {"slice": row["slice"]}
        try:
            outcomes = self._begin(embed_slice(self._embedder.result(), row["texts"])).result()
        except RagstoneError as exc:
            result["error"] = pickle.dumps(exc)
        else:
            result |= _columns(outcomes)
        return pa.Table.from_pylist([result], _EMBEDDED)

    def _begin(self, what: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(what, self._loop)


def _columns(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    vectors = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    return {
        "vectors": np.asarray(vectors, np.float32).tobytes(),
        "refused": [outcome if isinstance(outcome, str) else None for outcome in outcomes],
    }


def _outcomes(row: Mapping[str, Any], dim: int) -> list[Outcome]:
    vectors = iter(np.frombuffer(row["vectors"], np.float32).reshape(-1, dim))
    return [next(vectors) if reason is None else reason for reason in row["refused"]]


async def _rows(dataset: Dataset, feed: Queue) -> AsyncGenerator[dict[str, Any], None]:
    """What comes out of a dataset, as it comes. Raises BackendUnavailable when Ray gives up.

    Ray's iterators block, hence the thread. It ends with ``feed``, and must end before Ray does: whatever it
    called afterwards would start another Ray.
    """
    loop = asyncio.get_running_loop()
    out: asyncio.Queue[pa.Table | Exception | None] = asyncio.Queue()

    def drain() -> None:
        end: Exception | None = None
        try:
            # Nothing may be held back: the last slices must come out before the end can be known.
            for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                loop.call_soon_threadsafe(out.put_nowait, table)
        except Exception as exc:  # noqa: BLE001 - Ray raises many kinds, its callers get one
            end = exc
        loop.call_soon_threadsafe(out.put_nowait, end)

    thread = threading.Thread(target=drain, name="ray-results")
    thread.start()
    try:
        while (table := await out.get()) is not None:
            if isinstance(table, Exception):
                raise BackendUnavailable(f"Ray gave the job up: {table}") from table
            for row in table.to_pylist():
                yield row
    finally:
        feed.shutdown(force=True)
        thread.join()

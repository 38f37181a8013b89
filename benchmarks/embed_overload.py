"""Queries that come faster than the model takes them: what is served, what is shed, and how soon."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.ann_processes import Memory
from benchmarks.asking import per_s_of_clients
from benchmarks.embed_backends import DEFAULT, open_backend
from benchmarks.embed_speed import texts
from benchmarks.texts import PROGRESS
from embedders.base import Embedder
from ragstone.errors import Overloaded

SENTENCES: Final = 3
"""In a query: the model's work, not that of asking, has to be what is too much."""
_TICK_S: Final = 0.002
_WARM_UP: Final = 400
_LONG: Final = 262_144
"""Tokens: the work of some twenty seconds on two cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """What became of queries that came at ``offered`` a second; shares are of those."""

    queue_tokens: int | None
    """None: as it is by default."""
    capacity: float
    """Queries a second of so many callers that the model is never idle."""
    offered: float
    served: float
    """Queries a second, before their deadline."""
    served_p50_ms: float
    served_p99_ms: float
    shed_share: float
    shed_p99_ms: float
    """Until they heard of it."""
    retry_after_s: tuple[float, float]
    """Of what was shed, the median and the largest."""
    late_share: float
    """Accepted, and not served before the deadline."""
    rss_mb: tuple[float, float]
    """After a sixth of the time, and at the end."""

    @property
    def kept(self) -> float:
        """Of the capacity."""
        return self.served / self.capacity


@dataclass(slots=True, eq=False)
class _Log:
    """Of each query, milliseconds until it was over; 0 where that was something else."""

    served_ms: NDArray[np.float32]
    shed_ms: NDArray[np.float32]
    retry_after_s: NDArray[np.float32]

    @classmethod
    def of(cls, queries: int) -> _Log:
        # In place from the start: the log's own growth would look like a leak.
        return cls(*(np.full(queries, 1e-9, np.float32) for _ in range(3)))


def overload(options: argparse.Namespace) -> Sequence[Mapping[str, object]]:
    """With the queue as it is by default, and with one that holds far more than the deadline allows."""
    found = asyncio.run(_both(options))
    report.show(
        f"{options.overload_s:.0f} s of {options.times:g} times the capacity; deadline {options.deadline} s",
        (
            "queue, tokens",
            "capacity/s",
            "served/s",
            "is",
            "p50 ms",
            "p99",
            "shed",
            "p99 ms",
            "retry s",
            "late",
            "RSS MB",
        ),
        [_row(one) for one in found],
        quiet=options.json,
    )
    return [{**asdict(one), "kept": one.kept} for one in found]


def _row(one: Overload) -> tuple[str, ...]:
    return (
        "default" if one.queue_tokens is None else f"{one.queue_tokens:,}",
        f"{one.capacity:,.0f}",
        f"{one.served:,.0f}",
        f"{one.kept:.2f} x",
        f"{one.served_p50_ms:,.0f}",
        f"{one.served_p99_ms:,.0f}",
        f"{one.shed_share:.0%}",
        f"{one.shed_p99_ms:.1f}",
        "{:.2f} to {:.2f}".format(*one.retry_after_s),
        f"{one.late_share:.1%}",
        "{:.0f} to {:.0f}".format(*one.rss_mb),
    )


async def _both(options: argparse.Namespace) -> list[Overload]:
    _, queries = texts(0, 2_000, SENTENCES)
    return [await _one(queries, size, options) for size in (None, _LONG)]


async def _one(queries: Sequence[str], queue_tokens: int | None, options: argparse.Namespace) -> Overload:
    embedder = await open_backend(DEFAULT, **({"queue_tokens": queue_tokens} if queue_tokens else {}))
    capacity = await _capacity(embedder, queries, options.clients)
    PROGRESS.print(f"capacity {capacity:,.0f} queries/s; {options.overload_s:.0f} s of overload")
    offered = capacity * options.times
    log = _Log.of(int(offered * options.overload_s))
    early_mb, took_s = await _offer(embedder, queries, offered, options.deadline, log)
    late_mb = _rss_mb()
    await embedder.close()
    served, shed = log.served_ms[log.served_ms > 1e-6], log.shed_ms[log.shed_ms > 1e-6]
    retries = log.retry_after_s[log.shed_ms > 1e-6]
    return Overload(
        queue_tokens=queue_tokens,
        capacity=capacity,
        offered=offered,
        served=len(served) / took_s,
        served_p50_ms=_percentile(served, 50),
        served_p99_ms=_percentile(served, 99),
        shed_share=len(shed) / len(log.shed_ms),
        shed_p99_ms=_percentile(shed, 99),
        retry_after_s=(_percentile(retries, 50), _percentile(retries, 100)),
        late_share=1 - (len(served) + len(shed)) / len(log.shed_ms),
        rss_mb=(early_mb, late_mb),
    )


async def _capacity(embedder: Embedder, queries: Sequence[str], clients: int) -> float:
    """Queries a second of closed loops."""
    await per_s_of_clients(embedder.embed_queries, queries[:_WARM_UP], clients)
    return await per_s_of_clients(embedder.embed_queries, queries, clients)


async def _offer(
    embedder: Embedder, queries: Sequence[str], offered: float, deadline_s: float, log: _Log
) -> tuple[float, float]:
    """Begin a query whenever one is due, whatever became of the others: RSS early on, seconds in all."""
    total = len(log.served_ms)
    running: set[asyncio.Task[None]] = set()
    early_mb = 0.0
    began = perf_counter()
    numbers = iter(enumerate(islice(cycle(queries), total)))
    sent = 0
    while sent < total:
        due = min(total, int((perf_counter() - began) * offered))
        for number, query in islice(numbers, due - sent):
            task = asyncio.create_task(
                _query(embedder, query, number, began + number / offered, deadline_s, log)
            )
            running.add(task)
            task.add_done_callback(running.discard)
        if sent < total // 6 <= due:
            early_mb = _rss_mb()
        sent = due
        await asyncio.sleep(_TICK_S)
    took_s = perf_counter() - began
    await asyncio.gather(*running)
    return early_mb, took_s


async def _query(
    embedder: Embedder, query: str, number: int, due: float, deadline_s: float, log: _Log
) -> None:
    try:
        async with asyncio.timeout(due + deadline_s - perf_counter()):
            await embedder.embed_queries([query])
    except TimeoutError:
        return
    except Overloaded as exc:
        log.shed_ms[number] = (perf_counter() - due) * 1e3
        log.retry_after_s[number] = exc.retry_after_s
        return
    log.served_ms[number] = (perf_counter() - due) * 1e3


def _percentile(values: NDArray[np.float32], percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else 0.0


def _rss_mb() -> float:
    return Memory.of("self").rss / 1e6

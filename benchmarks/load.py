"""A closed-loop load from a process of its own: the same code drives every peer.

``concurrency`` workers on one event loop each wait for their answer before they ask again. Rounds of
several peers alternate, and medians over the rounds are reported: a noisy machine hits all alike.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np

from benchmarks.texts import PROGRESS


class Target(Protocol):
    """Something that answers numbered queries. Pickled into the load's process, then opened there."""

    async def open(self, concurrency: int) -> None:
        """Connect, for ``concurrency`` calls at a time."""
        ...

    async def call(self, number: int) -> Sequence[int]:
        """Answer query ``number``: the ids found, best first."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How hard and how long: ``calls`` queries from ``first`` on, or as many as fit in ``seconds``.

    Timed loads walk round and round through ``distinct`` queries.
    """

    concurrency: int
    seconds: float = 0.0
    calls: int = 0
    first: int = 0
    distinct: int = 0
    warm_up_s: float = 1.0

    @property
    def numbers(self) -> Sequence[int]:
        """The queries of this load."""
        return range(self.first, self.first + (self.calls or self.distinct))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One round: latencies in milliseconds, and what was found for each query."""

    seconds: float
    latencies_ms: tuple[float, ...]
    found: Mapping[int, Sequence[int]]

    @property
    def qps(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Medians over the rounds of one peer."""

    qps: float
    p50_ms: float
    p95_ms: float
    rounds: tuple[float, ...]
    """The QPS of each round."""


def alternate(
    targets: Mapping[str, Target], load: Load, *, rounds: int
) -> dict[str, tuple[Summary, dict[int, Sequence[int]]]]:
    """Drive each target in turn, ``rounds`` times; its summary and everything it found, by name."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in targets}
    for number in range(rounds):
        for name, target in targets.items():
            outcome = drive(target, load)
            outcomes[name].append(outcome)
            PROGRESS.print(f"round {number + 1}/{rounds}  {name}: {outcome.qps:,.0f} QPS")
    return {name: (summarise(results), _merged(results)) for name, results in outcomes.items()}


def drive(target: Target, load: Load) -> Outcome:
    """One round, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(_run, target, load).result()


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Medians over rounds."""
    return Summary(
        qps=median(outcome.qps for outcome in outcomes),
        p50_ms=median(float(np.percentile(outcome.latencies_ms, 50)) for outcome in outcomes),
        p95_ms=median(float(np.percentile(outcome.latencies_ms, 95)) for outcome in outcomes),
        rounds=tuple(round(outcome.qps, 1) for outcome in outcomes),
    )


def _merged(outcomes: Sequence[Outcome]) -> dict[int, Sequence[int]]:
    return {number: ids for outcome in outcomes for number, ids in outcome.found.items()}


def _run(target: Target, load: Load) -> Outcome:
    return asyncio.run(_drive(target, load))


async def _drive(target: Target, load: Load) -> Outcome:
    await target.open(load.concurrency)
    try:
        if not load.calls:
            warm = Load(concurrency=load.concurrency, seconds=load.warm_up_s, distinct=load.distinct)
            await _ask_all(target, warm)
        return await _ask_all(target, load)
    finally:
        await target.close()


async def _ask_all(target: Target, load: Load) -> Outcome:
    numbers = iter(load.numbers) if load.calls else itertools.cycle(load.numbers)
    latencies: list[float] = []
    found: dict[int, Sequence[int]] = {}
    started = time.perf_counter()
    end = started + load.seconds if load.seconds else float("inf")

    async def work() -> None:
        for number in numbers:
            asked = time.perf_counter()
            if asked >= end:
                return
            found[number] = await target.call(number)
            latencies.append((time.perf_counter() - asked) * 1e3)

    async with asyncio.TaskGroup() as workers:
        for _ in range(load.concurrency):
            workers.create_task(work())
    seconds = time.perf_counter() - started
    return Outcome(seconds=seconds, latencies_ms=tuple(latencies), found=found)

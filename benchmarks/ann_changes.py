"""Searches while rows come and go, and searches among some of the rows."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.ann_measure import (
    Bench,
    Local,
    Rates,
    Spec,
    add_all,
    ask_all,
    present,
    rates,
    ratio,
    recall,
    settled,
    show,
)
from benchmarks.ann_peers import BASE, ERASING_PEERS, QDRANT, Erasing, QdrantEdge, RawFaiss, Side
from benchmarks.texts import PROGRESS
from indexes.base import Keys, VectorBatch, Vectors

LOCALS: Final[Mapping[str, Spec]] = {"Ragstone hnsw": Spec("hnsw"), "Ragstone ivf_pq": Spec("ivf_pq")}

CHANGED: Final = 0.3
"""Of the rows at the start: so many are replaced or deleted."""
STEP: Final = 500
UPSERTS: Final = 400
"""Of a step's changes: each replaces a row by a new one. The others only delete."""
PAUSE_S: Final = 0.05
"""Between two steps."""
IDLE_S: Final = 3.0

SHARES: Final = (0.001, 0.01, 0.1, 0.5, 0.9)
FILTER_QUERIES: Final = 200


# -- rows that come and go ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """Rows that leave, and rows that come."""

    deleted: Keys
    added: Keys


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """How a side does at one moment."""

    recall: float
    qps: Rates


def churn_part(options: argparse.Namespace) -> dict[str, Any]:
    """Recall and speed before and after many changes, and latency while the index compacts by itself.

    Raw FAISS cannot delete from a graph: it stays as it was, and tells how fast the machine is by then.
    """
    return asyncio.run(_churn(options))


async def _churn(options: argparse.Namespace) -> dict[str, Any]:
    async with Bench(options) as bench:
        start = int(len(bench.rows) / (1 + CHANGED * UPSERTS / STEP))
        steps = list(_steps(start))
        sides: dict[str, Side] = {BASE: bench.raw(start).side}
        peers = present({name: bench.peer(name, kind, start) for name, kind in ERASING_PEERS.items()})
        ours = present({name: await bench.local(name, spec, start) for name, spec in LOCALS.items()})
        sides |= {name: one.side for name, one in peers.items()}
        sides |= {name: one.side for name, one in ours.items()}
        before = await _states(bench, sides, np.arange(start))
        latencies = {name: await _change_live(bench, name, one.side, steps) for name, one in ours.items()}
        for name, peer in peers.items():
            _change_peer(bench, name, peer.side, steps)
        after = await _states(bench, sides, _live(start, steps))
    figures = {
        name: {
            "recall@10": (before[name].recall, after[name].recall),
            "qps": (float(np.median(before[name].qps)), float(np.median(after[name].qps))),
            "ratio": (ratio(before[name].qps, before[BASE].qps), ratio(after[name].qps, after[BASE].qps)),
        }
        for name in sides
        if name != BASE
    }
    changes = sum(len(step.deleted) for step in steps)
    _show_churn(options, f"{changes:,} changes of {start:,} rows", figures, latencies)
    return {"rows": start, "changes": changes, "sides": figures, "latency_ms": latencies}


def _steps(start: int) -> Iterator[_Step]:
    """Changes of ``CHANGED`` of the rows ``0..start``; new rows are numbered on."""
    old = np.random.default_rng(3).permutation(start)[: int(CHANGED * start)]
    new = start
    for place in range(0, len(old), STEP):
        deleted = old[place : place + STEP]
        count = len(deleted) * UPSERTS // STEP
        yield _Step(deleted, np.arange(new, new + count))
        new += count


def _live(start: int, steps: Sequence[_Step]) -> Keys:
    kept: Keys = np.setdiff1d(np.arange(start), np.concatenate([step.deleted for step in steps]))
    return np.concatenate([kept, *(step.added for step in steps)])


async def _states(bench: Bench, sides: Mapping[str, Side], live: Keys) -> dict[str, _State]:
    truth = bench.truth_among(live)
    recalls = {name: recall(truth, await ask_all(side, bench.queries)) for name, side in sides.items()}
    qps = await rates(sides, bench.queries, batch=1, rounds=bench.rounds)
    return {name: _State(recalls[name], qps[name]) for name in sides}


def _change_peer(bench: Bench, name: str, peer: Erasing, steps: Sequence[_Step]) -> None:
    PROGRESS.print(f"Changing {name}")
    for step in steps:
        peer.delete(step.deleted)
        peer.add(step.added, bench.rows[step.added])
    peer.finish()


async def _change_live(
    bench: Bench, name: str, side: Local, steps: Sequence[_Step]
) -> dict[str, dict[str, float]]:
    """Latencies in ms of one search after the other: idle, then during the changes and what they lead to."""
    PROGRESS.print(f"Changing {name}, and waiting until its upkeep has done all it wants")
    _, idle = await _ask_during(side, bench.queries, asyncio.sleep(IDLE_S))
    compacting, _ = await _ask_during(side, bench.queries, _change(bench, side, steps))
    return {"idle": _latency(idle), "compacting": _latency(compacting)}


async def _change(bench: Bench, side: Local, steps: Sequence[_Step]) -> None:
    for step in steps:
        batch = VectorBatch(step.added, bench.rows[step.added], step.deleted)
        await side.index.apply(batch, seq=side.index.applied_seq + 1)
        await asyncio.sleep(PAUSE_S)
    await settled(side.index)


async def _ask_during(
    side: Local, queries: Vectors, work: Coroutine[Any, Any, None]
) -> tuple[list[float], list[float]]:
    """Latencies in ms while ``work`` runs: of searches that began during a merge, and of the others."""
    task = asyncio.create_task(work)
    merging: list[float] = []
    others: list[float] = []
    for row in itertools.cycle(range(len(queries))):
        if task.done():
            break
        kind = merging if side.index.stats().details.get("merging") else others
        started = time.perf_counter()
        await side.search(queries[row : row + 1])
        kind.append((time.perf_counter() - started) * 1e3)
        # A quick search is answered without a turn of the event loop, and the writer needs its turns.
        await asyncio.sleep(0)
    await task
    return merging, others


def _latency(samples: Sequence[float]) -> dict[str, float]:
    if not samples:
        return {"searches": 0}
    p50, p99 = np.percentile(samples, [50, 99])
    return {"searches": len(samples), "p50": float(p50), "p99": float(p99)}


def _show_churn(
    options: argparse.Namespace,
    what: str,
    figures: Mapping[str, Any],
    latencies: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> None:
    show(
        f"{what}, {UPSERTS} of {STEP} of them upserts: before and after",
        ("", "recall@10", "after", "QPS", "after", "x raw FAISS", "after"),
        (*ERASING_PEERS, *LOCALS),
        figures,
        lambda row: (
            *(f"{value:.3f}" for value in row["recall@10"]),
            *(f"{value:,.0f}" for value in row["qps"]),
            *(f"{value:.2f}" for value in row["ratio"]),
        ),
        quiet=options.json,
    )
    show(
        "Latency of one search at a time, ms",
        ("", "idle p50", "p99", "searches", "compacting p50", "p99", "searches"),
        LOCALS,
        latencies,
        lambda row: [text for when in ("idle", "compacting") for text in _latency_cells(row[when])],
        quiet=options.json,
    )


def _latency_cells(latency: Mapping[str, float]) -> tuple[str, ...]:
    times = (f"{latency[key]:.2f}" if key in latency else "" for key in ("p50", "p99"))
    return (*times, f"{latency['searches']:,}")


# -- some of the rows -----------------------------------------------------------------------


def filters_part(options: argparse.Namespace) -> dict[str, Any]:
    """Recall and speed among a share of the rows, picked at random or all near one another."""
    return asyncio.run(_filters(options))


async def _filters(options: argparse.Namespace) -> dict[str, Any]:
    async with Bench(options, queries=FILTER_QUERIES) as bench:
        sets = _sets(bench.rows)
        sides = await _filtered(bench, sets)
        truths = {name: bench.truth_among(keys) for name, keys in sets.items()}
        recalls = {
            (who, name): recall(truths[name], await ask_all(side, bench.queries))
            for (who, name), side in sides.items()
            if name
        }
        qps = await rates(sides, bench.queries, batch=1, rounds=bench.rounds)
    who = list(dict.fromkeys(name for name, _ in sides))
    figures = {
        name: {
            side: {
                "recall@10": recalls[side, name],
                "qps": float(np.median(qps[side, name])),
                "to_unfiltered": ratio(qps[side, name], qps[side, ""]),
            }
            for side in who
        }
        for name in sets
    }
    title = f"Filters over {len(bench.rows):,} rows"
    _show_filters(f"{title}: recall@10", "recall@10", figures, quiet=options.json)
    _show_filters(
        f"{title}: throughput to that without a filter", "to_unfiltered", figures, quiet=options.json
    )
    unfiltered = {side: float(np.median(qps[side, ""])) for side in who}
    return {"rows": len(bench.rows), "unfiltered_qps": unfiltered, "sets": figures}


def _sets(rows: Vectors) -> dict[str, Keys]:
    """Row numbers for each share, ascending: random ones, and those nearest to some row."""
    chance = np.random.default_rng(5)
    sets: dict[str, Keys] = {}
    for share in SHARES:
        count = max(1, round(share * len(rows)))
        near = np.argsort(-(rows @ rows[chance.integers(len(rows))]), kind="stable")
        sets[f"random {100 * share:g}%"] = np.sort(chance.permutation(len(rows))[:count])
        sets[f"near {100 * share:g}%"] = np.sort(near[:count])
    return sets


async def _filtered(bench: Bench, sets: Mapping[str, Keys]) -> dict[tuple[str, str], Side]:
    """Each side among each of ``sets``, and under "" among all rows.

    hnswlib is left out: its filter is a Python function that it calls for every row it meets.
    """
    ours = present({name: await bench.local(name, spec) for name, spec in LOCALS.items()})
    plain: dict[str, RawFaiss | Local] = {BASE: bench.raw().side}
    plain |= {name: one.side for name, one in ours.items()}
    sides: dict[tuple[str, str], Side] = {(who, ""): side for who, side in plain.items()}
    sides |= {(who, name): side.among(keys) for who, side in plain.items() for name, keys in sets.items()}
    if (qdrant := bench.empty(QDRANT, QdrantEdge)) is not None:
        PROGRESS.print(f"Building {QDRANT}, with a payload for each set")
        add_all(qdrant, [(0, bench.rows)])
        labels = {name: f"set_{place}" for place, name in enumerate(sets)}
        for name, label in labels.items():
            qdrant.label(label, sets[name])
        qdrant.finish()
        sides[QDRANT, ""] = qdrant
        sides |= {(QDRANT, name): qdrant.among(label) for name, label in labels.items()}
    return sides


def _show_filters(title: str, key: str, figures: Mapping[str, Any], *, quiet: bool) -> None:
    who = next(iter(figures.values()))
    show(
        title,
        ("allowed", *who),
        figures,
        figures,
        lambda row: [f"{side[key]:.3f}" for side in row.values()],
        quiet=quiet,
    )

"""Speed of indexes that nobody writes to: at equal parameters, at a recall target, in shards."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from benchmarks.ann_measure import Bench, Built, Spec, present, rates, ratio, show
from benchmarks.ann_peers import BASE, EF_CONSTRUCTION, EF_SEARCH, ERASING_PEERS, K, M, Side
from benchmarks.texts import DIM

BATCH: Final = 32
SHARD_BATCH: Final = 64
SHARD_BATCHES: Final = 4
TARGETS: Final = (0.90, 0.95, 0.99)
_GRAPH: Final = {"m": M, "ef_construction": EF_CONSTRUCTION, "ef_search": EF_SEARCH}

DEFAULTS: Final = "Ragstone default"
STATIC: Final[Mapping[str, Spec]] = {
    **{
        f"Ragstone {storage}": Spec("hnsw", {**_GRAPH, "storage": storage})
        for storage in ("float32", "fp16", "sq8")
    },
    DEFAULTS: Spec("hnsw"),
}
RECALL: Final[Mapping[str, Spec]] = {
    f"{kind} at {target:.2f}": Spec(kind, {"recall_target": target})
    for kind in ("hnsw", "ivf_pq")
    for target in TARGETS
}
SHARDS: Final[Mapping[str, Spec]] = {
    f"{kind}, {shards}": Spec(kind, options)
    for kind in ("flat", "hnsw", "ivf_pq")
    for shards, options in {"1 shard": {}, "2 shards": {"shards": 2}}.items()
}


# -- equal parameters -----------------------------------------------------------------------


def static_part(options: argparse.Namespace) -> dict[str, Any]:
    """The index and its peers as they stand, one query at a time and in batches."""
    return asyncio.run(_static(options))


async def _static(options: argparse.Namespace) -> dict[str, Any]:
    async with Bench(options) as bench:
        built: dict[str, Built[Any]] = {BASE: bench.raw()}
        built |= present({name: bench.peer(name, kind) for name, kind in ERASING_PEERS.items()})
        built |= present({name: await bench.local(name, spec) for name, spec in STATIC.items()})
        sides: dict[str, Side] = {name: one.side for name, one in built.items()}
        widths = {name: EF_SEARCH for name in built if name != DEFAULTS}
        recalls = {name: await bench.recall(side) for name, side in sides.items()}
        for name in ERASING_PEERS.keys() & built.keys():
            sides[name], widths[name], recalls[name] = await bench.at_recall(built[name].side, recalls[BASE])
        single = await rates(sides, bench.queries, batch=1, rounds=bench.rounds)
        many = await rates(sides, bench.queries, batch=BATCH, rounds=bench.rounds)
    figures = {
        name: {
            "ef_search": widths.get(name),
            "recall@10": recalls[name],
            "us": 1e6 / float(np.median(single[name])),
            "qps": float(np.median(single[name])),
            "ratio": ratio(single[name], single[BASE]),
            "batch_qps": float(np.median(many[name])),
            "batch_ratio": ratio(many[name], many[BASE]),
            "build_s": one.seconds,
            "disk_mb": one.bytes / 1e6,
        }
        for name, one in built.items()
    }
    _show_static(f"{len(bench.rows):,} x {DIM}", figures, quiet=options.json)
    return {"rows": len(bench.rows), "batch": BATCH, "sides": figures}


def _show_static(size: str, figures: Mapping[str, Any], *, quiet: bool) -> None:
    names = (BASE, *ERASING_PEERS, *STATIC)
    show(
        f"Searches, {size}, k = {K}, m = {M}, ef_construction = {EF_CONSTRUCTION}, one thread",
        ("", "ef", "recall@10", "us", "QPS", "x raw", f"by {BATCH}", "x raw"),
        names,
        figures,
        _static_cells,
        quiet=quiet,
    )
    show(
        f"Builds, {size}, until all is on the disk",
        ("", "s", "x raw", "disk MB", "x raw"),
        names,
        figures,
        lambda row: (
            f"{row['build_s']:,.1f}",
            f"{row['build_s'] / figures[BASE]['build_s']:.2f}",
            f"{row['disk_mb']:,.0f}",
            f"{row['disk_mb'] / figures[BASE]['disk_mb']:.2f}",
        ),
        quiet=quiet,
    )


def _static_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(row["ef_search"] or ""),
        f"{row['recall@10']:.3f}",
        f"{row['us']:,.0f}",
        f"{row['qps']:,.0f}",
        f"{row['ratio']:.2f}",
        f"{row['batch_qps']:,.0f}",
        f"{row['batch_ratio']:.2f}",
    )


# -- recall targets -------------------------------------------------------------------------


def recall_part(options: argparse.Namespace) -> dict[str, Any]:
    """What a recall target brings on unseen queries, beside a raw graph as wide as that recall needs."""
    return asyncio.run(_recall(options))


async def _recall(options: argparse.Namespace) -> dict[str, Any]:
    async with Bench(options) as bench:
        raw = bench.raw().side
        built = present({name: await bench.local(name, spec) for name, spec in RECALL.items()})
        recalls = {name: await bench.recall(one.side) for name, one in built.items()}
        graphs = {name: await bench.at_recall(raw, reached) for name, reached in recalls.items()}
        sides: dict[str | int, Side] = {name: one.side for name, one in built.items()}
        sides |= {ef: graph for graph, ef, _ in graphs.values()}
        qps = await rates(sides, bench.queries, batch=1, rounds=bench.rounds)
    figures = {
        name: {
            "recall_target": RECALL[name].options["recall_target"],
            "recall@10": recalls[name],
            "qps": float(np.median(qps[name])),
            "raw_faiss_ef": ef,
            "raw_faiss_recall@10": raw_recall,
            "ratio": ratio(qps[name], qps[ef]),
        }
        for name, (_, ef, raw_recall) in graphs.items()
    }
    show(
        f"Recall targets, {len(bench.rows):,} x {DIM}, {len(bench.queries):,} unseen queries, one thread",
        ("", "recall@10", "reached", "QPS", "raw ef", "its recall", "x raw"),
        RECALL,
        figures,
        _recall_cells,
        quiet=options.json,
    )
    return {"rows": len(bench.rows), "sides": figures}


def _recall_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['recall@10']:.3f}",
        "yes" if row["recall@10"] >= row["recall_target"] else "no",
        f"{row['qps']:,.0f}",
        str(row["raw_faiss_ef"]),
        f"{row['raw_faiss_recall@10']:.3f}",
        f"{row['ratio']:.2f}",
    )


# -- shards ---------------------------------------------------------------------------------


def shards_part(options: argparse.Namespace) -> dict[str, Any]:
    """Batches against an index in two shards, which has a thread for each, and in one."""
    return asyncio.run(_shards(options))


async def _shards(options: argparse.Namespace) -> dict[str, Any]:
    async with Bench(options) as bench:
        built = present({name: await bench.local(name, spec) for name, spec in SHARDS.items()})
        recalls = {name: await bench.recall(one.side) for name, one in built.items()}
        sides = {name: one.side for name, one in built.items()}
        asked = bench.queries[: SHARD_BATCHES * SHARD_BATCH]
        qps = await rates(sides, asked, batch=SHARD_BATCH, rounds=bench.rounds)
    figures = {
        name: {
            "recall@10": recalls[name],
            "batch_qps": float(np.median(qps[name])),
            "ratio": ratio(qps[name], qps[f"{SHARDS[name].kind}, 1 shard"]),
        }
        for name in built
    }
    show(
        f"Shards, {len(bench.rows):,} x {DIM}, batches of {SHARD_BATCH}, a thread a shard",
        ("", "recall@10", "QPS", "x one shard"),
        SHARDS,
        figures,
        lambda row: (f"{row['recall@10']:.3f}", f"{row['batch_qps']:,.0f}", f"{row['ratio']:.2f}"),
        quiet=options.json,
    )
    return {"rows": len(bench.rows), "batch": SHARD_BATCH, "sides": figures}

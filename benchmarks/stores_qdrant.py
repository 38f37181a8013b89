"""The index in Qdrant's embedded engine beside the engine itself: searches at equal recall, and loads.

Both sides have one graph of the same shape over all rows, and are asked one query at a time, ``EF_SEARCH``
wide. The raw side asks for ten points and no more, on the calling thread, and keeps no log of its writes.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks import report
from benchmarks.ann_peers import EF_CONSTRUCTION, M, QdrantEdge
from benchmarks.texts import DIM, PROGRESS
from benchmarks.vectors import real
from indexes.base import Metric, VectorBatch, Vectors
from indexes.dense.qdrant.edge import EdgeIndex, open_index
from indexes.directory import LocalDirectory

K: Final = 10
EF_SEARCH: Final = 100
BATCH_ROWS: Final = 1_000
_WARM_UP: Final = 50
_NOTHING: Final = np.empty(0, np.int64)

Search = Callable[[Vectors], Awaitable[list[int]]]


def qdrant_part(options: argparse.Namespace) -> dict[str, Any]:
    """Loads, then searches by one caller."""
    rows, queries = real(options.rows)
    figures = asyncio.run(measure(rows, queries, options.rounds))
    _show(figures, len(rows), quiet=options.json)
    return {"rows": len(rows), "ef_search": EF_SEARCH, **figures}


async def measure(rows: Vectors, queries: Vectors, rounds: int) -> dict[str, Any]:
    """The figures for these rows and queries, both unit vectors ``(n, DIM)``."""
    with tempfile.TemporaryDirectory(prefix="ragstone-bench-") as folder:
        raw, raw_load_s = _loaded_raw(Path(folder) / "raw", rows)
        index, load_s = await _loaded(Path(folder) / "index", rows)
        raw.finish()
        started = time.perf_counter()
        await index.compact()
        build_s = time.perf_counter() - started
        wide = raw.wide(EF_SEARCH)

        async def ask_raw(query: Vectors) -> list[int]:
            return list((await wide.search(query[None]))[0])

        async def ask_index(query: Vectors) -> list[int]:
            found: list[int] = (await index.search(query[None], K)).keys[0].tolist()
            return found

        sides: dict[str, Search] = {"raw": ask_raw, "index": ask_index}
        truth = report.exact(rows, queries, K)
        recall = {name: await _recall(search, queries, truth) for name, search in sides.items()}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds):
            for name, search in sides.items():
                rates[name].append(await _rate(search, queries))
            PROGRESS.print(f"search {number + 1}/{rounds}")
        await index.close()
    pairs = zip(rates["index"], rates["raw"], strict=True)
    return {
        "rows_per_s": {"raw": round(len(rows) / raw_load_s), "index": round(len(rows) / load_s)},
        "build_s": round(build_s, 1),
        "recall@10": recall,
        "qps": {name: round(median(each), 1) for name, each in rates.items()},
        "ratio": round(median(one / other for one, other in pairs), 3),
    }


def _loaded_raw(folder: Path, rows: Vectors) -> tuple[QdrantEdge, float]:
    raw, keys = QdrantEdge.create(folder, len(rows)), np.arange(len(rows))
    started = time.perf_counter()
    for start in range(0, len(rows), BATCH_ROWS):
        raw.add(keys[start : start + BATCH_ROWS], rows[start : start + BATCH_ROWS])
    return raw, time.perf_counter() - started


async def _loaded(folder: Path, rows: Vectors) -> tuple[EdgeIndex, float]:
    options = {"m": M, "ef_construct": EF_CONSTRUCTION, "ef_search": EF_SEARCH, "graph_at": 10_000_000}
    index = await open_index(
        "qdrant_edge",
        directory=LocalDirectory(folder),
        dim=DIM,
        metric=Metric.INNER_PRODUCT,
        options=options,
    )
    keys = np.arange(len(rows))
    started = time.perf_counter()
    for seq, start in enumerate(range(0, len(rows), BATCH_ROWS), start=1):
        some = slice(start, start + BATCH_ROWS)
        await index.apply(VectorBatch(keys[some], rows[some], _NOTHING), seq=seq)
    return index, time.perf_counter() - started


async def _recall(search: Search, queries: Vectors, truth: Any) -> float:
    return report.recall(truth, {row: await search(query) for row, query in enumerate(queries)})


async def _rate(search: Search, queries: Vectors) -> float:
    for query in islice(queries, _WARM_UP):
        await search(query)
    started = time.perf_counter()
    for query in queries:
        await search(query)
    return len(queries) / (time.perf_counter() - started)


def _show(figures: dict[str, Any], rows: int, *, quiet: bool) -> None:
    columns = ("raw", "index")
    report.show(
        f"{rows:,} x {DIM} in Qdrant's embedded engine, k = {K}, ef = {EF_SEARCH}, "
        f"graph built in {figures['build_s']} s",
        ("", "raw", "index", "x raw"),
        [
            ("QPS", *(f"{figures['qps'][side]:,.0f}" for side in columns), f"{figures['ratio']:.2f}"),
            ("recall@10", *(f"{figures['recall@10'][side]:.4f}" for side in columns), ""),
            ("rows/s loaded", *(f"{figures['rows_per_s'][side]:,}" for side in columns), ""),
        ],
        quiet=quiet,
    )

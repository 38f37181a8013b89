"""Indexes on a GPU beside the same ones on the CPU, at equal recall: builds, single queries, batches."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.ann_measure import Rates, Spec, ask_all, fill, open_local, rates, ratio, recall, show
from benchmarks.ann_peers import K
from benchmarks.ann_processes import truth_in
from benchmarks.texts import DIM, PROGRESS
from benchmarks.vectors import many, read, real
from indexes.base import Keys, SearchParams, VectorIndex, Vectors
from indexes.dense.devices import HOST
from indexes.dense.faiss_gpu import open_device

BATCH: Final = 64
RECALL: Final = 0.95
TWINS: Final[Mapping[str, Sequence[Spec]]] = {
    kind: (Spec(kind, {"device": "cpu"}), Spec(kind, {"device": "cuda"}))
    for kind in ("flat", "ivf_pq", "cagra")
}
"""A kind on the CPU and on the GPU. That of ``cagra`` on the CPU is an HNSW graph with as many links."""
_EFFORTS: Final = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True, slots=True, eq=False)
class AtEffort:
    """An index that is asked with one effort."""

    index: VectorIndex
    effort: int | None

    async def search(self, queries: Vectors) -> Keys:
        """See ``Side``."""
        return (await self.index.search(queries, K, params=SearchParams(effort=self.effort))).keys


@dataclass(frozen=True, slots=True, eq=False)
class Twin:
    """One of a pair: how long it took to build, and how it reaches the recall."""

    side: AtEffort
    build_s: float
    recall: float


def gpu_part(options: argparse.Namespace) -> dict[str, Any]:
    """Flat, product codes and graphs; says so where there is no GPU, and measures nothing then."""
    if open_device("auto") is HOST:
        PROGRESS.print("There is no GPU here, or this FAISS has no support for one: nothing was measured.")
        return {"rows": 0, "sides": {}}
    return asyncio.run(_gpu(options))


async def _gpu(options: argparse.Namespace) -> dict[str, Any]:
    path = many(options.rows)
    _, queries = real(options.rows)
    truth = truth_in(path, options.rows, queries)
    figures: dict[str, Any] = {}
    for kind, specs in TWINS.items():
        async with AsyncExitStack() as stack:
            twins = {
                str(spec.options["device"]): await _built(stack, spec, path, options.rows) for spec in specs
            }
            found = {device: await _at_recall(*twin, queries, truth) for device, twin in twins.items()}
            sides = {device: twin.side for device, twin in found.items()}
            single = await rates(sides, queries, batch=1, rounds=options.rounds)
            batches = await rates(sides, queries, batch=BATCH, rounds=options.rounds)
            figures |= _figures(kind, found, single, batches)
    show(
        f"GPU and CPU, {options.rows:,} x {DIM}, k = {K}, at recall@10 {RECALL}, or the best there is",
        ("", "build s", "effort", "recall@10", "QPS", "x CPU", f"by {BATCH}", "x CPU"),
        figures,
        figures,
        _cells,
        quiet=options.json,
    )
    return {"rows": options.rows, "batch": BATCH, "sides": figures}


async def _built(stack: AsyncExitStack, spec: Spec, path: Path, rows: int) -> tuple[VectorIndex, float]:
    PROGRESS.print(f"Building {spec.kind} on {spec.options['device']}")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ragstone-bench-")))
    index = await open_local(spec, folder / "index")
    assert index is not None
    stack.push_async_callback(index.close)
    return index, await fill(index, read(path, rows))


async def _at_recall(index: VectorIndex, build_s: float, queries: Vectors, truth: Keys) -> Twin:
    """The index with the smallest effort whose recall on unseen queries is enough, else with the best one."""
    kind = index.stats().details["segments"][0]["kind"]
    tried: list[Twin] = []
    for effort in (None,) if kind == "flat" else _EFFORTS:
        side = AtEffort(index, effort)
        tried.append(Twin(side, build_s, recall(truth, await ask_all(side, queries))))
        if tried[-1].recall >= RECALL:
            return tried[-1]
    return max(tried, key=lambda twin: twin.recall)


def _figures(
    kind: str, twins: Mapping[str, Twin], single: Mapping[str, Rates], batches: Mapping[str, Rates]
) -> dict[str, Any]:
    return {
        f"{kind}, {device}": {
            "build_s": twin.build_s,
            "effort": twin.side.effort,
            "recall@10": twin.recall,
            "qps": float(np.median(single[device])),
            "ratio": ratio(single[device], single["cpu"]),
            "batch_qps": float(np.median(batches[device])),
            "batch_ratio": ratio(batches[device], batches["cpu"]),
        }
        for device, twin in twins.items()
    }


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['build_s']:,.1f}",
        str(row["effort"] or ""),
        f"{row['recall@10']:.3f}",
        f"{row['qps']:,.0f}",
        f"{row['ratio']:.2f}",
        f"{row['batch_qps']:,.0f}",
        f"{row['batch_ratio']:.2f}",
    )

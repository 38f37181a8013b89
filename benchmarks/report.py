"""How a benchmark shows its figures: a table for people, one JSON object for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.load import Summary


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, quiet: bool) -> None:
    """Print one table, numbers to the right; nothing when ``quiet``."""
    if quiet:
        return
    table = Table(title=title, title_justify="left")
    table.add_column(header[0])
    for name in header[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_json(figures: Mapping[str, Any]) -> None:
    """All figures and the machine, as JSON."""
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    print(json.dumps({**figures, "machine": machine}, indent=2))


def speed(summary: Summary) -> tuple[str, str, str]:
    """The three columns of a load: QPS, p50 and p95 in ms."""
    return f"{summary.qps:,.0f}", f"{summary.p50_ms:.2f}", f"{summary.p95_ms:.2f}"


def as_json(summary: Summary, **more: float) -> dict[str, Any]:
    """A load's figures."""
    return {
        "qps": round(summary.qps, 1),
        "p50_ms": round(summary.p50_ms, 3),
        "p95_ms": round(summary.p95_ms, 3),
        "rounds_qps": list(summary.rounds),
        **more,
    }


def recall(truth: NDArray[np.int64], found: Mapping[int, Sequence[int]]) -> float:
    """The share of the true neighbours ``(queries, k)`` that was found, over the queries asked."""
    k = truth.shape[1]
    shares = [len(set(truth[number]) & set(ids[:k])) / k for number, ids in found.items()]
    return float(np.mean(shares)) if shares else 0.0


def exact(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The true ``k`` nearest rows of each query by inner product, ``(queries, k)``."""
    rows = [
        np.argsort(-(vectors @ query), kind="stable")[:k] for query in queries
    ]  # one at a time: a block of scores would be 200 MB
    return np.asarray(rows, dtype=np.int64)

"""The local vector index beside raw FAISS HNSW, hnswlib and qdrant-edge, in process and in one run.

    python -m benchmarks.ann                                     all parts but scale and gpu
    python -m benchmarks.ann --part static filters               some
    python -m benchmarks.ann --part scale --rows 1000000 --json
    python -m benchmarks.ann --part gpu                          on a GPU and on the CPU

All sides have the same vectors, real ones of MiniLM, and the same threads: the process keeps to two
cores, of which the index takes one for its searches and leaves the other to the event loop; the peers are
told to use one thread. The index is awaited through its protocol, so its figures carry what that costs. The
queries are texts that no index has seen, and no call repeats the one before it.

Only ratios of one run mean something; absolute figures depend on the machine and its neighbours.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from retrieval.config import configure_threads

PARTS: Final = {
    "static": "benchmarks.ann_speed:static_part",
    "recall": "benchmarks.ann_speed:recall_part",
    "churn": "benchmarks.ann_changes:churn_part",
    "filters": "benchmarks.ann_changes:filters_part",
    "shards": "benchmarks.ann_speed:shards_part",
    "memory": "benchmarks.ann_processes:memory_part",
    "scale": "benchmarks.ann_processes:scale_part",
    "gpu": "benchmarks.ann_gpu:gpu_part",
}
"""A part is imported when it is first asked for: NumPy and FAISS come after ``configure_threads``."""

LARGE: Final = ("scale", "gpu")
"""Those that make vectors like the real ones, and are run only when they are asked for."""
REAL_ROWS: Final = 50_000
SCALE_ROWS: Final = 1_000_000
CORES: Final = 2


def main() -> None:
    """Run the chosen parts and show them."""
    options = _parse()
    configure_threads()
    _keep_to(CORES)
    figures: dict[str, Any] = {"cores": CORES, **{name: _part(name)(options) for name in options.part}}
    if options.json:
        from benchmarks import report

        report.print_json(figures)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part",
        nargs="+",
        choices=tuple(PARTS),
        default=[name for name in PARTS if name not in LARGE],
        metavar="PART",
        help=f"of {', '.join(PARTS)} (default: all but scale and gpu)",
    )
    parser.add_argument(
        "--rows", type=int, help=f"vectors (default: {REAL_ROWS:,}; scale's and gpu's: {SCALE_ROWS:,})"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--sides",
        nargs="+",
        default=["raw FAISS HNSW", "hnsw", "ivf_pq"],
        metavar="SIDE",
        help="of the scale part: peers, and kinds of the local index",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    large = set(options.part) <= set(LARGE)
    if (options.rows or 0) > REAL_ROWS and not large:
        parser.error(f"there are real vectors for at most {REAL_ROWS:,} rows; only scale and gpu make more")
    options.rows = options.rows or (SCALE_ROWS if large else REAL_ROWS)
    return options


def _part(name: str) -> Callable[[argparse.Namespace], Mapping[str, Any]]:
    module, function = PARTS[name].split(":")
    part: Callable[[argparse.Namespace], Mapping[str, Any]] = getattr(import_module(module), function)
    return part


def _keep_to(cores: int) -> None:
    """Let this process, and those that it starts, run on ``cores`` cores, where the system can say so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


if __name__ == "__main__":
    main()

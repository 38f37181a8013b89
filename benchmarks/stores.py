"""Indexes in stores of their own beside the stores' own clients, on one machine and in one run.

    python -m benchmarks.stores --part pgvector
    python -m benchmarks.stores --part pgvector --rows 20000 --rounds 5 --json

The vectors are real ones of MiniLM, and the queries texts that no index has seen. Both sides ask the same
store; the index is awaited through its protocol. Only ratios of one run mean something.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from retrieval.config import configure_threads

PARTS: Final = {
    "pgvector": "benchmarks.stores_pgvector:pgvector_part",
    "qdrant_edge": "benchmarks.stores_qdrant:qdrant_part",
}
"""A part is imported when it is asked for: its store's client may not be installed."""


def main() -> None:
    """Run the chosen parts and show them."""
    options = _parse()
    configure_threads()
    figures: dict[str, Any] = {name: _part(name)(options) for name in options.part}
    if options.json:
        from benchmarks import report

        report.print_json(figures)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=tuple(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--rows", type=int, default=20_000, help="vectors (default: 20,000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def _part(name: str) -> Callable[[argparse.Namespace], Mapping[str, Any]]:
    module, function = PARTS[name].split(":")
    part: Callable[[argparse.Namespace], Mapping[str, Any]] = getattr(import_module(module), function)
    return part


if __name__ == "__main__":
    main()

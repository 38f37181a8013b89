"""The embedder's back ends beside raw Sentence Transformers in the same run, and what they cost in quality.

    python -m benchmarks.embed
    python -m benchmarks.embed --part quality --collections scifact squad-dev xquad:de
    python -m benchmarks.embed --part speed --rounds 5 --backends default onnx --json
    python -m benchmarks.embed --part speed --infinity VENV/bin/python    # that has infinity-emb[torch]
    python -m benchmarks.embed --part overload

All sides get the same texts and the same cores. Passages: one call; raw ``encode`` sorts by length and takes
its best batch size and number of threads. Queries: ``clients`` callers that each ask for one text at a time,
beside one raw ``encode`` of all; and one caller, beside raw ``encode`` of one text. Then one caller again:
beside a thread of the same process that computes in Python, and while passages without end are embedded.
Quality is exact dense search over whole documents, nDCG@10. Overload: queries of three sentences at four
times the capacity, each with a deadline.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

from benchmarks import report
from benchmarks.embed_backends import BACKENDS
from benchmarks.embed_overload import overload
from benchmarks.embed_quality import quality
from benchmarks.embed_speed import speed

PARTS: Final = {"speed": speed, "quality": quality, "overload": overload}
COLLECTIONS: Final = ("scifact", "squad-dev", "covidqa-long", "xquad:en", "xquad:de", "xquad:ru")


def main() -> None:
    """Run the chosen parts and show them."""
    options = _parse()
    figures: dict[str, Any] = {name: PARTS[name](options) for name in options.part}
    if options.json:
        report.print_json(figures)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passages", type=int, default=300, help="passages in a round")
    parser.add_argument("--queries", type=int, default=960, help="queries in a round")
    parser.add_argument("--clients", type=int, default=32, help="callers at a time")
    parser.add_argument("--infinity", metavar="PYTHON", help="an interpreter that has infinity-emb[torch]")
    parser.add_argument("--collections", nargs="+", default=list(COLLECTIONS), metavar="NAME")
    parser.add_argument("--times", type=float, default=4.0, help="the overload, in capacities")
    parser.add_argument("--overload-s", type=float, default=60.0, help="how long it lasts")
    parser.add_argument("--deadline", type=float, default=2.0, help="of its queries, seconds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()

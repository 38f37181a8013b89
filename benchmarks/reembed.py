"""Re-embedding jobs beside the raw model on the same texts, and several workers beside one, in the same run.

    python -m benchmarks.reembed
    python -m benchmarks.reembed --cases two-workers,ray --rounds 5 --json

A real server lends the texts; ``ragstone reembed`` fills a version's vectors as a user would run it. Each run
is of a new space (the same model, cut at another length that no text reaches), so that nothing is stored
already. A job's rate is without its start: less the seconds of the same command for a collection of one text.
One worker is compared with one call of ``SentenceTransformer.encode``, which sorts by length, at its better
batch size and with as many threads; two workers are compared with one. Rounds alternate, and the ratios are
medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.ingest import encode_rate, passages
from benchmarks.texts import PROGRESS
from ragstone import Client, Document, Recipe
from retrieval.cli.server_process import ServerProcess

MANY, ONE = "many", "one"
SERVING = Recipe(embedder={"kind": "hashing"}, index={"kind": "flat"})
FIRST_CUT = 256
"""Tokens; the texts have at most 120."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to run a job."""

    told: str
    options: tuple[str, ...] = ()
    cores: int
    """That the job may use; the server may use all."""
    beside: str
    """What stands beside it: the raw model on as many threads, or another case."""


@dataclass(slots=True)
class Measured:
    """Of a case, a value a round."""

    starts_s: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    """The rates of what it is compared with."""

    @property
    def ratio(self) -> float:
        """To what stands beside it."""
        return median(ours / theirs for ours, theirs in zip(self.rates, self.beside, strict=True))


CORES = len(os.sched_getaffinity(0))
RAW, ALONE = "raw encode", "one-worker"
CASES = {
    "one-core": Case(told="one worker, one core", cores=1, beside=RAW),
    ALONE: Case(told="one worker", cores=CORES, beside=RAW),
    "two-workers": Case(told="two workers", options=("--workers", "2"), cores=CORES, beside=ALONE),
    "ray": Case(
        told="Ray, two workers", options=("--ray", "local", "--workers", "2"), cores=CORES, beside=ALONE
    ),
}


def main() -> None:
    """Run the chosen cases and show them."""
    options = _parse()
    from benchmarks.models import minilm

    model = minilm()
    stream = passages(model.tokenizer)
    texts = [next(stream) for _ in range(options.texts)]
    measured = {name: Measured() for name in options.cases}
    with _stored(texts) as bench:
        bench.job(MANY, CASES[ALONE])  # cuts the documents, warms the disk's cache
        for number in range(options.rounds):
            alone = Measured()
            if any(CASES[name].beside == ALONE for name in options.cases):
                _measure(bench, CASES[ALONE], alone)
            for name, into in measured.items():
                case = CASES[name]
                _measure(bench, case, into)
                into.beside.append(
                    encode_rate(model, texts, case.cores) if case.beside == RAW else alone.rates[0]
                )
                PROGRESS.print(
                    f"round {number + 1}/{options.rounds}  {case.told}: {into.rates[-1]:,.0f} texts/s, "
                    f"{case.beside}: {into.beside[-1]:,.0f}"
                )
    _show(options, measured)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=_names, default=tuple(CASES), help=f"some of {','.join(CASES)}")
    parser.add_argument("--texts", type=int, default=1_500, help="texts of a job")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - CASES.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(CASES)}")
    return names


class _Bench:
    """A server with the texts, and the jobs for it."""

    def __init__(self, address: str, client: Client) -> None:
        self._address = address
        self._client = client
        self._cuts = count(FIRST_CUT)

    def job(self, collection: str, case: Case) -> dict[str, Any]:
        """Run a job in a space that is new; its summary."""
        recipe = Recipe(embedder={"kind": "sentence_transformer", "max_tokens": next(self._cuts)})
        version = self._client.create_version(collection, recipe, paused=True).name
        command = [
            sys.executable,
            "-m",
            "retrieval.cli.app",
            "--server",
            self._address,
            "reembed",
            collection,
        ]
        with _on_cores(case.cores):
            done = subprocess.run(
                [*command, version, *case.options, "--json"], stdout=subprocess.PIPE, check=True
            )
        summary: dict[str, Any] = json.loads(done.stdout)
        if summary["missing"]:
            raise SystemExit(f"the job left {summary['missing']} texts: {summary}")
        self._client.delete_version(collection, version)
        return summary


def _measure(bench: _Bench, case: Case, into: Measured) -> None:
    start_s = bench.job(ONE, case)["seconds"]
    job = bench.job(MANY, case)
    into.starts_s.append(start_s)
    into.seconds.append(job["seconds"])
    into.rates.append(job["texts"] / (job["seconds"] - start_s))


@contextmanager
def _stored(texts: Sequence[str]) -> Iterator[_Bench]:
    with (
        tempfile.TemporaryDirectory(prefix="ragstone-bench-") as folder,
        ServerProcess(Path(folder)) as server,
        Client(server.address, timeout=120.0) as client,
    ):
        for collection, some in ((MANY, texts), (ONE, texts[:1])):
            client.create_collection(collection, recipe=SERVING)
            client.import_documents(
                collection, (Document(id=str(number), text=text) for number, text in enumerate(some))
            )
        yield _Bench(server.address, client)


@contextmanager
def _on_cores(number: int) -> Iterator[None]:
    """Processes that are started inside may use so many cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _show(options: argparse.Namespace, measured: dict[str, Measured]) -> None:
    report.show(
        f"Re-embedding of {options.texts:,} texts, medians of {options.rounds} rounds",
        ("", "cores", "start s", "texts/s", "beside", "texts/s", "is"),
        [
            (
                CASES[name].told,
                str(CASES[name].cores),
                f"{median(one.starts_s):.1f}",
                f"{median(one.rates):,.0f}",
                CASES[name].beside,
                f"{median(one.beside):,.0f}",
                f"{one.ratio:.2f} x",
            )
            for name, one in measured.items()
        ],
        quiet=options.json,
    )
    if options.json:
        cases = {
            name: {**asdict(CASES[name]), **asdict(one), "ratio": one.ratio} for name, one in measured.items()
        }
        report.print_json({"texts": options.texts, "cases": cases})


if __name__ == "__main__":
    main()

"""Several servers over one PostgreSQL catalog: what a second one adds, and what a lost database costs.

    python -m benchmarks.servers                    both parts
    python -m benchmarks.servers --part read        text searches on one server, and on two, a core each
    python -m benchmarks.servers --part outage      PostgreSQL killed and started, again and again

On a machine with two cores the load and PostgreSQL run on the servers' cores as well.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks import report
from benchmarks.databases import postgres
from benchmarks.load import Load, alternate
from benchmarks.targets import Ragstone
from benchmarks.texts import POOL, PROGRESS, sentences
from ragstone import Client, Document, Recipe
from ragstone.errors import RagstoneError
from retrieval.cli.server_process import ServerProcess

COLLECTION = "bench"
WRITERS = 2
"""Of each server."""


def main() -> None:
    """Run the chosen parts and show them."""
    options = _parse()
    # Queries come round again; each is to be embedded.
    os.environ["RAGSTONE_LIMITS__QUERY_VECTORS"] = "0"
    figures: dict[str, Any] = {}
    if options.part in ("read", "all"):
        figures["read"] = _read_part(options)
    if options.part in ("outage", "all"):
        figures["outage"] = _outage_part(options)
    if options.json:
        report.print_json(figures)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("read", "outage", "all"), default="all")
    parser.add_argument("--rows", type=int, default=2_000, help="texts to search in")
    parser.add_argument("--clients", type=int, default=16, help="concurrent searches")
    parser.add_argument("--rounds", type=int, default=5, help="of each number of servers")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one round")
    parser.add_argument("--kills", type=int, default=20, help="of PostgreSQL")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


# -- reading --------------------------------------------------------------------------------


def _read_part(options: argparse.Namespace) -> dict[str, Any]:
    texts = sentences(POOL)
    rows, asked = texts[: options.rows], texts[options.rows : options.rows + 2_000]
    with postgres() as database, _servers(database.url, 2) as (first, second):
        PROGRESS.print(f"Loading {len(rows):,} texts")
        with Client(first) as client:
            client.create_collection(COLLECTION)
            documents = (Document(id=str(number), text=text) for number, text in enumerate(rows))
            client.import_documents(COLLECTION, documents, wait="indexed")
        _wait_until_read(second, first)
        both = f"{first},{second}"
        targets = {
            "one server": Ragstone(first, COLLECTION, "hybrid", texts=asked),
            "two servers": Ragstone(both, COLLECTION, "hybrid", texts=asked),
        }
        load = Load(concurrency=options.clients, seconds=options.seconds, distinct=len(asked))
        results = alternate(targets, load, rounds=options.rounds)
    one, two = (results[name][0] for name in targets)
    report.show(
        f"Hybrid text search, {options.rows:,} texts, {options.clients} clients, a core for each server",
        ("", "QPS", "p50 ms", "p95 ms", "of one"),
        [
            ("one server", *report.speed(one), ""),
            ("two servers", *report.speed(two), f"{two.qps / one.qps:.2f} x"),
        ],
        quiet=options.json,
    )
    return {"one": report.as_json(one), "two": report.as_json(two), "ratio": two.qps / one.qps}


def _wait_until_read(follower: str, leader: str) -> None:
    """Until the follower has what the leader has acknowledged."""
    with Client(leader) as client:
        seq = client.get_collection(COLLECTION).seq
    with Client(follower, timeout=600.0) as client:
        while COLLECTION not in [collection.name for collection in client.list_collections()]:
            time.sleep(0.1)
        client.search(COLLECTION, "any", min_seq=seq)


# -- an outage ------------------------------------------------------------------------------


class _Writer(threading.Thread):
    """Writes through one server, and repeats what fails until it is acknowledged."""

    def __init__(self, address: str, number: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged = 0
        self.texts: dict[str, str] = {}
        self._address = address
        self._number = number
        self._ending = threading.Event()

    def run(self) -> None:
        with Client(self._address, timeout=10.0) as client:
            while not self._ending.is_set():
                key, request = f"{self._number}-{self.acknowledged % 50}", uuid4().hex
                text = f"entry {key} revision {self.acknowledged}"
                while not self._written(client, Document(id=key, text=text), request):
                    time.sleep(0.02)
                self.texts[key] = text
                self.acknowledged += 1

    def end(self) -> None:
        """Let it end what it has begun."""
        self._ending.set()
        self.join()

    @staticmethod
    def _written(client: Client, document: Document, request: str) -> bool:
        try:
            client.upsert(COLLECTION, [document], request_id=request)
        except RagstoneError:
            return False
        return True


def _outage_part(options: argparse.Namespace) -> dict[str, Any]:
    recipe = Recipe(embedder={"kind": "hashing", "dim": 64}, index={"kind": "flat"})
    with postgres() as database, _servers(database.url, 2) as addresses:
        with Client(addresses[0]) as client:
            client.create_collection(COLLECTION, recipe=recipe)
        _wait_until_read(addresses[1], addresses[0])
        writers = [_Writer(address, 2 * n + i) for n, address in enumerate(addresses) for i in range(WRITERS)]
        for writer in writers:
            writer.start()
        backs: list[float] = []
        for number in range(options.kills):
            time.sleep(0.5)
            database.kill()
            database.start()
            backs.append(_seconds_until_all_write(writers))
            PROGRESS.print(f"kill {number + 1}/{options.kills}: all write again after {backs[-1]:.2f} s")
        for writer in writers:
            writer.end()
        expected = {key: text for writer in writers for key, text in writer.texts.items()}
        wrong = sum(_differences(address, expected) for address in addresses)
    writes, slowest = sum(writer.acknowledged for writer in writers), max(backs)
    report.show(
        f"PostgreSQL killed {options.kills} times under {len(writers)} writers of two servers",
        ("", ""),
        [
            ("writes acknowledged", f"{writes:,}"),
            ("documents lost, revived or twice", str(wrong)),
            ("all write again, median s after it answers", f"{sorted(backs)[len(backs) // 2]:.2f}"),
            ("slowest", f"{slowest:.2f}"),
        ],
        quiet=options.json,
    )
    return {"kills": options.kills, "writes": writes, "wrong": wrong, "back_s": [round(b, 2) for b in backs]}


def _seconds_until_all_write(writers: Sequence[_Writer]) -> float:
    start, before = time.monotonic(), [writer.acknowledged for writer in writers]
    while any(writer.acknowledged <= count for writer, count in zip(writers, before, strict=True)):
        time.sleep(0.01)
    return time.monotonic() - start


def _differences(address: str, expected: dict[str, str]) -> int:
    """Documents that a server lists, or finds by either leg, other than expected."""
    wanted = sorted(expected.items())
    with Client(address) as client:
        listed = sorted((document.id, document.text) for document in client.list_documents(COLLECTION))
        seq, wrong = client.get_collection(COLLECTION).seq, len(set(listed) ^ set(wanted))
        for mode in ("dense", "lexical"):
            hits = client.search(COLLECTION, "entry", k=1000, depth=1000, mode=mode, min_seq=seq).hits
            found = sorted((hit.document_id, hit.text) for hit in hits)
            wrong += len(set(found) ^ set(wanted)) + len(found) - len(set(found))
    return wrong


# -- processes ------------------------------------------------------------------------------


@contextmanager
def _servers(url: str, count: int) -> Iterator[list[str]]:
    """The addresses of so many servers over one catalog, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as running:
        root = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="ragstone-bench-")))
        config = root / "ragstone.toml"
        config.write_text(f'database_url = "{url}"\n')
        addresses = []
        for number in range(count):
            data = root / str(number)
            data.mkdir()
            # A process keeps the cores of the one that starts it.
            os.sched_setaffinity(0, {cores[number % len(cores)]})
            try:
                server = running.enter_context(ServerProcess(data, config=config))
            finally:
                os.sched_setaffinity(0, cores)
            addresses.append(server.address)
        yield addresses


if __name__ == "__main__":
    main()

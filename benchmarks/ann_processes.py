"""What an index costs a process: memory, disk, the way to its first answer.

Each build and each restart has a process of its own. Its memory is read from ``/proc``, so these parts run
on Linux alone; its vectors come from a file, block by block: nothing but the index holds them.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Generic, ParamSpec, TypeVar

import faiss
import numpy as np

from benchmarks.ann_measure import (
    Local,
    Spec,
    ask_all,
    create_peer,
    disk_bytes,
    fill,
    fill_peer,
    open_local,
    recall,
    show,
)
from benchmarks.ann_peers import PEERS, K, Side
from benchmarks.texts import DIM, PROGRESS
from benchmarks.vectors import many, read, real
from indexes.base import Keys, Vectors

_P = ParamSpec("_P")
_T = TypeVar("_T")

SEARCHES: Final = 500
FIRST_SIZE: Final = 100_000
LOCALS: Final[Mapping[str, Spec]] = {
    "flat": Spec("flat"),
    "hnsw": Spec("hnsw"),
    **{f"hnsw, {s}": Spec("hnsw", {"storage": s}) for s in ("float32", "fp16", "sq8")},
    "ivf_flat": Spec("ivf_flat"),
    "ivf_pq": Spec("ivf_pq"),
    "auto": Spec("auto"),
}
MEMORY: Final = (*PEERS, "flat", "hnsw, float32", "hnsw, fp16", "hnsw, sq8", "ivf_pq")
_POLL_S: Final = 0.02


# -- the parts ------------------------------------------------------------------------------


def memory_part(options: argparse.Namespace) -> dict[str, Any]:
    """What a process that only serves keeps in memory of its own."""
    figures = _measure_all(MEMORY, options.rows)
    show(
        f"Memory after opening and {SEARCHES} searches, {options.rows:,} x {DIM} "
        f"({options.rows * DIM * 4 / 1e6:,.0f} MB of vectors)",
        ("", "RssAnon MB", "above bare", "x vectors", "RssFile MB", "recall@10"),
        MEMORY,
        figures,
        _memory_cells,
        quiet=options.json,
    )
    return {"rows": options.rows, "searches": SEARCHES, "sides": figures}


def _memory_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['serving_anon_mb']:,.0f}",
        f"{row['serving_anon_mb'] - row['bare_anon_mb']:,.0f}",
        f"{row['serving_anon_x']:.2f}",
        f"{row['serving_file_mb']:,.0f}",
        f"{row['recall@10']:.3f}",
    )


def scale_part(options: argparse.Namespace) -> dict[str, Any]:
    """Build, memory of the build, and restart, at two sizes."""
    known = [*PEERS, *LOCALS]
    if unknown := set(options.sides) - set(known):
        raise SystemExit(f"unknown sides: {', '.join(sorted(unknown))}; known: {'; '.join(known)}")
    figures: dict[str, Any] = {}
    for rows in sorted({min(FIRST_SIZE, options.rows), options.rows}):
        figures[str(rows)] = found = _measure_all(options.sides, rows)
        size = f"{rows:,} x {DIM}; multiples of the vectors' {rows * DIM * 4 / 1e6:,.0f} MB"
        show(
            f"Build, {size}",
            ("", "s", "rows/s", "peak RSS", "peak RssAnon", "disk"),
            options.sides,
            found,
            _build_cells,
            quiet=options.json,
        )
        show(
            f"Restart, {size}",
            ("", "first answer s", "as before", "RssAnon", "recall@10", "QPS"),
            options.sides,
            found,
            _restart_cells,
            quiet=options.json,
        )
    return figures


def _build_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['build_s']:,.1f}",
        f"{row['rows'] / row['build_s']:,.0f}",
        *(f"{row[key]:.2f} x" for key in ("build_peak_rss_x", "build_peak_anon_x", "disk_x")),
    )


def _restart_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['restart_s']:.2f}",
        "yes" if row["same_answer"] else "no",
        f"{row['serving_anon_x']:.2f} x",
        f"{row['recall@10']:.3f}",
        f"{row['qps']:,.0f}",
    )


def _measure_all(names: Sequence[str], rows: int) -> dict[str, dict[str, Any]]:
    path = many(rows)
    _, queries = real(0)
    queries = np.ascontiguousarray(queries[:SEARCHES])
    truth = truth_in(path, rows, queries)
    measured = {name: _measure(name, path, rows, queries, truth) for name in names}
    return {name: figures for name, figures in measured.items() if figures is not None}


def _measure(name: str, path: Path, rows: int, queries: Vectors, truth: Keys) -> dict[str, Any] | None:
    PROGRESS.print(f"Building {name}, {rows:,} rows")
    with tempfile.TemporaryDirectory(prefix="ragstone-bench-") as folder:
        target = Path(folder) / "index"
        built = in_process(_build, name, target, path, rows, queries[:1])
        if built.answer is None:
            return None
        disk = disk_bytes(target)
        served = in_process(_serve, name, target, queries)
    if served.answer is None:
        return None
    vectors = rows * DIM * 4
    return {
        "rows": rows,
        "build_s": built.answer.seconds,
        "build_peak_rss_x": (built.after.peak_rss - built.bare.rss) / vectors,
        "build_peak_anon_x": (built.peak_anon - built.bare.anon) / vectors,
        "disk_x": disk / vectors,
        "bare_anon_mb": served.bare.anon / 1e6,
        "serving_anon_mb": served.answer.memory.anon / 1e6,
        "serving_file_mb": served.answer.memory.file / 1e6,
        "serving_anon_x": (served.answer.memory.anon - served.bare.anon) / vectors,
        "restart_s": served.answer.restart_s,
        "same_answer": built.answer.found == served.answer.found[0],
        "recall@10": recall(truth, served.answer.found),
        "qps": len(queries) / served.answer.seconds,
    }


def truth_in(path: Path, rows: int, queries: Vectors) -> Keys:
    """The true ``K`` of each query among the first ``rows`` of a file, ``(queries, K)``."""
    faiss.omp_set_num_threads(1)
    scores = np.empty((len(queries), 0), dtype=np.float32)
    keys = np.empty((len(queries), 0), dtype=np.int64)
    for first, block in read(path, rows):
        near = faiss.knn(queries, block, min(K, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, keys = np.hstack([scores, near[0]]), np.hstack([keys, near[1] + first])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        scores, keys = np.take_along_axis(scores, order, axis=1), np.take_along_axis(keys, order, axis=1)
    return keys


# -- in a process of its own ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Built:
    """Seconds that a build took, and the rows it found for one query before it was closed."""

    seconds: float
    found: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class _Served:
    """``restart_s`` until the first answer, ``seconds`` for all, and the memory after them."""

    restart_s: float
    seconds: float
    found: list[list[int]]
    memory: Memory


def _build(name: str, folder: Path, path: Path, rows: int, query: Vectors) -> _Built | None:
    return asyncio.run(_build_side(name, folder, path, rows, query))


async def _build_side(name: str, folder: Path, path: Path, rows: int, query: Vectors) -> _Built | None:
    side: Side
    if name in PEERS:
        if (peer := create_peer(PEERS[name], folder, rows)) is None:
            return None
        side, seconds = peer, fill_peer(peer, read(path, rows))
        return _Built(seconds, await _first(side, query))
    if (index := await open_local(LOCALS[name], folder)) is None:
        return None
    seconds = await fill(index, read(path, rows))
    found = await _first(Local(index), query)
    await index.close()
    return _Built(seconds, found)


def _serve(name: str, folder: Path, queries: Vectors) -> _Served | None:
    return asyncio.run(_serve_side(name, folder, queries))


async def _serve_side(name: str, folder: Path, queries: Vectors) -> _Served | None:
    started = time.perf_counter()
    index = None if name in PEERS else await open_local(LOCALS[name], folder)
    side = PEERS[name].load(folder) if index is None else Local(index)
    await _first(side, queries[:1])
    restarted = time.perf_counter()
    found = [[int(key) for key in row] for row in await ask_all(side, queries)]
    seconds = time.perf_counter() - restarted
    served = _Served(restarted - started, seconds, found, Memory.of("self"))
    if index is not None:
        await index.close()
    return served


async def _first(side: Side, query: Vectors) -> list[int]:
    return [int(key) for key in (await side.search(query))[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A process's memory in bytes: resident now, of it anonymous and mapped from files, and the most ever."""

    rss: int
    anon: int
    file: int
    peak_rss: int

    @classmethod
    def of(cls, process: int | str) -> Memory:
        """Read ``/proc``. ``process`` is an id, or "self"."""
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        values = {key: value for key, _, value in (line.partition(":") for line in lines)}
        rss, anon, file, peak = (
            1024 * int(values[key].split()[0]) for key in ("VmRSS", "RssAnon", "RssFile", "VmHWM")
        )
        return cls(rss=rss, anon=anon, file=file, peak_rss=peak)


@dataclass(frozen=True, slots=True, eq=False)
class Ran(Generic[_T]):
    """What a process answered; its memory before and after, and the most anonymous memory between."""

    answer: _T
    bare: Memory
    after: Memory
    peak_anon: int


def in_process(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Ran[_T]:
    """Run ``work`` in a fresh process, and watch its memory from here."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, work, args, kwargs), daemon=True)
    process.start()
    theirs.close()
    assert process.pid is not None
    try:
        bare: Memory = ours.recv()
        peak = bare.anon
        while not ours.poll(_POLL_S):
            peak = max(peak, Memory.of(process.pid).anon)
        answer, after = ours.recv()
    except EOFError:
        raise SystemExit("the process that was measured died; what it said stands above") from None
    finally:
        process.join()
    return Ran(answer, bare, after, peak)


def _answer(pipe: Connection, work: Callable[..., Any], args: Any, kwargs: Any) -> None:
    # A bare process has its code in memory already: what counts is what an index adds.
    import indexes.dense.opening  # noqa: F401

    pipe.send(Memory.of("self"))
    answer = work(*args, **kwargs)
    pipe.send((answer, Memory.of("self")))

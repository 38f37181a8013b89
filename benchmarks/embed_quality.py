"""What a back end's vectors are worth: exact dense search over whole documents, nDCG@10."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping

import numpy as np

from benchmarks import judged, report
from benchmarks.embed_backends import PLAIN, open_backend
from benchmarks.judged import Judged
from benchmarks.texts import PROGRESS


def quality(options: argparse.Namespace) -> Mapping[str, Mapping[str, float]]:
    """nDCG@10 by collection and back end, and the table with the differences from float32."""
    return asyncio.run(_quality(options))


async def _quality(options: argparse.Namespace) -> Mapping[str, Mapping[str, float]]:
    others = [name for name in options.backends if name != PLAIN]
    found: dict[str, Mapping[str, float]] = {}
    for name in options.collections:
        PROGRESS.print(f"embedding {name}")
        collection = judged.load(name)
        found[name] = {backend: await _ndcg(collection, backend) for backend in (PLAIN, *others)}
    report.show(
        "nDCG@10 of exact dense search, whole documents; differences from float32",
        ("", PLAIN, *others),
        [_row(name, of, others) for name, of in found.items()],
        quiet=options.json,
    )
    return found


def _row(name: str, of: Mapping[str, float], others: list[str]) -> tuple[str, ...]:
    plain = of[PLAIN]
    return (name, f"{plain:.4f}", *(f"{of[other]:.4f} ({of[other] - plain:+.4f})" for other in others))


async def _ndcg(collection: Judged, backend: str) -> float:
    embedder = await open_backend(backend)
    try:
        passages = await embedder.embed_passages(collection.passages)
        # In parts: a queue of queries is bounded.
        asked = list(collection.queries.values())
        queries = np.concatenate(
            [await embedder.embed_queries(asked[start : start + 256]) for start in range(0, len(asked), 256)]
        )
    finally:
        await embedder.close()
    _, ndcg = judged.judge(collection, judged.nearest(queries, passages))
    return ndcg

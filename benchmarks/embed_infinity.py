"""Infinity's engine over the benchmark's texts, one round of figures as JSON on stdout.

Run by ``benchmarks.embed`` with an interpreter that has ``infinity-emb[torch]``, which does not install
beside Ragstone. Its request is JSON on stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from infinity_emb import AsyncEmbeddingEngine, EngineArgs

from benchmarks.asking import ask, ask_for, busy_python, per_s, per_s_of_clients


async def _round(request: Mapping[str, Any]) -> dict[str, float]:
    torch.set_num_threads(request["threads"])
    engine = AsyncEmbeddingEngine.from_args(
        EngineArgs(
            model_name_or_path=request["model"],
            engine="torch",
            device="cpu",
            dtype="float32",
            bettertransformer=False,
            model_warmup=False,
            batch_size=32,
        )
    )
    passages, queries = request["passages"], request["queries"]

    async def embed(texts: list[str]) -> None:
        await engine.embed(sentences=texts)

    async with engine:
        await embed(queries[:32])
        figures = {
            "passages/s": await per_s(embed, passages),
            "queries/s": await per_s_of_clients(embed, queries, request["clients"]),
            "one, p50 ms": median(await ask(embed, queries[:200])),
        }
        with busy_python():
            beside = sorted(await ask_for(embed, queries, request["beside_s"]))
    return {**figures, "beside p50 ms": median(beside), "beside p99 ms": beside[int(len(beside) * 0.99)]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_round(json.load(sys.stdin)))))

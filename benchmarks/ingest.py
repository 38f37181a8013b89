"""Ingest through the service, until searches see everything, beside the raw model in the same run.

    python -m benchmarks.ingest
    python -m benchmarks.ingest --part vector --rows 50000 --json

The text part gives each side the same passages of one to five sentences, new ones each round: the
service embeds identical text only once. The raw side is one call of ``SentenceTransformer.encode``,
which sorts by length, at its best batch size.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.texts import DIM, POOL, PROGRESS, embeddings, sentences
from ragstone import Client, Document, Recipe
from retrieval.cli.server_process import ServerProcess

COLLECTION = "bench"
SENTENCES = (1, 5)
MAX_TOKENS = 120
"""Of a passage: few enough to stay one chunk under the default recipe."""


def main() -> None:
    """Run the chosen parts and show them."""
    options = _parse()
    figures: dict[str, Any] = {}
    if options.part in ("text", "all"):
        figures["text"] = _text_part(options)
    if options.part in ("vector", "all"):
        figures["vector"] = _vector_part(options)
    if options.json:
        report.print_json(figures)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("text", "vector", "all"), default="all")
    parser.add_argument("--passages", type=int, default=1_000, help="passages in a round of the text part")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the text part")
    parser.add_argument("--rows", type=int, default=50_000, help="vectors in the vector part")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


# -- text -----------------------------------------------------------------------------------


def _text_part(options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.models import minilm

    model = minilm()
    ours: list[float] = []
    raw: dict[int, list[float]] = {1: [], os.cpu_count() or 1: []}
    stream = passages(model.tokenizer)
    with _server() as address, Client(address) as client:
        client.create_collection(COLLECTION)
        _import(client, [next(stream) for _ in range(options.passages // 4)], first=-options.passages)
        for number in range(options.rounds):
            texts = [next(stream) for _ in range(options.passages)]
            ours.append(_import(client, texts, first=number * options.passages))
            for threads, rates in raw.items():
                rates.append(encode_rate(model, texts, threads))
            PROGRESS.print(
                f"round {number + 1}/{options.rounds}  ragstone: {ours[-1]:,.0f} chunks/s, raw encode: "
                + ", ".join(f"{rates[-1]:,.0f}" for rates in raw.values())
            )
    return _text_figures(options, median(ours), {threads: median(rates) for threads, rates in raw.items()})


def passages(tokenizer: Any) -> Iterator[str]:
    """Passages without end, each of one chunk, each different from every other."""
    chance = random.Random(11)
    pool = sentences(POOL)
    while True:
        passage = " ".join(chance.sample(pool, chance.randint(*SENTENCES)))
        if len(tokenizer(passage)["input_ids"]) <= MAX_TOKENS:
            yield passage


def _import(client: Client, texts: Sequence[str], *, first: int) -> float:
    """Chunks a second, from the first byte sent until a search sees the last chunk."""
    documents = (Document(id=str(first + number), text=text) for number, text in enumerate(texts))
    started = time.perf_counter()
    result = client.import_documents(COLLECTION, documents, wait="indexed")
    seconds = time.perf_counter() - started
    if result.chunks != len(texts):
        raise SystemExit(f"{len(texts)} passages became {result.chunks} chunks: the sides differ")
    return len(texts) / seconds


def encode_rate(model: Any, texts: Sequence[str], threads: int) -> float:
    """Texts a second through ``encode``, which sorts by length, on so many threads; the better batch size."""
    import torch

    torch.set_num_threads(threads)
    rates = []
    for batch_size in (32, 64):
        started = time.perf_counter()
        model.encode(list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
        rates.append(len(texts) / (time.perf_counter() - started))
    return max(rates)


def _text_figures(options: argparse.Namespace, ours: float, raw: dict[int, float]) -> dict[str, Any]:
    report.show(
        f"Ingest of text, {options.passages:,} passages a round",
        ("", "chunks/s", "Ragstone is"),
        [
            ("ragstone, until searchable", f"{ours:,.0f}", ""),
            *(
                (f"raw encode, {threads} thread(s)", f"{rate:,.0f}", f"{ours / rate:.2f} x")
                for threads, rate in raw.items()
            ),
        ],
        quiet=options.json,
    )
    return {
        "passages": options.passages,
        "chunks_per_s": ours,
        "raw_encode_per_s": raw,
        "ratios": {threads: ours / rate for threads, rate in raw.items()},
    }


# -- vectors that the client brings ---------------------------------------------------------


def _vector_part(options: argparse.Namespace) -> dict[str, Any]:
    texts = sentences(options.rows)
    vectors = embeddings(sentences(POOL))[: options.rows]
    recipe = Recipe(embedder={"kind": "precomputed", "space": "bench", "dim": DIM}, index={"kind": "hnsw"})
    documents = [
        Document(id=str(number), text=text, vector=vector)
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    with _server() as address, Client(address) as client:
        client.create_collection(COLLECTION, recipe=recipe)
        started = time.perf_counter()
        client.import_documents(COLLECTION, documents, wait="indexed")
        searchable = time.perf_counter() - started
        client.compact(COLLECTION, timeout=600.0)
        compacted = time.perf_counter() - started
    report.show(
        f"Ingest of {len(documents):,} x {DIM} vectors with their texts",
        ("until", "s", "chunks/s"),
        [
            (name, f"{seconds:,.1f}", f"{len(documents) / seconds:,.0f}")
            for name, seconds in (("searchable", searchable), ("compacted into a graph", compacted))
        ],
        quiet=options.json,
    )
    return {
        "rows": len(documents),
        "searchable_s": searchable,
        "compacted_s": compacted,
        "chunks_per_s": len(documents) / searchable,
    }


@contextmanager
def _server() -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="ragstone-bench-") as folder,
        ServerProcess(Path(folder)) as server,
    ):
        yield server.address


if __name__ == "__main__":
    main()

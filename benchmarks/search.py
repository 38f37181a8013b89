"""Search through the service, beside its peers and the raw libraries under it, in the same run.

    python -m benchmarks.search                      both parts
    python -m benchmarks.search --part vector        vectors alone: pgvector and a bare gRPC echo as peers
    python -m benchmarks.search --part text --json   hybrid text: the raw model, FAISS and tantivy

Only ratios of one run mean something; absolute figures depend on the machine and its neighbours.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import peers, report
from benchmarks.load import Load, Outcome, Summary, alternate, drive, summarise
from benchmarks.targets import Echo, Pgvector, Ragstone
from benchmarks.texts import DIM, POOL, PROGRESS, embeddings, sentences
from ragstone import Client, Document, Recipe
from retrieval.cli.server_process import ServerProcess

QUERIES = 1_000
K = 10
EF_SEARCH = 64
RESPONSE_BYTES = 4_096
TEXT_CALLS = 100
TEXT_BURST = 640
COLLECTION = "bench"


def main() -> None:
    """Run the chosen parts and show them."""
    options = _parse()
    # Queries come round again; each is to be embedded.
    os.environ["RAGSTONE_LIMITS__QUERY_VECTORS"] = "0"
    figures: dict[str, Any] = {}
    if options.part in ("vector", "all"):
        figures["vector"] = _vector_part(options)
    if options.part in ("text", "all"):
        figures["text"] = _text_part(options)
    if options.json:
        report.print_json(figures)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("vector", "text", "all"), default="all")
    parser.add_argument("--rows", type=int, default=POOL - QUERIES, help="vectors in the vector part")
    parser.add_argument("--text-rows", type=int, default=5_000, help="texts in the hybrid part")
    parser.add_argument("--clients", type=int, default=8, help="concurrent calls in the vector part")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round of one peer")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    if options.rows > POOL - QUERIES:
        parser.error(f"there are vectors for at most {POOL - QUERIES:,} rows")
    return options


# -- vectors alone --------------------------------------------------------------------------


def _vector_part(options: argparse.Namespace) -> dict[str, Any]:
    texts = sentences(POOL)
    vectors = embeddings(texts)
    rows, queries = vectors[: options.rows], vectors[-QUERIES:]
    truth = report.exact(rows, queries, K)
    load = Load(concurrency=options.clients, seconds=options.seconds, distinct=QUERIES)
    PROGRESS.print(f"Loading {options.rows:,} vectors into Ragstone and pgvector")
    with (
        _server() as address,
        peers.pgvector(rows, texts[: options.rows]) as uri,
        peers.echo(RESPONSE_BYTES) as echo,
    ):
        _store_vectors(address, texts[: options.rows], rows)
        results = alternate(
            {
                "ragstone": Ragstone(address, COLLECTION, "dense", vectors=queries, k=K),
                "pgvector": Pgvector(uri, queries, EF_SEARCH, k=K),
                "echo 200 B": Echo(echo, 200),
                "echo 1.6 kB": Echo(echo, 4 * DIM + 64),
            },
            load,
            rounds=options.rounds,
        )
    recalls = {name: report.recall(truth, results[name][1]) for name in ("ragstone", "pgvector")}
    summaries = {name: summary for name, (summary, _) in results.items()}
    _show_vectors(options, summaries, recalls)
    qps = summaries["ragstone"].qps
    return {
        "rows": options.rows,
        "dim": DIM,
        "clients": options.clients,
        **{
            name: report.as_json(summary, **({"recall@10": recalls[name]} if name in recalls else {}))
            for name, summary in summaries.items()
        },
        "ratios": {name: qps / other.qps for name, other in summaries.items() if name != "ragstone"},
    }


def _store_vectors(address: str, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
    recipe = Recipe(embedder={"kind": "precomputed", "space": "bench", "dim": DIM}, index={"kind": "hnsw"})
    documents = (
        Document(id=str(number), text=text, vector=vector)
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    )
    with Client(address) as client:
        client.create_collection(COLLECTION, recipe=recipe)
        client.import_documents(COLLECTION, documents, wait="indexed")
        client.compact(COLLECTION, timeout=600.0)


def _show_vectors(
    options: argparse.Namespace, summaries: dict[str, Summary], recalls: dict[str, float]
) -> None:
    qps = summaries["ragstone"].qps
    report.show(
        f"Vector search, {options.rows:,} x {DIM}, k = {K}, {options.clients} clients",
        ("", "QPS", "p50 ms", "p95 ms", "recall@10", "Ragstone is"),
        [
            (
                name,
                *report.speed(summary),
                f"{recalls[name]:.3f}" if name in recalls else "",
                "" if name == "ragstone" else f"{qps / summary.qps:.2f} x",
            )
            for name, summary in summaries.items()
        ],
        quiet=options.json,
    )


# -- hybrid text ----------------------------------------------------------------------------


def _text_part(options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.raw import RawHybrid

    needed = options.rounds * (TEXT_CALLS + TEXT_BURST)
    texts = sentences(options.text_rows + needed + QUERIES)
    rows, asked = texts[: options.text_rows], texts[options.text_rows :]
    PROGRESS.print(f"Loading {len(rows):,} texts into Ragstone, which embeds them")
    with _server() as address:
        _store_texts(address, rows)
        raw = RawHybrid.build(rows, embeddings(sentences(POOL))[: options.text_rows])
        target = Ragstone(address, COLLECTION, "hybrid", texts=asked, k=K)
        drive(target, Load(concurrency=4, calls=50, first=needed))
        measured = [_text_round(number, options, target, raw, asked) for number in range(options.rounds)]
    ones, manies, steps, one_thread, all_threads = zip(*measured, strict=True)
    return _text_figures(
        options,
        one=summarise(ones),
        many=summarise(manies),
        steps=tuple(float(part) for part in np.median(np.concatenate(steps), axis=0)),
        raw_p50=median(float(np.median(block.sum(axis=1))) for block in steps),
        encode={1: median(one_thread), os.cpu_count() or 1: median(all_threads)},
    )


def _text_round(
    number: int, options: argparse.Namespace, target: Ragstone, raw: Any, asked: Sequence[str]
) -> tuple[Outcome, Outcome, NDArray[np.float64], float, float]:
    """One query at a time, then many at once; the raw libraries on the same texts right after each.

    No query is asked twice, so that no cache answers.
    """
    first = number * (TEXT_CALLS + TEXT_BURST)
    one = drive(target, Load(concurrency=1, calls=TEXT_CALLS, first=first))
    steps = np.asarray([raw.step_ms(text) for text in asked[first : first + TEXT_CALLS]])
    burst = Load(concurrency=32, calls=TEXT_BURST, first=first + TEXT_CALLS)
    many = drive(target, burst)
    texts = [asked[index] for index in burst.numbers]
    one_thread = raw.encode_qps(texts, threads=1)
    all_threads = raw.encode_qps(texts, threads=os.cpu_count() or 1)
    PROGRESS.print(
        f"round {number + 1}/{options.rounds}  32 clients: {many.qps:,.0f} QPS, "
        f"raw encode: {one_thread:,.0f} and {all_threads:,.0f}"
    )
    return one, many, steps, one_thread, all_threads


def _store_texts(address: str, texts: Sequence[str]) -> None:
    with Client(address) as client:
        client.create_collection(COLLECTION)
        client.import_documents(
            COLLECTION, (Document(id=str(number), text=text) for number, text in enumerate(texts))
        )
        client.compact(COLLECTION, timeout=600.0)


def _text_figures(
    options: argparse.Namespace,
    *,
    one: Summary,
    many: Summary,
    steps: tuple[float, ...],
    raw_p50: float,
    encode: dict[int, float],
) -> dict[str, Any]:
    report.show(
        f"Hybrid text search, {options.text_rows:,} texts, k = {K}, one client",
        ("", "p50 ms", "Ragstone is"),
        [
            ("ragstone", f"{one.p50_ms:.2f}", ""),
            ("raw encode + FAISS + tantivy", f"{raw_p50:.2f}", f"{one.p50_ms / raw_p50:.2f} x"),
            *(
                (f"  {name}", f"{ms:.2f}", "")
                for name, ms in zip(("encode", "FAISS", "tantivy"), steps, strict=True)
            ),
        ],
        quiet=options.json,
    )
    report.show(
        "Hybrid text search, 32 clients",
        ("", "QPS", "Ragstone is"),
        [
            ("ragstone", f"{many.qps:,.0f}", ""),
            *(
                (f"raw encode, batched, {threads} thread(s)", f"{qps:,.0f}", f"{many.qps / qps:.2f} x")
                for threads, qps in encode.items()
            ),
        ],
        quiet=options.json,
    )
    return {
        "rows": options.text_rows,
        "one_client": report.as_json(one),
        "raw_p50_ms": raw_p50,
        "raw_steps_ms": dict(zip(("encode", "faiss", "tantivy"), steps, strict=True)),
        "32_clients": report.as_json(many),
        "raw_encode_qps": encode,
        "ratios": {
            "p50": one.p50_ms / raw_p50,
            "throughput": {threads: many.qps / qps for threads, qps in encode.items()},
        },
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

"""The rates of this machine, taken now: ``ragstone capacity --measure``."""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Final

from ragstone import Client
from retrieval.cli import docstrings
from retrieval.cli.rates import IndexRate, Rates
from retrieval.cli.server_process import ServerProcess
from retrieval.cli.sizing import STORES, IndexChoice
from retrieval.config import configure_threads

_COLLECTION: Final = "capacity"
_PASSAGES: Final = 400
_QUERIES: Final = 400
_QUERY_WORDS: Final = 9
_CLIENTS: Final = 16
_SECONDS: Final = 4.0
_ALONE: Final = 100

HOW: Final = (
    "embedding: passages of Python's documentation on all cores, and queries for 32 callers at once",
    "index: made vectors of 32 hidden dimensions, loaded step by step and merged, then asked one at a time",
    "service: a server of its own with a few hundred chunks, asked by 16 callers on the same cores",
    "to other sizes: scans by rows, lists by their root, graphs by their logarithm, builds by n log n, all "
    "by dim; other models by their weights; cores add up. What grows otherwise is not foreseen: measure at "
    "a tenth of your size before you buy",
)
"""What is measured, and how it is carried over."""


def measure(
    choice: IndexChoice, *, options: Mapping[str, object], rows: int, say: Callable[[str], None]
) -> Rates:
    """Take the rates; a minute or two on a machine that does nothing else. ``say`` is told each step."""
    # Before NumPy, torch and FAISS are imported: they read their thread settings only then.
    configure_threads()
    from retrieval.wiring.measuring import measure_embedding, measure_index

    cores = len(os.sched_getaffinity(0))
    passages = [document.text for document in islice(docstrings.corpus(_PASSAGES), _PASSAGES)]
    queries = [" ".join(text.split()[:_QUERY_WORDS]) for text in passages][:_QUERIES]
    say("embedding")
    model = asyncio.run(measure_embedding("sentence_transformer", {}, passages, queries))
    indexes = {}
    if choice.kind not in STORES:
        say(f"building {rows:,} rows of {choice.kind}")
        found = asyncio.run(measure_index(choice.kind, options, rows=rows, dim=choice.dim))
        indexes[choice.kind] = IndexRate(
            rows=rows,
            dim=choice.dim,
            searches_s=found.searches_s,
            build_rows_s=found.build_rows_s,
            bytes_a_row=found.bytes_a_row,
        )
    say("searching through a server")
    whole, reranked, lexical, alone_ms, chunks = _service(queries)
    query_core_ms = 1e3 * cores / model.queries_s
    return Rates(
        source=f"{platform.node()}: {cores} cores, {platform.processor() or platform.machine()}",
        embed_tokens_s_core=model.tokens_s / cores,
        query_core_ms=query_core_ms,
        service_core_ms=max(0.01, 1e3 * cores / whole - query_core_ms),
        rerank_core_ms=max(0.0, 1e3 * cores / reranked - 1e3 * cores / whole),
        loop_ms=1e3 / lexical,
        search_ms=alone_ms,
        most_searches_s=whole,
        service_rows=chunks,
        indexes=indexes,
    )


def _service(queries: Sequence[str]) -> tuple[float, float, float, float, int]:
    """Searches a second: hybrid, reranked as well, lexical; the median of one alone in ms; the chunks."""
    with (
        tempfile.TemporaryDirectory(prefix="ragstone-capacity-") as folder,
        ServerProcess(Path(folder)) as server,
        Client(server.address, timeout=300) as client,
    ):
        client.create_collection(_COLLECTION)
        client.upsert(_COLLECTION, list(docstrings.corpus(_PASSAGES)))

        def ask(query: str, mode: str = "hybrid", *, rerank: bool = False) -> None:
            client.search(_COLLECTION, query, mode=mode, rerank=rerank)

        whole = _rate(queries, ask)
        reranked = _rate(queries, partial(ask, rerank=True))
        # The least work for the event loop that is still a search: what it spends on it is at most this.
        lexical = _rate(queries, partial(ask, mode="lexical"))
        alone = sorted(_timed(partial(ask, query, rerank=True)) for query in queries[:_ALONE])
        chunks = client.get_collection(_COLLECTION).chunks
    return whole, reranked, lexical, 1e3 * alone[len(alone) // 2], max(1, chunks)


def _rate(queries: Sequence[str], ask: Callable[[str], None]) -> float:
    """Calls a second of 16 callers, over some seconds."""
    done = [0] * _CLIENTS
    until = perf_counter() + _SECONDS

    def caller(number: int) -> None:
        while perf_counter() < until:
            # Everybody asks something else: equal queries would share a vector that is kept.
            ask(f"{queries[(number + done[number] * _CLIENTS) % len(queries)]} {number} {done[number]}")
            done[number] += 1

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(_CLIENTS)]
    started = perf_counter()
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    return max(1, sum(done)) / (perf_counter() - started)


def _timed(call: Callable[[], None]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started

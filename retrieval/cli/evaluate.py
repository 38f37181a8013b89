"""``ragstone eval``: how well a collection answers the judged queries of a test collection."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ragstone import Client
from ragstone.errors import NotFound
from ragstone.types import Collection, Hit, Mode, Query
from retrieval.cli import beir, output
from retrieval.cli.ingest import Reading, import_with_progress
from retrieval.cli.options import (
    CollectionArgument,
    DatasetOption,
    JsonOption,
    RecipeOption,
    ServerOption,
    connect,
    make_recipe,
)
from retrieval.cli.search import (
    FusionOption,
    ModeOption,
    RerankDepthOption,
    RerankOption,
    VersionOption,
    fusion_of,
    rerank_of,
)

DEPTH: Final = 100
"""Documents ranked a query, and hits on its first page."""
MAX_HITS: Final = 1_000
"""Chunks looked at to rank ``DEPTH`` documents."""
BATCH: Final = 16
CALL_S: Final = 600.0
"""The first call may wait for an index that still follows its journal."""


def evaluate(
    collection: CollectionArgument,
    dataset: DatasetOption,
    mode: ModeOption = Mode.HYBRID,
    fusion: FusionOption = None,
    depth: Annotated[
        int | None, typer.Option(show_default="the server's", help="Candidates each leg gives to fusion.")
    ] = None,
    rerank: RerankOption = None,
    rerank_depth: RerankDepthOption = None,
    version: VersionOption = "",
    group_by: Annotated[
        str,
        typer.Option(
            "--group-by", metavar="KEY", help="Also report nDCG@10 per value of this key of a query."
        ),
    ] = "",
    recipe: RecipeOption = None,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Measure ranking quality; a document ranks where its best chunk does.

    A missing collection is created (with --recipe); an empty or half-filled one is filled from the corpus.
    """
    test = beir.load(dataset)
    with connect(server) as client:
        filled = _filled(client, collection, test, recipe)
        ask = Query(
            k=DEPTH,
            mode=mode,
            fusion=fusion_of(fusion),
            depth=depth,
            rerank=rerank_of(rerank, rerank_depth),
            min_seq=filled.seq,
            version=version,
        )
        started = time.perf_counter()
        degraded: set[str] = set()
        rankings = dict(_rank(client, filled, test.queries, ask, degraded))
        seconds = time.perf_counter() - started
    values = beir.evaluate(rankings, test.qrels)
    report: dict[str, Any] = {
        **beir.mean(values.values()),
        "queries": len(values),
        "seconds": round(seconds, 3),
    }
    if degraded:
        report["degraded"] = len(degraded)
    if group_by:
        report["groups"] = _groups(values, test.queries, group_by)
    _show(report, as_json=as_json)


def _filled(client: Client, name: str, test: beir.TestCollection, recipe: Path | None) -> Collection:
    try:
        collection = client.get_collection(name)
    except NotFound:
        collection = client.create_collection(name, recipe=make_recipe(recipe))
    # Fewer than the corpus has: empty, or an earlier run was stopped. What is there already costs nothing.
    if collection.documents < len({document.id for document in Reading([test.corpus])}):
        reading = Reading([test.corpus])
        import_with_progress(client, name, reading)
        reading.print_failures()
        collection = client.get_collection(name)
    return collection


def _rank(
    client: Client,
    collection: Collection,
    queries: Mapping[str, Mapping[str, Any]],
    ask: Query,
    degraded: set[str],
) -> Iterator[tuple[str, list[str]]]:
    """The documents of each query, many queries a call; ``degraded`` gets those that lack something."""
    ids = list(queries)
    with output.counting() as progress:
        task = progress.add_task("searching", total=len(ids))
        for start in range(0, len(ids), BATCH):
            asked = {qid: replace(ask, text=str(queries[qid]["text"])) for qid in ids[start : start + BATCH]}
            for qid, hits in _hits(client, collection, asked, degraded).items():
                yield qid, beir.best_documents(hits, DEPTH)
            progress.advance(task, len(asked))


def _hits(
    client: Client, collection: Collection, asked: Mapping[str, Query], degraded: set[str]
) -> dict[str, list[Hit]]:
    """Follow the pages of each query until ``DEPTH`` documents are found, or there is no more.

    The first page is what a search sees by default; only what ranks below it is fetched in larger pages.
    """
    hits: dict[str, list[Hit]] = {qid: [] for qid in asked}
    wanted = min(DEPTH, collection.documents)
    more = min(DEPTH * -(-collection.chunks // max(collection.documents, 1)), MAX_HITS - DEPTH)
    while asked:
        results = client.batch_search(collection.name, list(asked.values()), timeout=CALL_S)
        following = {}
        for (qid, query), result in zip(asked.items(), results, strict=True):
            hits[qid] += result.hits
            if result.degraded:
                degraded.add(qid)
            enough = len(hits[qid]) >= MAX_HITS or len(beir.best_documents(hits[qid])) >= wanted
            if result.next_page_token and not enough:
                following[qid] = replace(query, page_token=result.next_page_token, k=more)
        asked = following
    return hits


def _groups(
    values: Mapping[str, Mapping[str, float]], queries: Mapping[str, Mapping[str, Any]], key: str
) -> dict[str, float]:
    grouped: defaultdict[str, list[Mapping[str, float]]] = defaultdict(list)
    for qid, row in values.items():
        grouped[str(queries[qid].get(key, ""))].append(row)
    return {group: beir.mean(rows)["ndcg@10"] for group, rows in sorted(grouped.items())}


def _show(report: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(report)
        return
    rounded = {name: f"{value:.4f}" if name in beir.METRICS else value for name, value in report.items()}
    groups = {name: f"{value:.4f}" for name, value in report.get("groups", {}).items()}
    rounded.pop("groups", None)
    output.stdout().print(output.facts(rounded | ({"nDCG@10 of": groups} if groups else {})))

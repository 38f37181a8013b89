"""``ragstone tune``: how a collection is searched best, by judged queries, as a recipe."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from rich.progress import Progress

from ragstone import Client
from ragstone.errors import BackendUnavailable, InvalidArgument
from ragstone.types import Mode, Query, Rerank, SearchResult, Version
from retrieval.cli import beir, output, output_tuning, tuning
from retrieval.cli.options import CollectionArgument, DatasetOption, JsonOption, ServerOption, connect
from retrieval.cli.output_tuning import Measured, Report
from retrieval.cli.tuning import Asked, Candidates, Choice, Setting, candidates_of, choose
from retrieval.telemetry import LEG_RERANK

T = TypeVar("T")

BATCH: Final = 8
"""Queries a call, each asked of both legs: the answers bring the texts of all candidates along."""
CALL_S: Final = 600.0
LEAST_QUERIES: Final = 5
"""In each half."""
DEEPEST: Final = max(tuning.DEPTHS)
_OPEN: Final = ("serving", "ready", "retiring")
"""States of versions that are complete and can be searched."""

RerankedOption = Annotated[
    int,
    typer.Option(
        "--rerank-depth",
        min=1,
        max=1000,
        help="Candidates of each leg that are reranked while tuning: fewer make a slow reranker bearable.",
    ),
]


def tune(
    collection: CollectionArgument,
    dataset: DatasetOption,
    to: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", dir_okay=False, help="Write the recipe there, as TOML."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split of the queries into halves.")] = 0,
    rerank_depth: RerankedOption = DEEPEST,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Choose fusion, depth, reranking and version by one half of judged queries; measure on the other half.

    All open versions take part: build one for each length of chunks that is to be tried. What does not pay
    stays as the default has it. `ragstone rebuild --recipe FILE` builds what was chosen.
    """
    began = time.perf_counter()
    test = beir.load(dataset)
    train_ids, test_ids = _halves(test, seed)
    with connect(server) as client, output.counting() as progress:
        target = _Target(client, collection, client.get_collection(collection).seq, progress)
        versions = _open_versions(client, collection)
        serving = versions[0]
        choice = _choice(target, versions, _texts(test, train_ids), test.qrels, rerank_depth)
        settings = {
            "default hybrid": Setting(version=serving.name),
            f"{serving.name} as it is": tuning.setting_of(serving),
            "chosen": choice.setting,
        }
        texts = _texts(test, test_ids)
        measured = [
            Measured(name=name, setting=setting, values=_measure(target, setting, texts, test.qrels))
            for name, setting in settings.items()
        ]
    chosen = next(version for version in versions if version.name == choice.setting.version)
    report = Report(
        collection=collection,
        seed=seed,
        train=len(train_ids),
        test=len(test_ids),
        steps=choice.steps,
        measured=measured,
        recipe=tuning.recipe_of(chosen, choice.setting),
        unscored=target.unscored,
        seconds=time.perf_counter() - began,
    )
    if to is not None:
        to.write_text(report.toml(), "utf-8")
    if as_json:
        output.print_json(report.as_json())
        return
    output_tuning.show(report)
    typer.echo(f"wrote {to}" if to is not None else f"\n{report.toml()}", nl=to is not None)


def _halves(test: beir.TestCollection, seed: int) -> tuple[list[str], list[str]]:
    """Ids of the queries to tune on and of those to measure on. Raises InvalidArgument for too few."""
    halves: tuple[list[str], list[str]] = ([], [])
    for qid in test.queries:
        halves[0 if tuning.is_train(qid, seed) else 1].append(qid)
    sizes = [len(half) for half in halves]
    if min(sizes) < LEAST_QUERIES:
        raise InvalidArgument.at(
            "dataset",
            f"has {sizes[0]} judged queries to tune on and {sizes[1]} to measure on; "
            f"each half needs at least {LEAST_QUERIES}",
        )
    return halves


def _texts(test: beir.TestCollection, query_ids: Sequence[str]) -> dict[str, str]:
    return {qid: str(test.queries[qid]["text"]) for qid in query_ids}


def _open_versions(client: Client, collection: str) -> list[Version]:
    found = [version for version in client.versions(collection) if version.state in _OPEN]
    return sorted(found, key=lambda version: _OPEN.index(version.state))


# -- asking the server ------------------------------------------------------------------------


class _Target:
    """A collection that is asked many queries a call, as of one position in its journal."""

    def __init__(self, client: Client, collection: str, seq: int, progress: Progress) -> None:
        self.progress = progress
        self.unscored = 0
        """Queries whose candidates the reranker has scored only in part."""
        self._client = client
        self._collection = collection
        self._seq = seq

    def ask(self, *queries: Query) -> list[SearchResult]:
        """Answers of all legs asked for. Raises BackendUnavailable naming one that failed."""
        asked = [replace(query, min_seq=self._seq) for query in queries]
        results = self._client.batch_search(self._collection, asked, timeout=CALL_S)
        for query, result in zip(queries, results, strict=True):
            failed = [part for part in result.degraded if part != LEG_RERANK]
            if failed:
                raise BackendUnavailable(f"{', '.join(failed)} did not answer {query.text!r}")
            self.unscored += LEG_RERANK in result.degraded
        return results


def _choice(
    target: _Target, versions: Sequence[Version], texts: Mapping[str, str], qrels: beir.Qrels, reranked: int
) -> Choice:
    choices = []
    for version in versions:
        reranks = tuning.setting_of(version).rerank is not None
        rerank = Rerank(depth=reranked) if reranks else Rerank(off=True)
        asked = Asked(version.name, dict(_candidates(target, version.name, texts, rerank)), qrels)
        task = target.progress.add_task(f"settings of {version.name}", total=None)
        choices.append(choose(asked, reranks=reranks, heard=partial(target.progress.advance, task)))
    return tuning.best_of(choices)


def _candidates(
    target: _Target, version: str, texts: Mapping[str, str], rerank: Rerank
) -> Iterator[tuple[str, Candidates]]:
    """Each leg's candidates, asked alone, so that all of them come, with the reranker's scores of all."""
    ask = Query(k=DEEPEST, depth=DEEPEST, explain=True, version=version, rerank=rerank)
    for batch in _batches(target.progress, f"asking {version}", list(texts.items())):
        legs = [
            [replace(ask, text=text, mode=mode) for _, text in batch] for mode in (Mode.DENSE, Mode.LEXICAL)
        ]
        results = target.ask(*legs[0], *legs[1])
        for (qid, _), dense, lexical in zip(batch, results[: len(batch)], results[len(batch) :], strict=True):
            yield qid, candidates_of(dense, lexical)


def _measure(target: _Target, setting: Setting, texts: Mapping[str, str], qrels: beir.Qrels) -> tuning.Values:
    """nDCG@10 of each query, as the server itself answers it."""
    rankings: dict[str, list[str]] = {}
    for batch in _batches(target.progress, f"measuring {setting.version}", list(texts.items())):
        results = target.ask(*(replace(setting.query(), text=text) for _, text in batch))
        for (qid, _), result in zip(batch, results, strict=True):
            rankings[qid] = beir.best_documents(result.hits, tuning.TOP)
    return tuning.ndcg(rankings, {qid: qrels[qid] for qid in texts})


def _batches(progress: Progress, what: str, items: Sequence[T]) -> Iterator[Sequence[T]]:
    task = progress.add_task(what, total=len(items))
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        yield batch
        progress.advance(task, len(batch))

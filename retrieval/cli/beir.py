"""Test collections in the BEIR layout, and the metrics of a ranking. Pure but for reading files.

The layout: ``corpus.jsonl[.gz]`` (``_id``, ``title``, ``text``), ``queries.jsonl[.gz]`` (``_id``,
``text``, other keys) and ``qrels/test.tsv`` (a header, then query id, document id and grade).
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ragstone.errors import InvalidArgument
from ragstone.types import Hit

METRICS: Final[Mapping[str, str]] = {
    "ndcg@10": "nDCG@10",
    "recall@10": "R@10",
    "recall@100": "R@100",
    "mrr@10": "RR@10",
}
"""Our name -> the name that ``ir_measures`` parses."""

Qrels = Mapping[str, Mapping[str, int]]
Rankings = Mapping[str, Sequence[str]]
"""Query id -> document ids, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestCollection:
    """A corpus (a file), the judged queries, and their judgments."""

    corpus: Path
    queries: Mapping[str, Mapping[str, Any]]
    """Query id -> the query's line; ``text`` is the question."""
    qrels: Qrels


def load(folder: Path) -> TestCollection:
    """Read a folder; queries without a positive judgment are left out.

    Raises InvalidArgument where a file is missing or a judged query has no text.
    """
    qrels = _read_qrels(_existing(folder, "qrels/test.tsv"))
    lines = {str(line["_id"]): line for line in read_lines(_existing(folder, "queries.jsonl"))}
    missing = sorted(qrels.keys() - lines.keys())
    if missing:
        raise InvalidArgument.at("queries.jsonl", f"judged query {missing[0]!r} is not there")
    queries = {qid: line for qid, line in lines.items() if qid in qrels}
    return TestCollection(corpus=_existing(folder, "corpus.jsonl"), queries=queries, qrels=qrels)


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InvalidArgument.at("dataset", f"{folder / name} is missing")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises InvalidArgument naming the line that is none."""
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as file
    ):
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as exc:
                raise InvalidArgument.at(f"{path.name}:{number}", str(exc)) from exc


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: defaultdict[str, dict[str, int]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows, None)
        for number, row in enumerate(rows, start=2):
            try:
                query_id, document_id, grade = row[:3]
                qrels[query_id][document_id] = int(grade)
            except ValueError as exc:
                raise InvalidArgument.at(
                    f"{path.name}:{number}", f"not query, document, grade: {row}"
                ) from exc
    return {qid: grades for qid, grades in qrels.items() if any(g > 0 for g in grades.values())}


def best_documents(hits: Iterable[Hit], limit: int = 100) -> list[str]:
    """Documents in the order of their best chunks: the first hit of each counts."""
    return list(dict.fromkeys(hit.document_id for hit in hits))[:limit]


def evaluate(
    rankings: Rankings, qrels: Qrels, metrics: Iterable[str] = tuple(METRICS)
) -> dict[str, dict[str, float]]:
    """Query id -> metric -> value, for every query of ``qrels``; one without a ranking scores 0.

    The rank itself is the score that ``ir_measures`` sees, so that its tie-breaking changes nothing.
    """
    import ir_measures

    names = {ir_measures.parse_measure(METRICS[ours]): ours for ours in metrics}
    run = {
        qid: {document_id: float(-rank) for rank, document_id in enumerate(ids)}
        for qid, ids in rankings.items()
    }
    values = {qid: dict.fromkeys(names.values(), 0.0) for qid in qrels}
    for metric in ir_measures.iter_calc(list(names), {q: dict(g) for q, g in qrels.items()}, run):
        if metric.query_id in values:
            values[metric.query_id][names[metric.measure]] = metric.value
    return values


def mean(values: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over queries; 0 where there are none."""
    rows = list(values)
    return {name: sum(row[name] for row in rows) / max(len(rows), 1) for name in METRICS}

"""Queries with their judgments from files: JSON lines, or a test collection in the BEIR layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ragstone.errors import InvalidArgument
from ragstone.types import GoldenQuery
from retrieval.cli import beir

QueriesOption = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        metavar="FILE|DIR",
        exists=True,
        help='JSON lines {"text": ..., "relevant": {"document id": grade}}, or a folder in the BEIR layout.',
    ),
]


def read(path: Path) -> list[GoldenQuery]:
    """The queries of a file or a folder. Raises InvalidArgument naming the line that is none."""
    if path.is_dir():
        return _judged(beir.load(path))
    return [_query(path, number, line) for number, line in _lines(path)]


def _judged(test: beir.TestCollection) -> list[GoldenQuery]:
    return [
        GoldenQuery(
            id=query_id,
            text=str(line["text"]),
            relevant={document: grade for document, grade in test.qrels[query_id].items() if grade > 0},
        )
        for query_id, line in test.queries.items()
    ]


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as exc:
                raise InvalidArgument.at(f"{path.name}:{number}", str(exc)) from exc


def _query(path: Path, number: int, line: Any) -> GoldenQuery:
    relevant = line.get("relevant", {}) if isinstance(line, dict) else None
    if not isinstance(relevant, dict) or not str(line.get("text", "")).strip():
        raise InvalidArgument.at(
            f"{path.name}:{number}",
            'must be an object with a "text", and "relevant" as {"document id": grade}',
        )
    return GoldenQuery(id=str(line.get("_id", "")), text=str(line["text"]), relevant=relevant)

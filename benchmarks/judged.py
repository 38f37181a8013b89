"""Collections with relevance judgments, and what a ranking of their documents is worth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ir_measures
import numpy as np
from ir_measures import R, nDCG
from numpy.typing import NDArray

from retrieval.cli import beir

DATA: Final = Path(os.environ.get("RAGSTONE_DATA", "../shared/data"))
K: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A collection: its documents, title and text as one, and its judged queries."""

    ids: Sequence[str]
    passages: Sequence[str]
    queries: Mapping[str, str]
    qrels: beir.Qrels


def load(name: str) -> Judged:
    """The collection in ``DATA / name``; of ``name:prefix``, all whose ids begin with ``prefix:``.

    Collections in several languages mark them so.
    """
    folder, _, prefix = name.partition(":")
    test = beir.load(DATA / folder)
    begin = f"{prefix}:" if prefix else ""
    lines = [line for line in beir.read_lines(test.corpus) if str(line["_id"]).startswith(begin)]
    queries = {key: str(line["text"]) for key, line in test.queries.items() if key.startswith(begin)}
    return Judged(
        ids=[str(line["_id"]) for line in lines],
        passages=[f"{line.get('title', '')} {line['text']}".strip() for line in lines],
        queries=queries,
        qrels={key: grades for key, grades in test.qrels.items() if key in queries},
    )


def nearest(queries: NDArray[np.float32], passages: NDArray[np.float32]) -> NDArray[np.int64]:
    """The rows of the ``K`` passages with the largest inner products, best first: ``(len(queries), K)``."""
    return np.argsort(-(queries @ passages.T), axis=1, kind="stable")[:, :K]


def judge(judged: Judged, found: NDArray[np.int64]) -> tuple[float, float]:
    """Recall@10 and nDCG@10 of the rows ``found`` for each query, in the collection's order."""
    run = {
        query: {judged.ids[row]: float(-rank) for rank, row in enumerate(rows)}
        for query, rows in zip(judged.queries, found, strict=True)
    }
    values = ir_measures.calc_aggregate([R @ K, nDCG @ K], {q: dict(g) for q, g in judged.qrels.items()}, run)
    return float(values[R @ K]), float(values[nDCG @ K])

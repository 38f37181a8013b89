"""``ragstone eval``, from an empty server to metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunJson = Callable[..., Any]

pytestmark = pytest.mark.e2e

WORDS = ["amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heath"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A collection where the query's word is in exactly one document; document 0 is many chunks long."""
    (tmp_path / "qrels").mkdir()
    corpus, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
    for n, word in enumerate(WORDS):
        filler = "This sentence is here only to make the text long. " * (200 if n == 0 else 1)
        corpus.append({"_id": f"d{n}", "title": "", "text": f"{filler}The word is {word}. {filler}"})
        queries.append({"_id": f"q{n}", "text": f"the word {word}", "lang": "en" if n % 2 else "xx"})
        qrels.append(f"q{n}\td{n}\t1")
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n")
    return tmp_path


def test_a_missing_collection_is_made_filled_and_measured(run_json: RunJson, dataset: Path) -> None:
    report = run_json("eval", "made-by-eval", "--dataset", str(dataset), "--mode", "lexical")
    assert set(report) == {"ndcg@10", "recall@10", "recall@100", "mrr@10", "queries", "seconds"}
    assert report["queries"] == len(WORDS)
    assert report["ndcg@10"] == pytest.approx(1.0)
    assert run_json("collections", "show", "made-by-eval")["documents"] == len(WORDS)


def test_a_document_of_many_chunks_pushes_no_other_out_of_the_ranking(
    run_json: RunJson, dataset: Path, collection: str
) -> None:
    report = run_json("eval", collection, "--dataset", str(dataset), "--mode", "dense")
    assert report["recall@100"] == pytest.approx(1.0)


def test_groups_report_each_value_of_a_query_key(run_json: RunJson, dataset: Path, collection: str) -> None:
    report = run_json("eval", collection, "--dataset", str(dataset), "--group-by", "lang")
    assert set(report["groups"]) == {"en", "xx"}

"""Test collections in the BEIR layout, and what a ranking is worth."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragstone.errors import InvalidArgument
from ragstone.types import Hit
from retrieval.cli import beir

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def make(qrels: str = "q1\td1\t1\n", queries: tuple[str, ...] = ("q1", "q2")) -> Path:
        (tmp_path / "qrels").mkdir()
        (tmp_path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")
        lines = "\n".join(json.dumps({"_id": q, "text": f"text of {q}", "lang": "en"}) for q in queries)
        with gzip.open(tmp_path / "queries.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write(lines)
        (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "d1", "title": "", "text": "one"}) + "\n")
        return tmp_path

    return make


def hit(document_id: str, n: int = 0) -> Hit:
    return Hit(chunk_id=f"{document_id}-{n}", document_id=document_id, score=1.0, text="")


def test_only_queries_with_a_positive_judgment_count(folder: Folder) -> None:
    test = beir.load(folder("q1\td1\t1\nq2\td1\t0\n"))
    assert list(test.queries) == ["q1"]
    assert test.qrels == {"q1": {"d1": 1}}


def test_both_plain_and_gzipped_files_are_found(folder: Folder) -> None:
    test = beir.load(folder())
    assert test.corpus.name == "corpus.jsonl"
    assert test.queries["q1"]["text"] == "text of q1"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"qrels/test\.tsv is missing"):
        beir.load(tmp_path)


def test_a_bad_judgment_is_named_by_its_line(folder: Folder) -> None:
    with pytest.raises(InvalidArgument, match=r"test\.tsv:3"):
        beir.load(folder("q1\td1\t1\nq2\td1\tmany\n"))


def test_a_judged_query_without_text_is_an_error(folder: Folder) -> None:
    with pytest.raises(InvalidArgument, match="'q9'"):
        beir.load(folder("q9\td1\t1\n"))


def test_a_document_ranks_where_its_best_chunk_does() -> None:
    hits = [hit("b", 3), hit("a", 0), hit("b", 1), hit("c", 0)]
    assert beir.best_documents(hits) == ["b", "a", "c"]
    assert beir.best_documents(hits, limit=2) == ["b", "a"]


def test_metrics_of_a_known_ranking() -> None:
    values = beir.evaluate({"q": ["x", "right", "y"]}, {"q": {"right": 1}})
    assert values["q"] == pytest.approx(
        {"ndcg@10": 0.6309, "recall@10": 1, "recall@100": 1, "mrr@10": 0.5}, abs=1e-4
    )


def test_a_query_without_hits_scores_zero() -> None:
    values = beir.evaluate({"q1": ["d"], "q2": []}, {"q1": {"d": 1}, "q2": {"d": 1}})
    assert beir.mean(values.values())["ndcg@10"] == 0.5


@given(st.permutations([f"d{n}" for n in range(15)]))
def test_the_order_of_the_ranking_is_what_is_measured(ids: list[str]) -> None:
    rank = ids.index("d7") + 1
    values = beir.evaluate({"q": ids}, {"q": {"d7": 1}})["q"]
    assert values["mrr@10"] == pytest.approx(1 / rank if rank <= 10 else 0)

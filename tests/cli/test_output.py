"""What people and programs see: JSON with fixed keys, and errors on one line."""

from __future__ import annotations

import json
from datetime import date

import pytest

from ragstone import errors
from ragstone.answers import Citation, Usage
from ragstone.types import Hit, LegScore, SearchResult, Truncation
from retrieval.cli import output

LEG = LegScore(leg="dense", rank=1, score=0.5, contribution=0.25)
HIT = Hit(chunk_id="c", document_id="d", score=0.5, text="grün", metadata={"day": date(2024, 2, 29)})


def test_a_search_prints_exactly_the_documented_keys() -> None:
    value = output.search_json(SearchResult(hits=(HIT,), version="v1", space="s", seq=3))
    assert list(value) == ["hits", "version", "space", "seq", "degraded", "timings_ms"]
    assert list(value["hits"][0]) == ["chunk_id", "document_id", "score", "text", "metadata"]


def test_a_search_tells_that_its_text_was_cut() -> None:
    cut = Truncation(tokens=1_200, limit=256)
    assert output.search_json(SearchResult(truncation=cut))["truncation"] == {"tokens": 1_200, "limit": 256}
    assert "1,200 tokens, of which the embedder read the first 256" in output.truncation_line(cut)


def test_legs_come_with_a_hit_that_explains_itself() -> None:
    explained = Hit(chunk_id="c", document_id="d", score=0.5, text="", legs=(LEG,))
    assert output.hit_json(explained)["legs"] == [
        {"leg": "dense", "rank": 1, "score": 0.5, "contribution": 0.25}
    ]


def test_an_answer_prints_exactly_the_documented_keys() -> None:
    citation = Citation(
        chunk_id="c", document_id="d", start=1, end=2, answer_start=0, answer_end=1, quote="q"
    )
    value = output.answer_json("text", [citation], [HIT], Usage(prompt_tokens=7), None)
    assert list(value) == ["answer", "citations", "contexts", "usage", "done"]
    assert value["citations"] == [
        {"chunk_id": "c", "document_id": "d", "start": 1, "end": 2, "answer_start": 0, "answer_end": 1}
    ]
    assert value["usage"]["prompt_tokens"] == 7


def test_json_keeps_other_scripts_and_writes_dates_as_iso_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json(output.hit_json(HIT))
    printed = capsys.readouterr().out
    assert "grün" in printed
    assert json.loads(printed)["metadata"] == {"day": "2024-02-29"}


@pytest.mark.parametrize("cls", errors.ERRORS.values(), ids=lambda cls: cls.__name__)
def test_every_error_is_one_line_with_its_reason_and_what_to_do(cls: type[errors.RagstoneError]) -> None:
    line = output.error_line(cls("something\nwent wrong"))
    assert line.startswith(f"{cls.reason}: something went wrong -- ")
    assert len(line.splitlines()) == 1
    assert not line.endswith("-- ")


def test_an_error_names_each_wrong_field_once() -> None:
    violations = (errors.FieldViolation("documents[3].text", "is empty"),)
    assert output.error_line(errors.InvalidArgument("bad", violations=violations)).count("is empty") == 1
    assert output.error_line(errors.InvalidArgument.at("k", "is 0")).count("is 0") == 1


def test_an_overloaded_server_says_when_to_come_back() -> None:
    assert "(in 2.5 s)" in output.error_line(errors.Overloaded("full", retry_after_s=2.5))


def test_a_snippet_is_one_short_line() -> None:
    assert output.snippet("a\n\n  b " * 300, chars=10) == "a b a b a…"

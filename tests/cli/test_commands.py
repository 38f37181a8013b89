"""Every command, against a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from retrieval.cli.app import app

Run = Callable[..., Result]
RunJson = Callable[..., Any]

pytestmark = pytest.mark.e2e

LINES = [
    {"_id": "cat", "title": "Cats", "text": "A cat sleeps for most of the day.", "legs": 4},
    {"_id": "bird", "title": "Birds", "text": "A bird sings early in the morning.", "legs": 2},
    {"_id": "fish", "title": "Fish", "text": "A fish swims and never closes its eyes.", "legs": 0},
]


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    path = tmp_path / "animals.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


@pytest.fixture
def filled(run: Run, collection: str, animals: Path) -> str:
    assert run("ingest", collection, str(animals)).exit_code == 0
    return collection


# -- collections and versions -----------------------------------------------------------------


def test_a_collection_lives_from_create_to_delete(run: Run, run_json: RunJson) -> None:
    assert run("collections", "create", "life", "--index", "flat").exit_code == 0
    assert "life" in [c["name"] for c in run_json("collections", "list")["collections"]]
    assert run_json("collections", "show", "life")["serving"]["recipe"]["index"]["kind"] == "flat"
    assert run("collections", "delete", "life").exit_code == 0
    assert run("collections", "show", "life").exit_code == 1


def test_a_recipe_comes_from_a_toml_file(run_json: RunJson, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[embedder]\nkind = "hashing"\ndim = 64\n[chunker]\nmax_tokens = 32\noverlap_tokens = 8\n'
    )
    created = run_json("collections", "create", "from-toml", "--recipe", str(recipe), "--index", "flat")
    assert created["serving"]["dim"] == 64
    assert created["serving"]["recipe"]["chunker"]["max_tokens"] == 32
    assert created["serving"]["recipe"]["index"]["kind"] == "flat"


@pytest.mark.parametrize("content", ["[embeder]\nkind = 'x'\n", "embedder = 3\n", "no toml"])
def test_a_bad_recipe_file_is_a_usage_error(run: Run, tmp_path: Path, content: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(content)
    result = run("collections", "create", "never", "--recipe", str(recipe))
    assert result.exit_code == 2
    # The error stands in a box, which breaks a long path over two lines.
    assert "recipe.toml" in "".join(result.stderr.replace("│", "").split())


def test_compacting_changes_no_answer(run: Run, run_json: RunJson, filled: str) -> None:
    before = run_json("search", filled, "cat")["hits"]
    assert run("collections", "compact", filled).exit_code == 0
    assert run_json("search", filled, "cat")["hits"] == before


def test_versions_are_listed_and_shown(run: Run, run_json: RunJson, filled: str) -> None:
    [version] = run_json("versions", "list", filled)["versions"]
    assert run_json("versions", "show", filled, version["name"])["recipe"]["embedder"]["kind"] == "hashing"
    assert run("versions", "show", filled, "no-such-version").exit_code == 1


def test_a_collection_shows_the_recall_of_its_searches(run: Run, run_json: RunJson, filled: str) -> None:
    run("search", filled, "cat")
    give_up = time.monotonic() + 10
    while not (recall := live_recall(run_json, filled))["samples"]:
        assert time.monotonic() < give_up, "no recall was measured"
        time.sleep(0.05)
    assert recall["recall"] == 1
    shown = dict(
        line.split() for line in run("collections", "show", filled).stdout.splitlines() if "live" in line
    )
    assert shown["serving.stats.dense.details.live_recall.recall"] == "1"
    assert int(shown["serving.stats.dense.details.live_recall.samples"]) >= 1


def live_recall(run_json: RunJson, collection: str) -> dict[str, Any]:
    stats = run_json("collections", "show", collection)["serving"]["stats"]
    found: dict[str, Any] = stats["dense"]["details"]["live_recall"]
    return found


def test_health_is_the_exit_code(run: Run, run_json: RunJson) -> None:
    assert run("health").exit_code == 0
    assert run_json("health", "ragstone.v1.Retrieval")["health"] == "serving"
    assert run("health", "no.such.Service").exit_code == 1


def test_a_server_that_is_away_is_not_healthy() -> None:
    result = CliRunner().invoke(app, ["health", "--server", "127.0.0.1:1", "--timeout", "1"])
    assert result.exit_code == 1
    assert "BACKEND_UNAVAILABLE" in result.stderr


# -- documents --------------------------------------------------------------------------------


def test_ingest_counts_what_it_wrote(run_json: RunJson, collection: str, animals: Path) -> None:
    report = run_json("ingest", collection, str(animals))
    assert (report["documents"], report["unchanged"], report["chunks"], report["failed"]) == (3, 0, 3, 0)
    assert report["seconds"] >= 0


def test_ingesting_again_changes_nothing(run_json: RunJson, filled: str, animals: Path) -> None:
    seq = run_json("collections", "show", filled)["seq"]
    report = run_json("ingest", filled, str(animals))
    assert (report["documents"], report["unchanged"]) == (0, 3)
    assert run_json("collections", "show", filled)["seq"] == seq


def test_folders_are_read_whole_without_hidden_files(
    run_json: RunJson, collection: str, tmp_path: Path
) -> None:
    for name in ("one.md", "deep/er/two.txt", ".hidden/three.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"The text of {name}, long enough to be indexed.")
    assert run_json("ingest", collection, str(tmp_path))["documents"] == 2


def test_standard_input_is_json_lines(run_json: RunJson, collection: str, animals: Path) -> None:
    assert run_json("ingest", collection, "-", stdin=animals.read_text())["documents"] == 3


def test_a_damaged_file_is_reported_and_keeps_no_other_out(run: Run, collection: str, tmp_path: Path) -> None:
    (tmp_path / "damaged.pdf").write_bytes(b"%PDF-1.7 and then nothing of a PDF")
    (tmp_path / "good.txt").write_text("This file is fine and has to be indexed.")
    result = run("ingest", collection, str(tmp_path), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["documents"] == 1
    assert json.loads(result.stdout)["failed"] == 1
    assert "damaged.pdf" in result.stderr


def test_a_document_that_is_only_a_title_is_indexed_by_it(
    run: Run, run_json: RunJson, collection: str
) -> None:
    lines = '{"_id": "a", "title": "Only a title", "text": ""}\n{"_id": "b", "title": "", "text": " "}\n'
    result = run("ingest", collection, "-", "--json", stdin=lines)
    assert (json.loads(result.stdout)["documents"], json.loads(result.stdout)["failed"]) == (1, 1)
    assert "b holds no text" in result.stderr.replace(":", "")
    assert run_json("documents", "get", collection, "a")["text"] == "Only a title"


def test_a_path_that_does_not_exist_is_a_usage_error(run: Run, collection: str, tmp_path: Path) -> None:
    assert run("ingest", collection, str(tmp_path / "nothing")).exit_code == 2


def test_documents_are_shown_listed_and_deleted(run: Run, run_json: RunJson, filled: str) -> None:
    assert run_json("documents", "get", filled, "cat")["metadata"] == {"legs": 4}
    assert [d["id"] for d in run_json("documents", "list", filled, "--limit", "2")["documents"]] == [
        "bird",
        "cat",
    ]
    assert run_json("documents", "delete", filled, "cat")["documents"] == 1
    assert run_json("documents", "delete", filled, "--filter", "legs = 2")["documents"] == 1
    assert [d["id"] for d in run_json("documents", "list", filled)["documents"]] == ["fish"]


def test_deleting_needs_ids_or_a_filter(run: Run, filled: str) -> None:
    assert run("documents", "delete", filled).exit_code == 2
    assert run("documents", "delete", filled, "cat", "--filter", "legs = 4").exit_code == 2


# -- search and answers -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_search_finds_in_every_mode(run_json: RunJson, filled: str, mode: str) -> None:
    result = run_json("search", filled, "cat sleeps", "--mode", mode, "-k", "1")
    assert [hit["document_id"] for hit in result["hits"]] == ["cat"]
    assert result["degraded"] == []


def test_search_filters_and_explains(run_json: RunJson, filled: str) -> None:
    result = run_json("search", filled, "A bird", "--filter", "legs < 4", "--explain")
    assert {hit["document_id"] for hit in result["hits"]} == {"bird", "fish"}
    assert {leg["leg"] for leg in result["hits"][0]["legs"]} == {"dense", "lexical"}
    assert "scans" in result["plan"]["dense"]


def test_search_prints_a_table_for_people(run: Run, filled: str) -> None:
    result = run("search", filled, "cat sleeps", "--explain", "--request-key", "user 7")
    assert "cat" in result.stdout
    assert "lexical #1" in result.stdout


def test_a_space_that_no_version_has_is_named(run: Run, filled: str) -> None:
    result = run("search", filled, "cat sleeps", "--space", "elsewhere")
    assert result.exit_code == 1
    assert "elsewhere" in result.stderr


def test_text_in_brackets_is_text_and_no_markup(run: Run, run_json: RunJson, collection: str) -> None:
    run_json("ingest", collection, "-", stdin='{"_id": "b", "text": "The list [red] and [/bold] stay."}')
    assert "[red] and [/bold]" in run("search", collection, "list").stdout


def test_an_answer_cites_the_stored_text(run: Run, run_json: RunJson, filled: str) -> None:
    value = run_json("ask", filled, "How long does a cat sleep?")
    texts = {line["_id"]: str(line["text"]) for line in LINES}
    assert value["citations"]
    assert all(texts[c["document_id"]][c["start"] : c["end"]] in value["answer"] for c in value["citations"])
    assert value["contexts"][0]["document_id"] == "cat"
    assert "[1]" in run("ask", filled, "How long does a cat sleep?").stdout


# -- errors and other manners -----------------------------------------------------------------


def test_an_unknown_collection_is_one_line_and_exit_code_1(run: Run) -> None:
    result = run("search", "nowhere", "x")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("ragstone: NOT_FOUND: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_filter_that_does_not_parse_names_the_column(run: Run, filled: str) -> None:
    result = run("search", filled, "x", "--filter", "legs ~ 2")
    assert "INVALID_FILTER" in result.stderr
    assert "column 6" in result.stderr


@pytest.mark.parametrize("k", ["0", "100000"])
def test_an_impossible_k_names_the_field(run: Run, filled: str, k: str) -> None:
    result = run("search", filled, "x", "-k", k)
    assert result.exit_code == 1
    assert "k:" in result.stderr


def test_no_server_says_how_to_start_one() -> None:
    result = CliRunner().invoke(app, ["info", "--server", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "ragstone serve" in result.stderr


def test_unknown_options_are_usage_errors(run: Run) -> None:
    assert run("search", "c", "q", "--colour").exit_code == 2


def test_the_server_is_named_before_or_after_the_command(address: str) -> None:
    for arguments in (["--server", address, "info"], ["info", "--server", address]):
        assert CliRunner().invoke(app, [*arguments, "--json"]).exit_code == 0
    assert CliRunner(env={"RAGSTONE_SERVER": address}).invoke(app, ["info"]).exit_code == 0


def test_info_tells_limits_and_health(run_json: RunJson) -> None:
    value = run_json("info")
    assert value["health"] == "serving"
    assert value["max_k"] >= 100


# -- accounts ----------------------------------------------------------------------------------


def test_accounts_are_shown_by_day(run: Run, run_json: RunJson) -> None:
    assert run_json("usage", "--since", "2026-01-01", "--until", "2026-01-02") == {"records": []}
    assert "tenant" in run("usage").stdout


def test_a_day_that_is_none_is_a_usage_error(run: Run) -> None:
    assert run("usage", "--since", "yesterday").exit_code == 2

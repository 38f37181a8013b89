"""Re-embedding from the shell, with worker processes and a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import Result

from ragstone import Recipe, Version
from ragstone.errors import NotFound
from retrieval.cli.reembed import choose, look
from retrieval.jobs.borrowing import Tally

Run = Callable[..., Result]
RunJson = Callable[..., Any]


@pytest.fixture
def paused(run: Run, collection: str) -> str:
    """The space of ``v2``, which waits for its vectors."""
    lines = "\n".join(json.dumps({"_id": str(n), "text": f"Light {n} of {collection}."}) for n in range(30))
    stored = run("ingest", collection, "-", stdin=lines)
    assert stored.exit_code == 0, stored.stderr
    begun = run("rebuild", collection, "--set", "embedder.dim=64", "--paused", "--json")
    return str(json.loads(begun.stdout)["space"])


def test_a_job_embeds_what_is_missing_once(run: Run, run_json: RunJson, collection: str, paused: str) -> None:
    first = run_json("reembed", collection, "--to", paused, "--workers", "2", "--range-texts", "5")
    assert (first["version"], first["texts"], first["missing"], first["parked"]) == ("v2", 30, 0, [])
    again = run_json("reembed", collection, "v2")
    assert (again["texts"], again["missing"]) == (0, 0)


def test_a_job_says_how_to_go_on(run: Run, collection: str, paused: str) -> None:
    done = run("reembed", collection)
    assert "30 texts embedded" in done.stdout
    assert f"ragstone versions resume {collection} v2" in done.stdout


def test_a_space_that_no_version_is_of_is_refused(run: Run, collection: str, paused: str) -> None:
    refused = run("reembed", collection, "--to", "other@1")
    assert refused.exit_code == 1
    assert "in the space other@1" in refused.stderr


def version(name: str, state: str, space: str) -> Version:
    return Version(
        name=name,
        collection="docs",
        state=state,
        recipe=Recipe(),
        space=space,
        dim=2,
        applied_seq=0,
        created_at=datetime(2024, 5, 1, tzinfo=UTC),
    )


VERSIONS = [version("v1", "serving", "a"), version("v2", "paused", "b"), version("v3", "ready", "b")]


@pytest.mark.parametrize(
    ("name", "space", "chosen"),
    [(None, None, "v2"), (None, "b", "v3"), ("v2", None, "v2"), ("v2", "b", "v2"), (None, "a", "v1")],
)
def test_a_version_is_chosen_by_name_by_space_or_because_it_is_unfinished(
    name: str | None, space: str | None, chosen: str
) -> None:
    assert choose(VERSIONS, "docs", name=name, space=space).name == chosen


@pytest.mark.parametrize(("name", "space"), [("v9", None), (None, "c"), ("v1", "b")])
def test_what_fits_no_version_is_not_found(name: str | None, space: str | None) -> None:
    with pytest.raises(NotFound):
        choose(VERSIONS, "docs", name=name, space=space)


def test_the_bar_shows_what_is_embedded_and_what_is_left() -> None:
    shown = look(Tally(texts=300, missing=702, parked=["odd", "odd"]), 50.0)
    assert (shown["completed"], shown["total"]) == (300, 1_000)
    assert shown["pace"] == "300 embedded, 700 left, 50 a second, 2 parked"

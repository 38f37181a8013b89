"""Re-embedding from the shell, with worker processes and a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
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
    [
        (None, None, "v2"),
        (None, "b", "v2"),
        ("v3", "b", "v3"),
        ("v2", None, "v2"),
        ("v2", "b", "v2"),
        (None, "a", "v1"),
    ],
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


def test_a_share_of_a_gpu_is_refused_where_there_is_no_ray(run: Run, collection: str) -> None:
    refused = run("reembed", collection, "--gpus-per-worker", "0.5")
    assert refused.exit_code == 2
    assert "goes with --ray" in refused.stderr


def test_where_ray_is_not_installed_it_is_said_how_to_install_it(
    run: Run, collection: str, paused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "retrieval.jobs.ray_pipeline", None)
    monkeypatch.delattr("retrieval.jobs.ray_pipeline", raising=False)
    refused = run("reembed", collection, "--ray", "local")
    assert refused.exit_code == 1
    assert "pip install 'ragstone-server[ray]'" in refused.stderr


@pytest.mark.slow
def test_a_job_on_ray_prints_its_summary_and_leaves_nothing_behind(
    address: str, collection: str, paused: str, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    long = tmp_path / ("long" * 20)
    long.mkdir()
    command = ["--server", address, "reembed", collection, "--ray", "local", "--workers", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "retrieval.cli.app", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(long)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["texts"], summary["missing"], summary["parked"]) == (30, 0, [])
    assert list(long.iterdir()) == []

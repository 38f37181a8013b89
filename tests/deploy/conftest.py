"""What is deployed, read as whoever deploys it would."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any setting of Ragstone, to be filled."""
    for name in [name for name in os.environ if name.startswith("RAGSTONE_")]:
        monkeypatch.delenv(name)
    return monkeypatch

"""Real vLLM servers for the tests marked ``vllm``."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.vllm.server import VllmServer, missing

MakeVllmServer = Callable[..., VllmServer]


@pytest.fixture(scope="session")
def vllm_server() -> Iterator[VllmServer]:
    """One running server with the tiny model for all tests of this process: use a cache_salt of your own."""
    _skip_where_missing()
    with VllmServer() as server:
        yield server


@pytest.fixture
def make_vllm_server() -> Iterator[MakeVllmServer]:
    """Makes servers that are not started yet, for tests that kill or overload them; all are stopped."""
    _skip_where_missing()
    made: list[VllmServer] = []

    def make(**options: Any) -> VllmServer:
        made.append(VllmServer(**options))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def _skip_where_missing() -> None:
    reason = missing()
    if reason:
        pytest.skip(reason)

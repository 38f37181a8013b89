"""Servers that generate."""

from collections.abc import Iterator

import pytest

from tests.generator.servers import ChatServer


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A server that says that it is vLLM."""
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture
def second_server() -> Iterator[ChatServer]:
    """A replica of the first one."""
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture
def other_server() -> Iterator[ChatServer]:
    """A server of OpenAI's shape that is not vLLM."""
    server = ChatServer(vllm=False)
    yield server
    server.close()

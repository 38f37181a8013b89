"""The default model, loaded once, since loading costs more than all tests together; and servers."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from embedders.base import Embedder
from embedders.registry import open_embedder
from tests.embedders.servers import OpenAIServer, TeiServer


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def minilm() -> AsyncIterator[Embedder]:
    embedder = await open_embedder("sentence_transformer", {"device": "cpu"})
    yield embedder
    await embedder.close()


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    """A server of OpenAI's shape."""
    server = OpenAIServer()
    yield server
    server.close()


@pytest_asyncio.fixture
async def tei_server() -> AsyncIterator[TeiServer]:
    """A server of TEI's shape."""
    server = TeiServer()
    await server.start()
    yield server
    await server.close()

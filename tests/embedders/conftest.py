"""The default model, loaded once: loading costs more than all tests together."""

from collections.abc import AsyncIterator

import pytest_asyncio

from embedders.base import Embedder
from embedders.registry import open_embedder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def minilm() -> AsyncIterator[Embedder]:
    embedder = await open_embedder("sentence_transformer", {"device": "cpu"})
    yield embedder
    await embedder.close()

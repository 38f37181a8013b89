"""Servers that rerank."""

from collections.abc import Iterator

import pytest

from tests.rerankers.servers import RerankServer


@pytest.fixture(params=["tei", "cohere"])
def server(request: pytest.FixtureRequest) -> Iterator[RerankServer]:
    """One of either shape."""
    made = RerankServer(request.param)
    yield made
    made.close()

"""The whole application behind the API, in process, on real parts; only the model is the hashing one."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from ragstone.types import Document, Query, Recipe, SearchResult, Wait, WriteResult
from retrieval.config import Settings
from retrieval.telemetry import Metrics
from retrieval.wiring import Ragstone, build, make_metrics

HASHING = {"kind": "hashing", "dim": 64}


class App:
    """One collection, ``docs``, with the arguments that no test cares about filled in."""

    def __init__(self, ragstone: Ragstone) -> None:
        self.ragstone = ragstone
        self._closed = False

    async def close(self) -> None:
        """Close it, unless that was done already."""
        if not self._closed:
            self._closed = True
            await self.ragstone.close()

    async def upsert(
        self, *documents: Document, request_id: str = "", wait: Wait = Wait.INDEXED, collection: str = "docs"
    ) -> WriteResult:
        return await self.ragstone.upsert(
            collection, documents, request_id=request_id or uuid4().hex, wait=wait, tenant="t"
        )

    async def delete(
        self, *ids: str, where: str = "", wait: Wait = Wait.INDEXED, collection: str = "docs"
    ) -> WriteResult:
        return await self.ragstone.delete(
            collection, ids=ids, filter=where, request_id=uuid4().hex, wait=wait, tenant="t"
        )

    async def search(self, query: Query, collection: str = "docs") -> SearchResult:
        return await self.ragstone.search(collection, query, tenant="t", deadline_s=10.0)

    async def found(self, query: Query, collection: str = "docs") -> Sequence[str]:
        return [hit.document_id for hit in (await self.search(query, collection)).hits]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", recipe={"embedder": HASHING})


@pytest.fixture
def metrics() -> Metrics:
    """What ``app`` counts, and all that a scrape of it tells."""
    return make_metrics()


@pytest.fixture
async def app(settings: Settings, metrics: Metrics) -> AsyncIterator[App]:
    ragstone = await build(settings, metrics)
    await ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    yield App(ragstone)
    await ragstone.close()

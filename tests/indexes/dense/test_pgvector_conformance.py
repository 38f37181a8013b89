"""An index in PostgreSQL passes every check, in every metric, by each method, scanned and walked."""

from __future__ import annotations

from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
from pyroaring import BitMap64

from indexes.base import IndexStats, Metric, Neighbours, SearchParams, VectorBatch, VectorIndex, Vectors
from indexes.conformance import DIM, VECTOR_INDEX_CHECKS, Check, Opener, Subject
from indexes.dense.pgvector import PgvectorIndex, building, plan
from indexes.directory import LocalDirectory
from indexes.registry import open_dense
from tests.postgres import Postgres

OPTIONS: dict[str, tuple[dict[str, object], float]] = {
    "exact": ({"method": "exact"}, 1.0),
    "hnsw": ({"method": "hnsw"}, 0.95),
    "hnsw-float16": ({"method": "hnsw", "storage": "float16"}, 0.95),
    "ivfflat": ({"method": "ivfflat"}, 0.95),
}
INDEXED = [name for name in OPTIONS if name != "exact"]
PREFER_INDEXES = "options=-c%20enable_seqscan%3Doff%20-c%20enable_sort%3Doff"
"""PostgreSQL's planner would scan tables that are so small."""


class Compacted:
    """One that has an index over all its rows before each search."""

    def __init__(self, index: PgvectorIndex) -> None:
        self._index = index
        self._compacted_seq = -1

    @property
    def applied_seq(self) -> int:
        return self._index.applied_seq

    async def apply(self, batch: VectorBatch, *, seq: int) -> None:
        await self._index.apply(batch, seq=seq)

    async def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allow: BitMap64 | None = None,
        params: SearchParams | None = None,
    ) -> Neighbours:
        if self._compacted_seq < 0 or self._compacted_seq != self.applied_seq:
            self._compacted_seq = self.applied_seq
            await self._index.compact()
        assert self._index.stats().details["indexed"]
        return await self._index.search(queries, k, allow=allow, params=params)

    async def checkpoint(self) -> int:
        return await self._index.checkpoint()

    def stats(self) -> IndexStats:
        return self._index.stats()

    async def close(self) -> None:
        await self._index.close()


@pytest.fixture(scope="module")
def url(postgres_server: Postgres) -> str:
    return postgres_server.create_database()


def opener(url: str, metric: Metric, folder: Path, options: dict[str, object]) -> Opener:
    """Opens one index, in a table of its own."""
    name = f"index_{uuid4().hex}"

    async def opened() -> VectorIndex:
        return await open_dense(
            "pgvector",
            directory=LocalDirectory(folder),
            name=name,
            dim=DIM,
            metric=metric,
            options={"url": url, **options},
        )

    return opened


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("check", VECTOR_INDEX_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", OPTIONS)
async def test_an_index_in_postgresql_conforms(
    name: str, check: Check, metric: Metric, url: str, tmp_path: Path
) -> None:
    options, recall = OPTIONS[name]
    await check(Subject(open=opener(url, metric, tmp_path, options), metric=metric, recall=recall))


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("check", VECTOR_INDEX_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", INDEXED)
async def test_an_index_that_is_always_walked_conforms(
    name: str, check: Check, metric: Metric, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "INDEX_FROM", 0)
    for few in ("_SCANNED", "_PICKED"):
        monkeypatch.setattr(plan, few, 0)
    options, recall = OPTIONS[name]
    opened = opener(f"{url}&{PREFER_INDEXES}", metric, tmp_path, options)

    async def compacted() -> VectorIndex:
        return Compacted(cast(PgvectorIndex, await opened()))

    await check(Subject(open=compacted, metric=metric, recall=recall))

"""Any sequence of writes, upkeep and reopenings of an index in PostgreSQL, against a dict and brute force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar
from uuid import uuid4

import pytest
from hypothesis import settings

from indexes.base import Metric
from indexes.conformance import DIM
from indexes.dense.pgvector import PgvectorIndex, building, open_index, plan
from indexes.directory import LocalDirectory
from tests.indexes.dense.test_index_model import IndexMachine
from tests.postgres import Postgres


class PgvectorMachine(IndexMachine):
    """The model of the local index, with the index in PostgreSQL, which is always scanned."""

    kind = "pgvector"
    metric = Metric.COSINE
    options: ClassVar[dict[str, object]] = {"method": "exact"}
    url: ClassVar[str]

    def __init__(self) -> None:
        self.name = f"index_{uuid4().hex}"
        super().__init__()

    async def opened(self) -> PgvectorIndex:
        return await open_index(
            self.kind,
            directory=LocalDirectory(self.root),
            name=self.name,
            dim=DIM,
            metric=self.metric,
            options={"url": self.url, **self.options},
        )


class WalkedMachine(PgvectorMachine):
    """The same with a graph, which is walked as soon as it is built."""

    metric = Metric.L2
    options: ClassVar[dict[str, object]] = {"m": 8, "ef_construction": 40, "ef_search": 40}
    recall = 0.8


@pytest.fixture(autouse=True, scope="module")
def small_tables_are_walked(postgres_server: Postgres) -> Iterator[None]:
    no_scans = "options=-c%20enable_seqscan%3Doff%20-c%20enable_sort%3Doff"
    PgvectorMachine.url = f"{postgres_server.create_database()}&{no_scans}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "INDEX_FROM", 0)
        patch.setattr(plan, "_SCANNED", 0)
        patch.setattr(plan, "_PICKED", 0)
        yield


TestScanned, TestWalked = PgvectorMachine.TestCase, WalkedMachine.TestCase
TestScanned.settings = TestWalked.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)

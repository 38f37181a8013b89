"""Any sequence of writes, upkeep and crashes, against a dict and brute force."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray
from pyroaring import BitMap64

from indexes.base import Metric, SearchParams, VectorBatch
from indexes.conformance import DIM, clustered, recall_of, true_neighbours
from indexes.dense.opening import open_index
from indexes.dense.sharding import shard_of
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import LocalDirectory
from indexes.registry import open_dense

POOL = clustered(2_000, seed=99)
QUERIES = clustered(4, seed=5)
LIMITS = UpkeepLimits(freeze_at=60, idle_freeze_at=20, idle_s=0.001, raw_segments=2)

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the files lie: they are synced very often, and need no disk for it."""

Model = dict[int, NDArray[np.float32]]


class IndexMachine(RuleBasedStateMachine):
    """The model of an index: its keys and vectors now, and every batch since the journal began."""

    kind = "flat"
    metric = Metric.L2
    options: ClassVar[dict[str, object]] = {}
    recall = 1.0
    shards = 1

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(prefix="index-model-", dir=MEMORY))
        self.journal: list[VectorBatch] = []
        self.model: Model = {}
        self.used = 0
        self.index = self.run(self.opened())

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def opened(self) -> Any:
        return await open_index(
            self.kind,
            directory=LocalDirectory(self.root),
            dim=DIM,
            metric=self.metric,
            options={**self.options, "shards": self.shards},
            limits=LIMITS,
        )

    def write(self, keys: list[int], deleted: list[int]) -> None:
        batch = VectorBatch(np.array(keys, np.int64), POOL[keys], np.array(deleted, np.int64))
        self.journal.append(batch)
        for key in deleted:
            self.model.pop(key, None)
        self.model.update({key: POOL[key] for key in keys})
        self.run(self.index.apply(batch, seq=len(self.journal)))

    @rule(count=st.integers(1, 80))
    @precondition(lambda self: self.used < 1_900)
    def add(self, count: int) -> None:
        self.write(list(range(self.used, self.used + count)), [])
        self.used += count

    @rule(places=st.lists(st.integers(0, 2_000), max_size=40, unique=True), replace=st.booleans())
    def delete(self, places: list[int], replace: bool) -> None:
        deleted = [place % max(1, self.used) for place in places]
        added = min(5, 2_000 - self.used) if replace else 0
        self.write(list(range(self.used, self.used + added)), deleted)
        self.used += added

    @rule(places=st.lists(st.integers(0, 2_000), min_size=1, max_size=10))
    @precondition(lambda self: self.used > 0)
    def add_again(self, places: list[int]) -> None:
        self.write(sorted({place % self.used for place in places}), [])

    @rule()
    def let_upkeep_run(self) -> None:
        self.run(asyncio.sleep(0.02))

    @rule()
    def checkpoint(self) -> None:
        assert self.run(self.index.checkpoint()) == len(self.journal)

    @rule()
    def compact(self) -> None:
        self.run(self.index.compact())
        used = np.unique(shard_of(np.array([*self.model], np.int64), self.shards))
        assert self.index.stats().segments == len(used)
        assert self.index.stats().deleted == 0

    @rule()
    def crash_and_replay(self) -> None:
        self.run(self.index.close())
        self.index = self.run(self.opened())
        for seq, batch in enumerate(self.journal, start=1):
            self.run(self.index.apply(batch, seq=seq))

    @rule(share=st.floats(0.0, 1.0))
    def filter(self, share: float) -> None:
        allow = BitMap64(key for key in self.model if key % 100 < 100 * share)
        self.agrees({key: vector for key, vector in self.model.items() if key in allow}, allow)

    @invariant()
    def finds_what_brute_force_finds(self) -> None:
        self.agrees(self.model, None)

    @invariant()
    def counts_what_lives(self) -> None:
        assert self.index.stats().live == len(self.model)
        assert self.index.applied_seq == len(self.journal)
        assert self.index.stats().details["last_error"] == ""

    def agrees(self, model: Model, allow: BitMap64 | None) -> None:
        exact = self.run(self.index.search(QUERIES, 10, allow=allow, params=SearchParams(exact=True)))
        truth = [true_neighbours(model, query, 10, self.metric) for query in QUERIES]
        for row, true in zip(exact.keys, truth, strict=True):
            assert row.tolist() == true.tolist() + [-1] * (10 - len(true))
        # Narrow, so that graphs are walked even where comparing with each row would cost less.
        narrow = SearchParams(effort=16)
        found = self.run(self.index.search(QUERIES, 10, allow=allow, params=narrow))
        assert recall_of(found, truth) >= self.recall

    def teardown(self) -> None:
        self.run(self.index.close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.root)


class HnswMachine(IndexMachine):
    """The same for graphs, by cosine."""

    kind = "hnsw"
    metric = Metric.COSINE
    options: ClassVar[dict[str, object]] = {"m": 8, "ef_construction": 40}
    recall = 0.8


class ShardedMachine(IndexMachine):
    """The same in three shards: as exact as one."""

    shards = 3


class ProductCodesMachine(IndexMachine):
    """The same for product codes in two shards, by inner product."""

    kind = "ivf_pq"
    metric = Metric.INNER_PRODUCT
    shards = 2
    recall = 0.8


class EdgeMachine(IndexMachine):
    """The same in Qdrant's embedded engine, which builds graphs at any moment."""

    options: ClassVar[dict[str, object]] = {"graph_at": 150, "batch": 16}
    recall = 0.8

    async def opened(self) -> Any:
        directory = LocalDirectory(self.root)
        return await open_dense(
            "qdrant_edge", directory=directory, dim=DIM, metric=self.metric, options=self.options
        )

    @rule()
    def compact(self) -> None:
        self.run(self.index.compact())
        assert self.index.stats().live == len(self.model)


ENOUGH = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestFlat = IndexMachine.TestCase
TestHnsw = HnswMachine.TestCase
TestSharded = ShardedMachine.TestCase
TestProductCodes = ProductCodesMachine.TestCase
TestEdge = EdgeMachine.TestCase
# Each build is a process that has to start.
TestEdge.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)
TestFlat.settings = TestHnsw.settings = TestSharded.settings = TestProductCodes.settings = ENOUGH

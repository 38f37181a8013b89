"""Segments that are not searched where they lie, but on another device: here one that the CPU stands in for.

``Elsewhere`` holds FAISS's own indexes behind the structures of a GPU: with their limits, their lock, their
candidates that the CPU scores, and without their speed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import faiss
import numpy as np
import pytest
from pyroaring import BitMap64
from structlog.testing import capture_logs

from indexes.base import Metric, Neighbours, SearchParams, VectorIndex, Vectors
from indexes.conformance import (
    DIM,
    VECTOR_INDEX_CHECKS,
    Check,
    Subject,
    batch_of,
    clustered,
    removal_of,
)
from indexes.dense import kinds
from indexes.dense.devices import Host, PlacedStructure
from indexes.dense.exact import ExactIndex
from indexes.dense.gpu_structures import GpuFlat, GpuIvf, OneAtATime
from indexes.dense.placed import PlacedFlat
from indexes.dense.structures import FAISS_METRIC
from indexes.directory import LocalDirectory
from indexes.registry import open_dense
from ragstone.errors import FailedPrecondition, OutOfMemory

if TYPE_CHECKING:
    from pathlib import Path

    from tests.indexes.dense.conftest import Open

ROWS: Final = 2_000
NONE: Final = SearchParams()
EXACT: Final = SearchParams(exact=True)


class Full(OneAtATime):
    """A device whose memory others have taken meanwhile."""

    def search(self, queries: Vectors, k: int, *, params: Any) -> Any:
        raise OutOfMemory("the GPU's memory is exhausted")


@dataclass(frozen=True)
class Elsewhere(Host):
    """Places everything that a GPU would."""

    name: str = "cuda:0"
    code_bits: int = 8
    required: bool = False
    holder: type[OneAtATime] = OneAtATime
    placed: list[OneAtATime] = field(default_factory=list)

    def place(
        self, kind: str, vectors: Vectors, metric: Metric, load: Callable[[], Any]
    ) -> PlacedStructure | None:
        if kind not in ("flat", "ivf_flat", "ivf_pq"):
            return None
        index = faiss.IndexFlat(vectors.shape[1], FAISS_METRIC[metric]) if kind == "flat" else load()
        self.placed.append(self.holder(index))
        if kind != "flat":
            return GpuIvf(self.placed[-1], index, self.required)
        index.add(vectors)
        return GpuFlat(self.placed[-1], self.required)

    def close(self) -> None:
        for placed in self.placed:
            placed.release()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Elsewhere]:
    """Makes a device on which all indexes are opened from then on."""

    def elsewhere(**options: Any) -> Elsewhere:
        device = Elsewhere(**options)
        monkeypatch.setattr(kinds, "open_device", lambda wanted: device)
        return device

    return elsewhere


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("check", VECTOR_INDEX_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("kind", "recall"), [("flat", 1.0), ("ivf_flat", 0.95), ("ivf_pq", 0.95)])
async def test_an_index_elsewhere_conforms(
    kind: str,
    recall: float,
    check: Check,
    metric: Metric,
    elsewhere: Callable[..., Elsewhere],
    tmp_path: Path,
) -> None:
    async def opened() -> VectorIndex:
        elsewhere()
        options = {"freeze_at": 64}
        return await open_dense(
            kind, directory=LocalDirectory(tmp_path), dim=DIM, metric=metric, options=options
        )

    await check(Subject(open=opened, metric=metric, recall=recall))


async def test_statistics_and_explanations_name_the_device(
    opened: Open, elsewhere: Callable[..., Elsewhere]
) -> None:
    elsewhere()
    index = await opened("flat")
    await index.apply(batch_of(clustered(ROWS)), seq=1)
    await index.compact()
    details = index.stats().details
    assert (details["device"], details["segments"][0]["device"]) == ("cuda:0", "cuda:0")
    assert index.explain(10) == f"00000001 (flat): scans {ROWS} rows on cuda:0"


@pytest.mark.parametrize("metric", list(Metric))
async def test_a_flat_index_answers_elsewhere_as_it_does_here(
    metric: Metric, opened: Open, elsewhere: Callable[..., Elsewhere]
) -> None:
    elsewhere()
    index = await opened("flat", metric=metric)
    await index.apply(batch_of(clustered(ROWS)), seq=1)
    await index.compact()
    queries = clustered(50, seed=9)
    there = [await index.search(query[None], 10) for query in queries]
    here = [await index.search(query[None], 10, params=EXACT) for query in queries]
    assert [found.keys.tolist() for found in there] == [found.keys.tolist() for found in here]
    assert [found.scores.tolist() for found in there] == [found.scores.tolist() for found in here]


async def test_rows_that_died_are_passed_over_elsewhere(
    opened: Open, elsewhere: Callable[..., Elsewhere]
) -> None:
    elsewhere()
    index, vectors = await opened("flat"), clustered(ROWS)
    await index.apply(batch_of(vectors), seq=1)
    await index.compact()
    await index.apply(removal_of(*range(0, ROWS, 5)), seq=2)
    assert index.explain(10).endswith(" on cuda:0")
    found = await index.search(vectors[:ROWS:5][:40], 10)
    exact = await index.search(vectors[:ROWS:5][:40], 10, params=EXACT)
    assert found.keys.tolist() == exact.keys.tolist()


@pytest.mark.parametrize(("allowed", "k"), [(ROWS // 10, 10), (ROWS, ROWS - 1), (100, 100)])
async def test_what_a_gpu_cannot_fetch_the_cpu_answers(
    allowed: int, k: int, opened: Open, elsewhere: Callable[..., Elsewhere]
) -> None:
    elsewhere()
    index = await opened("flat")
    await index.apply(batch_of(clustered(ROWS)), seq=1)
    await index.compact()
    assert "cuda" not in index.explain(k, allow=BitMap64(range(allowed)))
    found = await index.search(clustered(3, seed=4), k, allow=BitMap64(range(allowed)))
    exact = await index.search(clustered(3, seed=4), k, allow=BitMap64(range(allowed)), params=EXACT)
    assert found.keys.tolist() == exact.keys.tolist()


def test_where_many_rows_are_equally_good_the_keys_decide_as_on_the_cpu() -> None:
    vectors = np.repeat(clustered(20), 100, axis=0)
    index = faiss.IndexFlat(DIM, faiss.METRIC_L2)
    index.add(np.ascontiguousarray(vectors))
    here = ExactIndex(vectors, Metric.L2)
    there = PlacedFlat(GpuFlat(OneAtATime(index), False), here, vectors, Metric.L2)
    found = there.search(vectors[150:151], 10, None, NONE)
    assert found.keys.tolist() == [list(range(100, 110))]


# -- memory --------------------------------------------------------------------------------------------


async def test_a_search_without_memory_elsewhere_is_answered_here_and_told(
    opened: Open, elsewhere: Callable[..., Elsewhere]
) -> None:
    elsewhere(holder=Full)
    index = await opened("flat")
    await index.apply(batch_of(clustered(ROWS)), seq=1)
    await index.compact()
    with capture_logs() as logs:
        found = await index.search(clustered(1, seed=2), 10)
    exact = await index.search(clustered(1, seed=2), 10, params=EXACT)
    assert found.keys.tolist() == exact.keys.tolist()
    assert [(line["event"], line["device"]) for line in logs] == [("search_on_cpu", "cuda:0")]


async def test_where_the_recipe_insists_such_a_search_fails_and_the_next_ones_do_not(
    opened: Open, elsewhere: Callable[..., Elsewhere]
) -> None:
    elsewhere(holder=Full, required=True)
    index = await opened("flat")
    await index.apply(batch_of(clustered(ROWS)), seq=1)
    await index.compact()
    with pytest.raises(OutOfMemory):
        await index.search(clustered(1, seed=2), 10)
    assert len((await index.search(clustered(1, seed=2), 10, params=EXACT)).keys) == 1


async def test_a_closed_index_has_given_its_memory_back(
    opened: Open, elsewhere: Callable[..., Elsewhere]
) -> None:
    device = elsewhere()
    index = await opened("flat")
    await index.apply(batch_of(clustered(ROWS)), seq=1)
    await index.compact()
    await index.close()
    with pytest.raises(FailedPrecondition, match="closed"):
        device.placed[-1].search(clustered(1), 1, params=None)


# -- threads -------------------------------------------------------------------------------------------


class Watched(OneAtATime):
    """Knows which threads asked."""

    seen: Final[set[str]] = set()

    def search(self, queries: Vectors, k: int, *, params: Any) -> Any:
        self.seen.add(threading.current_thread().name)
        return super().search(queries, k, params=params)


async def test_the_event_loop_never_waits_for_a_device(
    opened: Open, elsewhere: Callable[..., Elsewhere]
) -> None:
    elsewhere(holder=Watched)
    index = await opened("flat")
    await index.apply(batch_of(clustered(ROWS)), seq=1)
    await index.compact()
    for query in clustered(50, seed=8):
        await index.search(query[None], 5)
    assert Watched.seen
    assert threading.current_thread().name not in Watched.seen


async def test_many_searches_at_once_get_each_their_own_answer(
    opened: Open, elsewhere: Callable[..., Elsewhere]
) -> None:
    elsewhere()
    index, vectors = await opened("flat"), clustered(ROWS)
    await index.apply(batch_of(vectors), seq=1)
    await index.compact()
    found: list[Neighbours] = await asyncio.gather(
        *(index.search(vector[None], 1) for vector in vectors[:200])
    )
    assert [int(one.keys[0, 0]) for one in found] == list(range(200))

"""The real thing: indexes that a GPU builds and searches. Skipped, and counted so, where there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import faiss
import numpy as np
import pytest

from indexes.base import Metric, SearchParams, VectorIndex
from indexes.conformance import DIM, VECTOR_INDEX_CHECKS, Check, Subject, batch_of, clustered, recall_of
from indexes.dense import kinds
from indexes.dense.cuda import CudaRuntime
from indexes.dense.devices import HOST, Device
from indexes.dense.faiss_gpu import CudaDevice
from indexes.dense.gpu_memory import SCRATCH_BYTES, flat_bytes, graph_build_bytes
from indexes.dense.manifest import SegmentEntry, read_manifest
from indexes.directory import LocalDirectory
from indexes.registry import open_dense
from ragstone.errors import OutOfMemory

if TYPE_CHECKING:
    from indexes.dense.segmented import SegmentedIndex
    from tests.indexes.dense.conftest import Open

RUNTIME: Final = CudaRuntime.loaded() if hasattr(faiss, "StandardGpuResources") else None
PRESENT: Final = RUNTIME is not None and not RUNTIME.fault()
CAGRA: Final = PRESENT and hasattr(faiss, "GpuIndexCagra")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not PRESENT, reason="needs a CUDA device and faiss-gpu"),
]
needs_cagra: Final = pytest.mark.skipif(not CAGRA, reason="needs a CUDA device and faiss-gpu-cuvs")

ROWS: Final = 20_000
EXACT: Final = SearchParams(exact=True)
KINDS: Final = [
    ("flat", {}, 1.0),
    ("ivf_flat", {}, 0.95),
    ("ivf_pq", {}, 0.95),
    pytest.param("cagra", {}, 0.95, marks=needs_cagra),
    pytest.param("hnsw", {"storage": "float32"}, 0.95, marks=needs_cagra),
]
"""Kind, options, and the recall to declare."""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Opens indexes on a GPU from then on, however small they are; without a runtime on the CPU."""

    def device(runtime: CudaRuntime | None, *, required: bool = True) -> None:
        def opened(wanted: str) -> Device:
            return HOST if runtime is None else CudaDevice(runtime, required=required, least_floats=0)

        monkeypatch.setattr(kinds, "open_device", opened)

    device(RUNTIME)
    return device


@pytest.fixture
def runtime() -> CudaRuntime:
    assert RUNTIME is not None
    return RUNTIME


class Small(CudaRuntime):
    """The device, of which others have taken all but a little."""

    def memory(self) -> Any:
        memory = super().memory()
        return type(memory)(free=2**20, total=memory.total)


def only_segment(tmp_path: Path) -> SegmentEntry:
    manifest = read_manifest(LocalDirectory(tmp_path / "index"))
    assert manifest is not None
    (segment,) = manifest.segments
    return segment


async def filled(index: SegmentedIndex, rows: int = ROWS) -> SegmentedIndex:
    await index.apply(batch_of(clustered(rows)), seq=1)
    await index.compact()
    return index


async def recall(index: VectorIndex) -> float:
    queries = clustered(200, seed=31)
    exact = await index.search(queries, 10, params=EXACT)
    return recall_of(await index.search(queries, 10), list(exact.keys))


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("check", VECTOR_INDEX_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("kind", "options", "declared"), KINDS)
async def test_an_index_on_a_gpu_conforms(
    kind: str,
    options: dict[str, object],
    declared: float,
    check: Check,
    metric: Metric,
    device: Callable[..., None],
    tmp_path: Path,
) -> None:
    async def opened() -> VectorIndex:
        directory = LocalDirectory(tmp_path)
        some = {"freeze_at": 64, **options}
        return await open_dense(kind, directory=directory, dim=DIM, metric=metric, options=some)

    await check(Subject(open=opened, metric=metric, recall=declared))


@pytest.mark.parametrize("metric", list(Metric))
async def test_a_flat_index_on_a_gpu_gives_the_keys_and_scores_of_the_cpu(
    metric: Metric, opened: Open, device: Callable[..., None]
) -> None:
    index = await filled(await opened("flat", metric=metric))
    assert index.explain(10).endswith(" on cuda:0")
    for query in clustered(100, seed=3):
        there = await index.search(query[None], 10)
        here = await index.search(query[None], 10, params=EXACT)
        assert there.keys.tolist() == here.keys.tolist()
        assert there.scores.tolist() == here.scores.tolist()


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.L2])
@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq", pytest.param("cagra", marks=needs_cagra)])
async def test_a_recall_target_is_reached_on_a_gpu_and_then_on_the_cpu(
    kind: str, metric: Metric, opened: Open, device: Callable[..., None], tmp_path: Path
) -> None:
    index = await filled(await opened(kind, metric=metric, recall_target=0.95))
    assert index.explain(10).endswith(" on cuda:0")
    assert await recall(index) >= 0.945
    await index.close()
    segment = only_segment(tmp_path)
    assert segment.tuning is not None
    assert segment.gpu_tuning is not None
    device(None)
    index = await opened(kind, metric=metric)
    assert "cuda" not in index.explain(10)
    assert await recall(index) >= 0.945


@needs_cagra
async def test_a_gpu_builds_the_graph_that_the_cpu_searches(
    opened: Open, device: Callable[..., None], tmp_path: Path
) -> None:
    index = await filled(await opened("hnsw", storage="float32", recall_target=0.95))
    assert "cuda" not in index.explain(10)
    assert await recall(index) >= 0.945
    file = tmp_path / "index" / f"{only_segment(tmp_path).name}.index"
    assert isinstance(faiss.read_index(str(file)), faiss.IndexHNSW)


@needs_cagra
async def test_rows_are_added_to_a_graph_of_a_gpu(opened: Open, device: Callable[..., None]) -> None:
    vectors = clustered(ROWS)
    index = await opened("cagra", recall_target=0.95)
    await index.apply(batch_of(vectors[:-200]), seq=1)
    await index.compact()
    await index.apply(batch_of(vectors[-200:], first=ROWS - 200), seq=2)
    await index.compact()
    assert len(index.stats().details["segments"]) == 1
    assert await recall(index) >= 0.945
    found = await index.search(vectors[-200:], 1)
    assert (found.keys[:, 0] >= ROWS - 200).mean() > 0.95


# -- memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "ivf_pq"])
async def test_where_the_gpu_has_no_room_the_cpu_does_it_or_the_recipe_says_no(
    kind: str, opened: Open, device: Callable[..., None], runtime: CudaRuntime
) -> None:
    await (await filled(await opened(kind))).close()
    small = Small(runtime._library)
    device(small, required=False)
    index = await opened(kind)
    assert "cuda" not in index.explain(10)
    assert await recall(index) >= 0.9
    await index.close()
    device(small)
    with pytest.raises(OutOfMemory, match="MiB are free"):
        await opened(kind)


async def test_a_closed_index_leaves_the_memory_as_it_was(
    opened: Open, device: Callable[..., None], runtime: CudaRuntime
) -> None:
    rows, dim = 200_000, 64
    await (await opened("flat", dim=dim, folder="first")).close()
    before = runtime.memory().free
    index = await opened("flat", dim=dim)
    await index.apply(batch_of(clustered(rows, dim=dim)), seq=1)
    await index.compact()
    taken = before - runtime.memory().free
    await index.close()
    assert 0 < taken <= flat_bytes(rows, dim) + SCRATCH_BYTES + 2**28
    assert before - runtime.memory().free < 2**28


def test_more_than_the_gpu_has_is_refused_before_anything_is_allocated(runtime: CudaRuntime) -> None:
    rows = runtime.memory().total // (DIM * 4) + 1
    cuda = CudaDevice(runtime, required=True)
    vectors = np.broadcast_to(np.zeros((1, DIM), np.float32), (rows, DIM))
    with pytest.raises(OutOfMemory):
        cuda.place("flat", vectors, Metric.L2, lambda: None)
    assert not runtime.memory().fits(graph_build_bytes(rows, DIM, degree=32))


# -- threads -------------------------------------------------------------------------------------------


def test_threads_may_ask_one_index_at_once(runtime: CudaRuntime) -> None:
    vectors = clustered(ROWS)
    placed = CudaDevice(runtime, required=True, least_floats=0).place(
        "flat", vectors, Metric.L2, lambda: None
    )
    assert placed is not None
    start = threading.Barrier(4)

    def ask(part: int) -> list[int]:
        start.wait()
        rows = range(part, 400, 4)
        return [int(placed.index.search(vectors[i : i + 1], 1, params=None)[1][0, 0]) for i in rows]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert found == [list(range(part, 400, 4)) for part in range(4)]

"""A recipe's ``device``: what it means on a machine without a GPU, and what a GPU's files are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from indexes.base import Metric, SearchParams
from indexes.conformance import DIM, batch_of, clustered, recall_of
from indexes.dense import kinds
from indexes.dense.cuda import CudaRuntime
from indexes.dense.devices import HOST, Host
from indexes.dense.faiss_gpu import open_device, without_gaps
from indexes.dense.faiss_hnsw import HnswBuilder
from indexes.dense.faiss_ivf import IvfBuilder
from indexes.dense.gpu_memory import (
    SCRATCH_BYTES,
    DeviceMemory,
    flat_bytes,
    graph_build_bytes,
    graph_bytes,
    ivf_bytes,
)
from indexes.dense.gpu_structures import translated
from indexes.dense.manifest import SegmentEntry, read_manifest
from indexes.dense.options import HnswOptions, IvfOptions
from indexes.directory import LocalDirectory
from ragstone.errors import BackendUnavailable, InvalidArgument, OutOfMemory

if TYPE_CHECKING:
    from indexes.dense.segmented import SegmentedIndex
    from tests.indexes.dense.conftest import Open, SetCosts

ROWS: Final = 3_000
EXACT: Final = SearchParams(exact=True)
GIB: Final = 2**30


@pytest.fixture
def no_gpu() -> None:
    runtime = CudaRuntime.loaded()
    if runtime is not None and not runtime.fault():
        pytest.skip("needs a machine without a CUDA device")


def only_segment(tmp_path: Path) -> SegmentEntry:
    manifest = read_manifest(LocalDirectory(tmp_path / "index"))
    assert manifest is not None
    (segment,) = manifest.segments
    return segment


async def filled(index: SegmentedIndex) -> SegmentedIndex:
    await index.apply(batch_of(clustered(ROWS)), seq=1)
    await index.compact()
    return index


async def recall(index: SegmentedIndex) -> float:
    queries = clustered(100, seed=31)
    exact = await index.search(queries, 10, params=EXACT)
    return recall_of(await index.search(queries, 10), list(exact.keys))


# -- the flag ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_a_machine_without_a_gpu_is_no_news(wanted: Any, no_gpu: None) -> None:
    with capture_logs() as logs:
        assert open_device(wanted) is HOST
    assert logs == []


def test_a_gpu_that_is_asked_for_and_missing_is_told_once_with_what_to_install(no_gpu: None) -> None:
    with capture_logs() as logs:
        assert open_device("cuda") is HOST
    (line,) = logs
    assert (line["log_level"], line["event"], line["wanted"]) == ("warning", "index_on_cpu", "cuda")
    assert line["missing"]
    assert "faiss-gpu" in line["hint"]


async def test_an_index_that_asks_for_a_missing_gpu_works_on_the_cpu(opened: Open, no_gpu: None) -> None:
    index = await filled(await opened("flat", device="cuda"))
    details = index.stats().details
    assert details["device"] == "cpu"
    assert [segment["device"] for segment in details["segments"]] == ["cpu"]
    assert await recall(index) == 1.0


async def test_an_unknown_device_is_refused(opened: Open) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await opened("hnsw", device="tpu")
    assert [violation.field for violation in caught.value.violations] == ["recipe.index.device"]


# -- cagra without a GPU -------------------------------------------------------------------------------


async def test_cagra_without_a_gpu_is_a_graph_of_the_cpu_and_says_so(opened: Open, no_gpu: None) -> None:
    index = await filled(await opened("cagra"))
    (segment,) = index.stats().details["segments"]
    assert (segment["kind"], segment["device"]) == ("cagra", "cpu")
    assert segment["why"] == "the recipe says so; built on the CPU, for there is no GPU with CAGRA"


async def test_cagra_without_a_gpu_survives_a_restart_with_its_recall(
    opened: Open, set_costs: SetCosts, tmp_path: Path, no_gpu: None
) -> None:
    index = await filled(await opened("cagra", recall_target=0.95))
    before = await index.search(clustered(20, seed=3), 10)
    await index.close()
    set_costs(LocalDirectory(tmp_path / "index"), scan_us=1e9)
    index = await opened("cagra")
    after = await index.search(clustered(20, seed=3), 10)
    assert " walks with effort " in index.explain(10)
    assert after.scores.tolist() == before.scores.tolist()
    assert await recall(index) >= 0.945


async def test_a_graph_of_the_kind_cagra_scores_as_a_scan_does(
    opened: Open, set_costs: SetCosts, tmp_path: Path
) -> None:
    index = await filled(await opened("cagra", metric=Metric.L2, ef_search=200))
    await index.close()
    set_costs(LocalDirectory(tmp_path / "index"), scan_us=1e9)
    index = await opened("cagra", metric=Metric.L2)
    query = clustered(1, seed=5)
    walked, scanned = await index.search(query, 10), await index.search(query, 10, params=EXACT)
    assert walked.keys.tolist() == scanned.keys.tolist()
    assert walked.scores.tolist() == scanned.scores.tolist()


# -- files of a GPU ------------------------------------------------------------------------------------


async def test_8_bit_codes_such_as_a_gpu_builds_are_served_by_the_cpu(
    opened: Open, set_costs: SetCosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "open_device", lambda wanted: Host(code_bits=8))
    await (await filled(await opened("ivf_pq"))).close()
    monkeypatch.undo()
    segment = only_segment(tmp_path)
    file = tmp_path / "index" / f"{segment.name}.index"
    assert segment.shape["code_bits"] == 8
    assert isinstance(faiss.read_index(str(file)), faiss.IndexIVFPQ)
    set_costs(LocalDirectory(tmp_path / "index"), scan_us=1e9)
    index = await opened("ivf_pq")
    assert " walks with effort " in index.explain(10)
    assert await recall(index) >= 0.97


@pytest.mark.parametrize(("dim", "codes"), [(24, 24), (384, 96), (768, 96), (1_024, 64), (100, 20)])
def test_8_bit_codes_take_as_many_bytes_as_a_gpu_can_hold(dim: int, codes: int) -> None:
    index = built(dim)
    assert (type(index), index.pq.M, index.pq.nbits) == (faiss.IndexIVFPQ, codes, 8)


@pytest.mark.parametrize("dim", [37, 101])
def test_a_dimension_that_cannot_be_cut_for_a_gpu_gets_4_bit_codes(dim: int) -> None:
    assert isinstance(built(dim), faiss.IndexIVFPQFastScan)


def built(dim: int) -> Any:
    options = IvfOptions(nlist=4)
    vectors = clustered(1_024, dim=dim)
    return IvfBuilder("ivf_pq", options, Host(code_bits=8)).empty(vectors, Metric.COSINE)


def test_a_graph_that_a_gpu_is_to_build_may_be_built_by_the_cpu_after_all() -> None:
    """A GPU that has no room leaves the index empty, and the CPU inserts into the same one."""
    vectors = clustered(1_500)
    builder = HnswBuilder(HnswOptions(storage="float32"), Host(builds_graphs=True))
    index = builder.empty(vectors, Metric.L2)
    builder.finish(index, vectors, Metric.L2, known=None, cancelled=lambda: False)
    assert isinstance(index, faiss.IndexHNSWCagra)
    assert index.search(vectors[:50], 1)[1][:, 0].tolist() == list(range(50))


def test_a_graph_without_gaps_has_none_until_it_is_copied() -> None:
    index = faiss.IndexHNSWCagra(DIM, 16, faiss.METRIC_L2)
    index.add(clustered(20))
    lowest = (faiss.vector_to_array(index.hnsw.offsets)[:-1, None] + np.arange(32)).astype(np.int64)
    before = faiss.vector_to_array(index.hnsw.neighbors)[lowest]
    with without_gaps(index):
        within = faiss.vector_to_array(index.hnsw.neighbors)[lowest]
    assert (before < 0).any()
    assert ((within >= 0) & (within < 20)).all()
    assert (within == before)[before >= 0].all()
    assert (faiss.vector_to_array(index.hnsw.neighbors)[lowest] == before).all()


# -- memory --------------------------------------------------------------------------------------------

sizes = st.integers(1, 10**8)
dims = st.integers(1, 4_096)


@given(rows=sizes, dim=dims)
def test_the_plan_is_never_less_than_the_numbers_themselves(rows: int, dim: int) -> None:
    assert flat_bytes(rows, dim) >= rows * dim * 4
    assert ivf_bytes(rows, dim, lists=10, code_bytes=dim * 4) >= rows * (dim * 4 + 8)
    assert graph_bytes(rows, dim, degree=32) >= rows * (dim + 32) * 4
    assert graph_build_bytes(rows, dim, degree=32) > graph_bytes(rows, dim, degree=32)


@given(free=st.integers(0, 200 * GIB), used=st.integers(0, 200 * GIB), needed=st.integers(0, 400 * GIB))
def test_what_fits_leaves_a_reserve(free: int, used: int, needed: int) -> None:
    memory = DeviceMemory(free=free, total=free + used)
    left = free - needed - SCRATCH_BYTES
    assert memory.fits(needed) == (left >= max(GIB // 2, int(0.1 * memory.total)))


def test_a_million_vectors_fit_on_a_gpu_of_16_gib_and_a_hundred_million_do_not() -> None:
    memory = DeviceMemory(free=15 * GIB, total=16 * GIB)
    assert memory.fits(graph_build_bytes(1_000_000, 384, degree=32))
    assert not memory.fits(flat_bytes(100_000_000, 384))
    assert memory.fits(ivf_bytes(50_000_000, 384, lists=7_000, code_bytes=96))


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError(
            "Error in allocMemory: alloc fail type FlatData dev 0 (cudaMalloc error out of memory [2])"
        ),
        RuntimeError("std::bad_alloc: out_of_memory: CUDA error at device_memory_resource.hpp"),
        MemoryError("std::bad_alloc"),
    ],
)
def test_whatever_way_faiss_runs_out_of_memory_it_is_one_typed_error(failure: Exception) -> None:
    with pytest.raises(OutOfMemory) as caught, translated():
        raise failure
    assert caught.value.__cause__ is failure


def test_any_other_failure_of_a_gpu_says_what_faiss_says() -> None:
    with pytest.raises(BackendUnavailable, match="no kernel image"), translated():
        raise RuntimeError("CUDA error 209 no kernel image is available for execution on the device")

"""How one segment plans a search: by what it was told that walks and scans cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import faiss
import numpy as np
import pytest

from indexes.base import Metric, SearchParams, Vectors
from indexes.conformance import DIM, clustered
from indexes.dense import faiss_hnsw
from indexes.dense.approximate import ApproximateIndex
from indexes.dense.kinds import STRUCTURES, open_kind
from indexes.dense.manifest import Point, Tuning
from indexes.dense.rows import RowSet
from indexes.dense.structures import Plan
from indexes.dense.vectors import prepare_queries

ROWS: Final = 1_000
NONE: Final = SearchParams()
TUNING: Final = Tuning(
    effort=20,
    oversampling=4,
    rows=ROWS,
    recall=0.99,
    target=0.98,
    scan_us=0.1,
    curve=(Point(effort=10, recall=0.9, us=10), Point(effort=20, recall=0.99, us=18)),
)
"""A walk of the effort 20 costs as much as a scan of 180 rows."""


def built(
    kind: str,
    tuning: Tuning,
    *,
    vectors: Vectors | None = None,
    metric: Metric = Metric.COSINE,
    **options: str,
) -> ApproximateIndex:
    if vectors is None:
        vectors = prepare_queries(clustered(ROWS), dim=DIM, metric=metric)
    builder, _ = open_kind(kind, options).form(*vectors.shape)
    assert builder != "flat"
    structure = builder.empty(vectors, metric)
    builder.finish(structure, vectors, metric, known=None, cancelled=lambda: False)
    return ApproximateIndex(STRUCTURES[kind](structure), vectors, metric, tuning)


@pytest.fixture(scope="module", params=["hnsw", "ivf_flat", "ivf_pq"])
def index(request: pytest.FixtureRequest) -> ApproximateIndex:
    """A structure of each kind, with hand-made costs."""
    return built(request.param, TUNING)


def first(count: int) -> RowSet:
    """The first ``count`` rows."""
    return RowSet(np.arange(ROWS) < count)


def test_all_rows_are_walked_with_the_tuned_effort(index: ApproximateIndex) -> None:
    assert index.plan(10, None, NONE) == Plan(20, ROWS)
    assert index.plan(10, first(ROWS), NONE) == Plan(20, ROWS)


def test_few_allowed_rows_are_scanned(index: ApproximateIndex) -> None:
    assert index.plan(10, first(100), NONE) == Plan(None, 100)
    assert index.plan(10, first(0), NONE) == Plan(None, 0)


def test_many_allowed_rows_are_walked_with_more_effort_than_all(index: ApproximateIndex) -> None:
    plan = index.plan(10, first(800), NONE)
    assert plan.rows == 800
    assert plan.effort is not None
    assert plan.effort > 20


def test_the_fewer_rows_count_the_wider_is_the_walk(index: ApproximateIndex) -> None:
    plans = [index.plan(10, first(count), NONE) for count in (950, 800, 650, 500)]
    efforts = [plan.effort for plan in plans if plan.effort is not None]
    assert efforts == sorted(efforts)
    assert len(efforts) == 4


def test_exact_search_always_scans(index: ApproximateIndex) -> None:
    assert index.plan(10, None, SearchParams(exact=True, effort=1)) == Plan(None, ROWS)


def test_a_search_for_all_rows_that_count_scans_them(index: ApproximateIndex) -> None:
    assert index.plan(ROWS, None, SearchParams(effort=1)) == Plan(None, ROWS)
    assert index.plan(900, first(900), SearchParams(effort=1)) == Plan(None, 900)


def test_the_effort_of_a_search_goes_before_the_tuned_one(index: ApproximateIndex) -> None:
    assert index.plan(10, None, SearchParams(effort=13)) == Plan(13, ROWS)
    # At this effort a scan of all rows costs less.
    assert index.plan(10, None, SearchParams(effort=500)) == Plan(None, ROWS)


def test_what_is_planned_as_a_scan_is_exact(index: ApproximateIndex) -> None:
    queries = prepare_queries(clustered(5, seed=2), dim=DIM, metric=Metric.COSINE)
    found = index.search(queries, 10, first(100), NONE)
    exact = index.search(queries, 10, first(100), SearchParams(exact=True))
    assert found.keys.tolist() == exact.keys.tolist()
    assert found.scores.tolist() == exact.scores.tolist()


@pytest.mark.parametrize(("effort", "us"), [(10, 10), (15, 14), (20, 18), (40, 36), (5, 10)])
def test_the_cost_of_a_walk_lies_between_its_points_and_grows_beyond_them(effort: int, us: float) -> None:
    assert TUNING.walk_us(effort) == pytest.approx(us)


@pytest.mark.parametrize(("recall", "target"), [(0.5, 0.98), (0.95, 0.98)])
def test_where_no_effort_comes_near_the_target_all_rows_are_scanned(recall: float, target: float) -> None:
    short = built("hnsw", TUNING.model_copy(update={"recall": recall, "target": target}))
    assert short.plan(10, None, NONE) == Plan(None, ROWS)
    assert short.plan(10, first(800), NONE) == Plan(None, 800)
    assert short.plan(10, None, SearchParams(effort=10)) == Plan(10, ROWS)


@pytest.mark.parametrize(("recall", "target"), [(0.97, 0.98), (0.5, None)])
def test_a_target_that_is_nearly_reached_or_none_is_walked_for(recall: float, target: float | None) -> None:
    near = built("hnsw", TUNING.model_copy(update={"recall": recall, "target": target}))
    assert near.plan(10, None, NONE) == Plan(20, ROWS)


# -- scores ------------------------------------------------------------------------------------------


@pytest.fixture(params=["AVX2", "AVX512"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """FAISS with the kernels of one sort of CPU, where this one has them."""
    level = getattr(faiss, f"SIMDLevel_{request.param}")
    before = faiss.SIMDConfig.get_level()
    if not faiss.SIMDConfig.is_simd_level_available(level) or level > before:
        pytest.skip(f"this CPU has no {request.param}")
    faiss_hnsw.walks_score_as_scans.cache_clear()
    faiss.SIMDConfig.set_level(level)
    yield request.param
    faiss.SIMDConfig.set_level(before)
    faiss_hnsw.walks_score_as_scans.cache_clear()


@pytest.mark.parametrize("metric", Metric)
def test_a_row_scores_the_same_to_the_last_bit_whether_a_walk_found_it_or_a_scan(
    kernels: str, metric: Metric
) -> None:
    vectors = prepare_queries(clustered(ROWS, dim=100), dim=100, metric=metric)
    index = built("hnsw", TUNING, vectors=vectors, metric=metric, storage="float32")
    walked = index.search(vectors[:50], 5, None, NONE)
    scanned = index.search(vectors[:50], 5, None, SearchParams(exact=True))
    same = walked.keys == scanned.keys
    assert same.mean() > 0.8
    assert np.array_equal(walked.scores[same], scanned.scores[same])

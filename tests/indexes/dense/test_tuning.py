"""From a recall target to the effort of a segment: what is measured, chosen and kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import faiss
import numpy as np
import pytest

from indexes.base import Metric, Neighbours, SearchParams, Vectors
from indexes.conformance import DIM, batch_of, clustered, recall_of
from indexes.dense.approximate import ApproximateIndex
from indexes.dense.exact import ExactIndex
from indexes.dense.faiss_ivf import IvfStructure
from indexes.dense.kinds import STRUCTURES, open_kind
from indexes.dense.manifest import SegmentEntry, Tuning, read_manifest
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.structures import Structure
from indexes.dense.tuning import recall_of as recall_beside_itself
from indexes.dense.tuning import sample, tune
from indexes.dense.vectors import prepare_queries
from indexes.directory import LocalDirectory

if TYPE_CHECKING:
    from tests.indexes.dense.conftest import Open, SetCosts

ROWS: Final = 8_000
TARGETS: Final = (0.9, 0.95, 0.99)
SLACK: Final = 0.005
EXACT: Final = SearchParams(exact=True)
FAST: Final[dict[str, dict[str, Any]]] = {
    "hnsw": {"m": 8, "ef_construction": 40},
    "ivf_flat": {},
    "ivf_pq": {},
}
"""Options that build quickly, and not so well that every effort reaches every target."""


def segment(tmp_path: Path) -> SegmentEntry:
    """What the manifest says of the only segment."""
    manifest = read_manifest(LocalDirectory(tmp_path / "index"))
    assert manifest is not None
    (only,) = manifest.segments
    return only


def tuning_of(tmp_path: Path) -> Tuning:
    tuning = segment(tmp_path).tuning
    assert tuning is not None
    return tuning


@cache
def unseen() -> Vectors:
    """Queries that are no rows."""
    return clustered(300, seed=31)


async def recall(index: SegmentedIndex) -> float:
    """Recall@10 of queries that are asked one by one, as those of different callers."""
    exact = await index.search(unseen(), 10, params=EXACT)
    found = [await index.search(unseen()[i : i + 1], 10) for i in range(len(unseen()))]
    together = Neighbours(
        np.concatenate([one.keys for one in found]), np.concatenate([one.scores for one in found])
    )
    return recall_of(together, list(exact.keys))


# -- an index ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", FAST)
async def test_queries_that_no_segment_knows_reach_the_target(
    kind: str, target: float, opened: Open, set_costs: SetCosts, tmp_path: Path
) -> None:
    index = await opened(kind, recall_target=target, **FAST[kind])
    await index.apply(batch_of(clustered(ROWS)), seq=1)
    await index.compact()
    await index.close()
    set_costs(LocalDirectory(tmp_path / "index"), scan_us=1e9)
    index = await opened(kind)
    assert " walks with effort " in index.explain(10)
    assert await recall(index) >= target - SLACK


@pytest.mark.parametrize("late", [1, 20, 1_000])
@pytest.mark.parametrize("kind", FAST)
async def test_rows_that_are_merged_in_do_not_cost_the_target(
    kind: str, late: int, opened: Open, set_costs: SetCosts, tmp_path: Path
) -> None:
    index, vectors = await opened(kind, recall_target=0.99, **FAST[kind]), clustered(ROWS)
    early = ROWS - late
    await index.apply(batch_of(vectors[:early]), seq=1)
    await index.compact()
    await index.apply(batch_of(vectors[early:], first=early), seq=2)
    await index.compact()
    await index.close()
    assert segment(tmp_path).rows == ROWS
    set_costs(LocalDirectory(tmp_path / "index"), scan_us=1e9)
    assert await recall(await opened(kind)) >= 0.99 - SLACK


@pytest.mark.parametrize("kind", FAST)
async def test_a_merge_of_many_rows_tunes_again(kind: str, opened: Open, tmp_path: Path) -> None:
    index = await opened(kind, **FAST[kind])
    await index.apply(batch_of(clustered(1_000)), seq=1)
    await index.compact()
    before = tuning_of(tmp_path)
    await index.apply(batch_of(clustered(ROWS)[1_000:], first=1_000), seq=2)
    await index.compact()
    measured = [(point.effort, point.recall) for point in tuning_of(tmp_path).curve]
    assert measured != [(point.effort, point.recall) for point in before.curve]


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq"])
async def test_an_inverted_file_that_grew_is_as_good_as_one_built_at_once(
    kind: str, opened: Open, tmp_path: Path
) -> None:
    vectors = clustered(ROWS)
    index, first = await opened(kind), 0
    for seq, end in enumerate((100, 500, 2_500, ROWS), start=1):
        await index.apply(batch_of(vectors[first:end], first=first), seq=seq)
        await index.compact()
        first = end
    grown = segment(tmp_path)
    lists = faiss.read_index(str(tmp_path / "index" / f"{grown.name}.index")).nlist
    at_once = await opened(kind, folder="at-once")
    await at_once.apply(batch_of(vectors), seq=1)
    await at_once.compact()
    assert grown.rows == ROWS
    assert lists**2 >= ROWS / 4
    assert tuning_of(tmp_path).recall >= at_once.stats().details["segments"][0]["recall"] - 0.02


async def test_a_higher_target_picks_a_greater_effort_for_each_segment(opened: Open) -> None:
    efforts: dict[float, int] = {}
    for target in (0.6, 0.999):
        index = await opened("hnsw", folder=str(target), recall_target=target, **FAST["hnsw"])
        await index.apply(batch_of(clustered(ROWS)), seq=1)
        await index.compact()
        efforts[target] = index.stats().details["segments"][0]["effort"]
    assert efforts[0.6] < efforts[0.999]


@pytest.mark.parametrize("kind", FAST)
async def test_what_was_measured_is_kept_with_the_segment(kind: str, opened: Open, tmp_path: Path) -> None:
    index = await opened(kind, recall_target=0.9, **FAST[kind])
    await index.apply(batch_of(clustered(1_000)), seq=1)
    await index.compact()
    tuning = tuning_of(tmp_path)
    efforts = [point.effort for point in tuning.curve]
    assert efforts == sorted(set(efforts))
    assert (tuning.effort, tuning.recall) in {(point.effort, point.recall) for point in tuning.curve}
    assert tuning.target == 0.9
    await index.close()
    # What the options say now is for the segments to come.
    index = await opened(kind, recall_target=0.99)
    described = index.stats().details["segments"][0]
    assert (described["effort"], described["recall"]) == (tuning.effort, tuning.recall)
    await index.checkpoint()
    assert tuning_of(tmp_path) == tuning


@pytest.mark.parametrize(
    ("kind", "option"), [("hnsw", "ef_search"), ("ivf_flat", "nprobe"), ("ivf_pq", "nprobe")]
)
async def test_a_fixed_effort_is_measured_and_taken(
    kind: str, option: str, opened: Open, set_costs: SetCosts, tmp_path: Path
) -> None:
    fixed: dict[str, Any] = {option: 21}
    index = await opened(kind, **fixed)
    await index.apply(batch_of(clustered(1_000)), seq=1)
    await index.compact()
    await index.close()
    tuning = tuning_of(tmp_path)
    assert (tuning.effort, tuning.target) == (21, None)
    assert [point.effort for point in tuning.curve] == [21]
    set_costs(LocalDirectory(tmp_path / "index"), scan_us=1e9)
    assert (await opened(kind)).explain(10).endswith("walks with effort 21")


# -- the measuring -------------------------------------------------------------------------------------


def structure(kind: str, vectors: Vectors, target: float) -> tuple[Structure, Tuning]:
    """A structure over ``vectors``, and what its builder measured."""
    builder = open_kind(kind, {"recall_target": target, **FAST[kind]}).form(*vectors.shape)[0]
    assert builder != "flat"
    index = builder.empty(vectors, Metric.COSINE)
    tuned = builder.finish(index, vectors, Metric.COSINE, known=None, cancelled=lambda: False)
    return STRUCTURES[kind](index), tuned.cpu


@pytest.mark.parametrize("kind", ["hnsw", "ivf_flat"])
def test_the_chosen_effort_is_the_cheapest_that_reaches_the_target(kind: str) -> None:
    vectors = prepare_queries(clustered(ROWS), dim=DIM, metric=Metric.COSINE)
    _, tuning = structure(kind, vectors, 0.95)
    assert tuning.recall >= 0.95
    assert all(point.recall < tuning.recall for point in tuning.curve if point.effort < tuning.effort)


@pytest.mark.parametrize("kind", FAST)
def test_the_measured_recall_is_what_single_queries_see(kind: str) -> None:
    dim = 128
    vectors = prepare_queries(clustered(ROWS, dim=dim), dim=dim, metric=Metric.COSINE)
    queries = prepare_queries(clustered(200, dim=dim, seed=31), dim=dim, metric=Metric.COSINE)
    found, tuning = structure(kind, vectors, 0.9)
    index = ApproximateIndex(found, vectors, Metric.COSINE, tuning.model_copy(update={"scan_us": 1e9}))
    truth = ExactIndex(vectors, Metric.COSINE).search(queries, 10, None, EXACT)
    hits = [
        np.isin(index.search(queries[i : i + 1], 10, None, SearchParams()).keys[0], truth.keys[i]).sum()
        for i in range(len(queries))
    ]
    assert tuning.recall == pytest.approx(sum(hits) / truth.keys.size, abs=0.05)


@pytest.mark.parametrize("kind", ["hnsw", "ivf_flat"])
def test_a_wider_search_finds_more(kind: str) -> None:
    vectors = prepare_queries(clustered(ROWS), dim=DIM, metric=Metric.COSINE)
    queries = prepare_queries(unseen(), dim=DIM, metric=Metric.COSINE)
    found, tuning = structure(kind, vectors, 0.9)
    index = ApproximateIndex(found, vectors, Metric.COSINE, tuning.model_copy(update={"scan_us": 1e9}))
    exact = list(index.search(queries, 10, None, EXACT).keys)
    narrow = recall_of(index.search(queries, 10, None, SearchParams(effort=2)), exact)
    wide = recall_of(index.search(queries, 10, None, SearchParams(effort=200)), exact)
    assert narrow < wide
    assert wide >= 0.99


class FewLists(IvfStructure):
    """An inverted file of which no search reads more than three lists."""

    def efforts(self) -> Sequence[int]:
        return 1, 2, 3


def test_where_no_effort_reaches_the_target_the_best_is_taken() -> None:
    vectors = prepare_queries(clustered(ROWS), dim=DIM, metric=Metric.COSINE)
    found, _ = structure("ivf_flat", vectors, 0.9)
    tuning = tune(
        FewLists(found.index), vectors, Metric.COSINE, sample(0, ROWS), target=0.999, shards=1, effort=None
    ).cpu
    assert (tuning.effort, tuning.recall) == (3, max(point.recall for point in tuning.curve))
    assert tuning.recall < 0.999


def test_between_two_steps_the_smaller_effort_that_reaches_the_target_is_looked_for() -> None:
    # Without clusters a search has to read many lists.
    vectors = np.random.default_rng(7).standard_normal((ROWS, DIM), dtype=np.float32)
    found, tuning = structure("ivf_flat", prepare_queries(vectors, dim=DIM, metric=Metric.COSINE), 0.9)
    below = max(point.effort for point in tuning.curve if point.effort < tuning.effort)
    assert tuning.effort - below <= max(4, tuning.effort // 16)
    assert {point.effort for point in tuning.curve} - set(found.efforts())


@pytest.mark.parametrize(
    ("first", "rows", "expected"), [(0, 10_000, 400), (0, 500, 50), (2_000, 2_100, 10), (90, 99, 0)]
)
def test_the_sample_is_a_tenth_of_the_new_rows_and_no_more_than_400(
    first: int, rows: int, expected: int
) -> None:
    chosen = sample(first, rows)
    assert len(chosen) == expected
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert ((first <= chosen) & (chosen < rows)).all()


def test_a_row_that_asks_is_not_its_own_neighbour_and_equal_scores_count_alike() -> None:
    vectors = np.repeat(np.eye(DIM, dtype=np.float32)[:4], 5, axis=0)
    truth = ExactIndex(vectors, Metric.COSINE).search(vectors[:1], 11, None, EXACT)
    # Row 0 asks; rows 1 to 4 equal it, and all others score 0, so that any of them will do.
    found = np.array([[0, 4, 3, 2, 1, 19, 18, 17, 16, 15, 14]])
    scores = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]], np.float32)
    itself = np.array([0])
    assert recall_beside_itself(Neighbours(found, scores), truth, itself, 10) == 1.0
    few = Neighbours(np.where(found > 4, -1, found), np.where(found > 4, -np.inf, scores))
    assert recall_beside_itself(few, truth, itself, 10) == 0.4

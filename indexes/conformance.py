"""What every ``VectorIndex`` must do, as checks that any test runner can call.

A check gets a ``Subject``, whose ``open`` opens the index in one place, empty the first time; called again
after ``close`` it opens the same one. The checks of lexical indexes are in ``indexes.lexical.conformance``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64

from indexes.base import (
    Keys,
    Metric,
    Neighbours,
    SearchParams,
    VectorBatch,
    VectorIndex,
    Vectors,
)
from ragstone.errors import InvalidArgument

DIM: Final = 24
NONE: Final[Keys] = np.empty(0, dtype=np.int64)

Opener: TypeAlias = Callable[[], Awaitable[VectorIndex]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An index under test: of dimension ``DIM``, empty when first opened.

    ``recall`` is the share of true neighbours that it declares to find; 1 is an exact index.
    """

    open: Opener
    metric: Metric = Metric.COSINE
    recall: float = 1.0


Check: TypeAlias = Callable[[Subject], Awaitable[None]]

# -- data and truth ------------------------------------------------------------------------------------


def clustered(count: int, *, dim: int = DIM, seed: int = 0) -> Vectors:
    """Vectors that lie as those of texts do, in clusters with a few strong directions: ``(count, dim)``.

    A smaller ``count`` gives the first rows of a larger one.
    """
    strength = 1 / np.sqrt(np.arange(1, dim + 1))
    topics = np.random.default_rng(42).normal(size=(64, dim)) * strength
    noise = np.random.default_rng((seed, 0)).normal(size=(count, dim)) * strength
    topic = np.random.default_rng((seed, 1)).integers(0, len(topics), count)
    return (topics[topic] + 0.6 * noise).astype(np.float32)


def batch_of(vectors: Vectors, *, first: int = 0, deleted: Keys = NONE) -> VectorBatch:
    """``vectors`` under the keys ``first``, ``first + 1``, and so on."""
    return VectorBatch(np.arange(first, first + len(vectors)), vectors, np.asarray(deleted, dtype=np.int64))


def removal_of(*keys: int) -> VectorBatch:
    """A batch that only deletes."""
    return batch_of(np.empty((0, DIM), np.float32), deleted=np.asarray(keys, dtype=np.int64))


def true_neighbours(model: Mapping[int, NDArray[np.float32]], query: Vectors, k: int, metric: Metric) -> Keys:
    """The best ``k`` keys of ``model`` for ``query`` ``(dim,)`` by brute force in double precision."""
    keys = np.fromiter(sorted(model), np.int64, len(model))
    if not len(keys):
        return keys
    vectors = np.array([model[key] for key in keys.tolist()], dtype=np.float64)
    wanted = query.astype(np.float64)
    if metric is Metric.L2:
        scores = -((vectors - wanted) ** 2).sum(axis=1)
    else:
        scores = vectors @ wanted
        if metric is Metric.COSINE:
            scores = scores / np.linalg.norm(vectors, axis=1) / np.linalg.norm(wanted)
    # Float32 cannot tell scores apart that are closer than this; then the key decides.
    return keys[np.lexsort((keys, -np.round(scores, 6)))[:k]]


def recall_of(found: Neighbours, truth: list[Keys]) -> float:
    """The share of the true neighbours that stand in their row; where there are none, all of them."""
    truth = [row[row >= 0] for row in truth]
    hits = sum(len(np.intersect1d(row, true)) for row, true in zip(found.keys, truth, strict=True))
    total = sum(map(len, truth))
    return hits / total if total else 1.0


async def _filled(subject: Subject, count: int = 300) -> tuple[VectorIndex, dict[int, Vectors]]:
    index, vectors = await subject.open(), clustered(count)
    await index.apply(batch_of(vectors), seq=1)
    return index, dict(enumerate(vectors))


async def _agrees(
    subject: Subject, index: VectorIndex, model: Mapping[int, Vectors], *, allow: BitMap64 | None = None
) -> None:
    """Exact search finds just what brute force finds."""
    allowed = {key: vector for key, vector in model.items() if allow is None or key in allow}
    queries = clustered(5, seed=7)
    found = await index.search(queries, 10, allow=allow, params=SearchParams(exact=True))
    for row, query in zip(found.keys, queries, strict=True):
        truth = true_neighbours(allowed, query, 10, subject.metric)
        assert row.tolist() == truth.tolist() + [-1] * (10 - len(truth))


# -- searching -----------------------------------------------------------------------------------------


async def an_empty_index_finds_nothing(subject: Subject) -> None:
    """Nothing applied: position 0, no hits, only padding."""
    index = await subject.open()
    found = await index.search(clustered(2), 3)
    assert index.applied_seq == 0
    assert found.keys.tolist() == [[-1] * 3] * 2
    assert np.isneginf(found.scores).all()
    assert index.stats().live == 0
    await index.close()


async def k_beyond_all_keys_is_padded(subject: Subject) -> None:
    """Rows are always ``k`` long, of the declared types."""
    index, _ = await _filled(subject, 5)
    found = await index.search(clustered(3, seed=1), 8)
    assert found.keys.shape == found.scores.shape == (3, 8)
    assert found.keys.dtype == np.int64
    assert found.scores.dtype == np.float32
    assert [sorted(row) for row in found.keys[:, :5].tolist()] == [[0, 1, 2, 3, 4]] * 3
    assert (found.keys[:, 5:] == -1).all()
    assert np.isneginf(found.scores[:, 5:]).all()
    await index.close()


async def no_queries_have_no_answers(subject: Subject) -> None:
    """Zero rows in, zero rows out."""
    index, _ = await _filled(subject, 5)
    found = await index.search(np.empty((0, DIM), np.float32), 4)
    assert found.keys.shape == found.scores.shape == (0, 4)
    await index.close()


async def the_best_come_first_and_ties_by_key(subject: Subject) -> None:
    """Scores never rise along a row, and equal vectors stand in the order of their keys."""
    index = await subject.open()
    one, other = clustered(2)
    keys = np.array([9, 4, 7, 1, 3, 8])
    await index.apply(VectorBatch(keys, np.stack([one, one, other, one, other, one]), NONE), seq=1)
    found = await index.search(one[None], 6)
    assert found.keys[0].tolist() == [1, 4, 8, 9, 3, 7]
    assert (np.diff(found.scores[0]) <= 0).all()
    few = await index.search(one[None], 2)
    assert few.keys[0].tolist() == [1, 4]
    await index.close()


async def scores_are_those_of_the_metric(subject: Subject) -> None:
    """Higher is better: a cosine, an inner product, a negated squared distance."""
    index, model = await _filled(subject, 50)
    query = clustered(1, seed=3)[0]
    found = await index.search(query[None], 50)
    for key, score in zip(found.keys[0].tolist(), found.scores[0].tolist(), strict=True):
        vector = model[key].astype(np.float64)
        expected = float(vector @ query)
        if subject.metric is Metric.COSINE:
            expected /= float(np.linalg.norm(vector) * np.linalg.norm(query))
        if subject.metric is Metric.L2:
            expected = -float(((vector - query) ** 2).sum())
        assert abs(score - expected) <= 1e-4 * max(1.0, abs(expected))
    await index.close()


async def a_row_scores_the_same_alone_and_in_a_batch(subject: Subject) -> None:
    """Scores do not depend on what is asked beside; what an exact index finds does not either."""
    index, _ = await _filled(subject)
    queries = clustered(9, seed=5)
    together, common = await index.search(queries, 10), 0
    for row in range(len(queries)):
        alone = await index.search(queries[row : row + 1], 10)
        scores = dict(_pairs(together, row))
        same = [(key, score) for key, score in _pairs(alone, 0) if key in scores]
        assert all(scores[key] == score for key, score in same)
        common += len(same)
    # Two answers that each miss some neighbours may miss different ones.
    assert common >= (2 * subject.recall - 1) * together.keys.size
    await index.close()


def _pairs(found: Neighbours, row: int) -> list[tuple[int, float]]:
    return list(zip(found.keys[row].tolist(), found.scores[row].tolist(), strict=True))


async def a_filter_leaves_only_what_it_allows(subject: Subject) -> None:
    """Filtered exact search equals brute force over the allowed keys; unknown keys allow nothing."""
    index, model = await _filled(subject)
    await index.apply(removal_of(*range(0, 300, 3)), seq=2)
    live = {key: vector for key, vector in model.items() if key % 3}
    for allow in (BitMap64([1]), BitMap64(range(100, 400)), BitMap64(range(0, 300, 2)), BitMap64()):
        await _agrees(subject, index, live, allow=allow)
        found = await index.search(clustered(3, seed=2), 20, allow=allow)
        assert all(key in allow for key in found.keys[found.keys >= 0].tolist())
    await index.close()


async def exact_search_is_the_truth(subject: Subject) -> None:
    """``SearchParams.exact`` equals brute force over everything that was applied."""
    index, model = await _filled(subject, 1_000)
    await _agrees(subject, index, model)
    await index.close()


async def recall_is_what_was_declared(subject: Subject) -> None:
    """Recall@10 over some thousand clustered vectors, in several batches, reaches ``subject.recall``."""
    index, vectors = await subject.open(), clustered(4_000)
    for seq, start in enumerate(range(0, 4_000, 500), start=1):
        await index.apply(batch_of(vectors[start : start + 500], first=start), seq=seq)
    queries = clustered(100, seed=11)
    found = await index.search(queries, 10)
    exact = await index.search(queries, 10, params=SearchParams(exact=True))
    assert recall_of(found, list(exact.keys)) >= subject.recall
    await index.close()


# -- applying ------------------------------------------------------------------------------------------


async def applying_again_changes_nothing(subject: Subject) -> None:
    """A batch at or below ``applied_seq`` is ignored."""
    index, model = await _filled(subject)
    await index.apply(removal_of(*model), seq=1)
    await index.apply(batch_of(clustered(5, seed=9), first=1_000), seq=0)
    assert index.applied_seq == 1
    assert index.stats().live == len(model)
    await _agrees(subject, index, model)
    await index.close()


async def a_deleted_key_is_gone_at_once(subject: Subject) -> None:
    """The next search does not see it; deleting what is not there is no error."""
    index, model = await _filled(subject)
    gone = [0, 17, 299]
    await index.apply(removal_of(*gone, 12_345), seq=2)
    found = await index.search(np.stack([model[key] for key in gone]), 300)
    assert not set(gone) & set(found.keys.ravel().tolist())
    assert (found.keys >= 0).sum(axis=1).tolist() == [297] * 3
    assert index.stats().live == 297
    await index.close()


async def a_deleted_key_can_come_back(subject: Subject) -> None:
    """Delete, then add again, in two batches and in one; it is there once, with its new vector."""
    index, model = await _filled(subject, 30)
    fresh = clustered(2, seed=21)
    await index.apply(removal_of(3), seq=2)
    await index.apply(VectorBatch(np.array([3]), fresh[:1], NONE), seq=3)
    await index.apply(VectorBatch(np.array([4]), fresh[1:], np.array([4])), seq=4)
    model[3], model[4] = fresh
    found = await index.search(fresh, 30)
    assert [sorted(row) for row in found.keys.tolist()] == [sorted(model)] * 2
    await _agrees(subject, index, model)
    await index.close()


async def a_key_applied_twice_is_there_once(subject: Subject) -> None:
    """A later batch may bring a live key again, as a replay of the journal does."""
    index, model = await _filled(subject, 60)
    await index.apply(batch_of(clustered(60)[20:40], first=20), seq=2)
    found = await index.search(clustered(1, seed=1), 100)
    assert sorted(key for key in found.keys[0].tolist() if key >= 0) == sorted(model)
    assert index.stats().live == 60
    await index.close()


async def a_wrong_batch_leaves_no_trace(subject: Subject) -> None:
    """Wrong dimension, NaN, infinity: InvalidArgument, nothing visible, and the next batch is welcome."""
    index, model = await _filled(subject, 20)
    wrong = [np.zeros((2, DIM + 1), np.float32) + 1, clustered(2), clustered(2), clustered(3)]
    wrong[1][1, 3], wrong[2][0, 0] = np.nan, np.inf
    for vectors in wrong:
        try:
            await index.apply(VectorBatch(np.array([500, 501]), vectors, np.array([1])), seq=2)
        except InvalidArgument:
            continue
        raise AssertionError("a wrong batch was accepted")
    assert index.applied_seq == 1
    await _agrees(subject, index, model)
    await index.apply(removal_of(0), seq=2)
    assert index.applied_seq == 2
    await index.close()


async def a_wrong_query_is_refused(subject: Subject) -> None:
    """Wrong dimension and NaN are InvalidArgument; the next search answers."""
    index, model = await _filled(subject, 20)
    wrong = [np.ones((1, DIM - 1), np.float32), np.full((1, DIM), np.nan, np.float32)]
    for queries in wrong:
        try:
            await index.search(queries, 3)
        except InvalidArgument:
            continue
        raise AssertionError("a wrong query was accepted")
    await _agrees(subject, index, model)
    await index.close()


# -- living on -----------------------------------------------------------------------------------------


async def a_reopened_index_gives_equal_answers(subject: Subject) -> None:
    """What ``checkpoint`` returned is where a reopened index stands, with all that was applied until then."""
    index, model = await _filled(subject)
    await index.apply(removal_of(5, 6, 7), seq=2)
    queries = clustered(10, seed=4)
    before = await index.search(queries, 10, params=SearchParams(exact=True))
    assert await index.checkpoint() == 2
    await index.close()
    index = await subject.open()
    assert index.applied_seq == 2
    after = await index.search(queries, 10, params=SearchParams(exact=True))
    assert after.keys.tolist() == before.keys.tolist()
    assert after.scores.tolist() == before.scores.tolist()
    assert index.stats().live == len(model) - 3
    await index.close()


async def a_replay_after_reopening_brings_no_key_twice(subject: Subject) -> None:
    """Closed without a checkpoint: replaying everything from the position it kept gives the whole again."""
    index, model = await _filled(subject, 40)
    await index.checkpoint()
    await index.apply(batch_of(clustered(80)[40:], first=40, deleted=np.array([1, 2])), seq=2)
    await index.close()
    index = await subject.open()
    kept = index.applied_seq
    assert kept in (1, 2)
    await index.apply(batch_of(clustered(80)[40:], first=40, deleted=np.array([1, 2])), seq=2)
    model = {key: vector for key, vector in enumerate(clustered(80)) if key not in (1, 2)}
    found = await index.search(clustered(1, seed=1), 100)
    assert sorted(key for key in found.keys[0].tolist() if key >= 0) == sorted(model)
    await _agrees(subject, index, model)
    await index.close()


async def searches_go_on_during_apply(subject: Subject) -> None:
    """A search beside writes sees some whole number of batches, each key at most once."""
    index, vectors = await subject.open(), clustered(1_000)

    async def write() -> None:
        for seq in range(1, 21):
            first = (seq - 1) * 50
            await index.apply(batch_of(vectors[first : first + 50], first=first), seq=seq)

    writing = asyncio.create_task(write())
    while not writing.done():
        found = await index.search(vectors[:1], 1_000)
        keys = sorted(key for key in found.keys[0].tolist() if key >= 0)
        assert keys == list(range(len(keys)))
        assert len(keys) % 50 == 0
    await writing
    await _agrees(subject, index, dict(enumerate(vectors)))
    await index.close()


async def a_cancelled_search_leaves_the_index_usable(subject: Subject) -> None:
    """Some of many concurrent callers go away; the others get their own answers."""
    index, model = await _filled(subject)
    queries = clustered(40, seed=6)
    exact = SearchParams(exact=True)
    expected = await index.search(queries, 10, params=exact)
    tasks = [asyncio.create_task(index.search(query[None], 10, params=exact)) for query in queries]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for row, answer in enumerate(answers):
        if isinstance(answer, Neighbours):
            assert answer.keys[0].tolist() == expected.keys[row].tolist()
        else:
            assert isinstance(answer, asyncio.CancelledError)
            assert row % 3 == 0
    await _agrees(subject, index, model)
    await index.close()


async def a_cancelled_apply_is_whole_or_absent(subject: Subject) -> None:
    """After the cancellation the batch may be applied again, and then is there once."""
    index, vectors = await subject.open(), clustered(200)
    writing = asyncio.create_task(index.apply(batch_of(vectors), seq=1))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing])
    await index.apply(batch_of(vectors), seq=1)
    assert index.stats().live == 200
    await _agrees(subject, index, dict(enumerate(vectors)))
    await index.close()


VECTOR_INDEX_CHECKS: Final[tuple[Check, ...]] = (
    an_empty_index_finds_nothing,
    k_beyond_all_keys_is_padded,
    no_queries_have_no_answers,
    the_best_come_first_and_ties_by_key,
    scores_are_those_of_the_metric,
    a_row_scores_the_same_alone_and_in_a_batch,
    a_filter_leaves_only_what_it_allows,
    exact_search_is_the_truth,
    recall_is_what_was_declared,
    applying_again_changes_nothing,
    a_deleted_key_is_gone_at_once,
    a_deleted_key_can_come_back,
    a_key_applied_twice_is_there_once,
    a_wrong_batch_leaves_no_trace,
    a_wrong_query_is_refused,
    a_reopened_index_gives_equal_answers,
    a_replay_after_reopening_brings_no_key_twice,
    searches_go_on_during_apply,
    a_cancelled_search_leaves_the_index_usable,
    a_cancelled_apply_is_whole_or_absent,
)

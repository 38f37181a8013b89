"""The recall of live queries is measured in the background, a few of them at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from indexes.base import Metric, Neighbours
from indexes.conformance import DIM, batch_of, clustered
from indexes.dense.opening import open_index
from indexes.dense.sampling import RecallSampler
from indexes.directory import LocalDirectory

NEVER_AGAIN_S = 1e9


def neighbours(*scores: float) -> Neighbours:
    """Keys 0, 1, ... with these scores; -inf is padding."""
    row = np.array([scores], dtype=np.float32)
    return Neighbours(np.where(np.isneginf(row), -1, np.arange(len(scores))), row)


async def sampled(found: Neighbours, truth: Neighbours) -> float:
    async def ask_exactly() -> Neighbours:
        return truth

    sampler = RecallSampler()
    await sampler.compare(found, ask_exactly)
    recall = sampler.stats()["recall"]
    assert isinstance(recall, float)
    return recall


async def test_a_sample_is_the_share_of_true_neighbours_that_were_found() -> None:
    truth = neighbours(0.9, 0.8, 0.7, 0.6)
    assert await sampled(truth, truth) == 1.0
    assert await sampled(neighbours(0.9, 0.8, 0.7, 0.5), truth) == 0.75


async def test_a_hit_as_good_as_the_last_true_one_counts() -> None:
    assert await sampled(neighbours(0.9, 0.7), neighbours(0.9, 0.7)) == 1.0


async def test_where_there_is_nothing_to_find_nothing_is_missed() -> None:
    assert await sampled(neighbours(-np.inf, -np.inf), neighbours(-np.inf, -np.inf)) == 1.0


async def test_after_a_sample_none_is_due_for_a_while() -> None:
    sampler = RecallSampler(pause_s=NEVER_AGAIN_S)
    assert sampler.due

    async def ask_exactly() -> Neighbours:
        assert not sampler.due
        return neighbours(0.5)

    await sampler.compare(neighbours(0.5), ask_exactly)
    assert not sampler.due


async def test_a_sample_that_fails_counts_for_nothing() -> None:
    sampler = RecallSampler()

    async def ask_exactly() -> Neighbours:
        raise OSError("the disk is gone")

    results = await asyncio.gather(sampler.compare(neighbours(0.5), ask_exactly), return_exceptions=True)
    assert isinstance(results[0], OSError)
    assert sampler.stats() == {"recall": None, "samples": 0}


async def test_an_index_reports_the_recall_of_its_searches(tmp_path: Path) -> None:
    index = await open_index(
        "hnsw", directory=LocalDirectory(tmp_path), dim=DIM, metric=Metric.COSINE, options={}
    )
    await index.apply(batch_of(clustered(500)), seq=1)
    assert index.stats().details["live_recall"] == {"recall": None, "samples": 0}
    await index.search(clustered(1, seed=3), 10)
    for _ in range(1_000):
        if index.stats().details["live_recall"]["samples"]:
            break
        await asyncio.sleep(0.01)
    assert index.stats().details["live_recall"] == {"recall": 1.0, "samples": 1}
    await index.close()

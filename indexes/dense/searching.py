"""How searches of one index run: on which thread, together with which others, and how well they find."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pyroaring import BitMap64

from indexes.base import Metric, Neighbours, SearchParams, Vectors
from indexes.dense.coalescing import Coalescer, Pace
from indexes.dense.exact import merge
from indexes.dense.rows import Allowed, Filters
from indexes.dense.sampling import RecallSampler
from indexes.dense.threads import Threads
from indexes.dense.view import View


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked beside the queries; equal ones can be asked together."""

    view: View
    k: int
    allow: Allowed | None
    params: SearchParams


class Searches:
    """Answers questions to the views of one index, its shards in parallel. Belongs to one event loop."""

    def __init__(self, threads: Threads, metric: Metric, *, shards: int) -> None:
        self._threads = threads
        self._metric = metric
        self._shards = range(shards)
        self._filters = Filters()
        self._sampler = RecallSampler()
        self._sample: asyncio.Task[None] | None = None
        # Two lanes to each shard, so that quick walks never queue behind slower scans.
        walkers = max(1, threads.walkers // shards)
        self._walks = [self._lane(shard, threads.walks, walkers) for shard in self._shards]
        self._scans = [self._lane(shard, threads.scans, 1) for shard in self._shards]
        self._pace, self._exact_pace = Pace(), Pace()

    def question(self, view: View, k: int, allow: BitMap64 | None, params: SearchParams) -> Question:
        """A question to all shards of ``view``, so that all answer from the same state."""
        return Question(view, k, None if allow is None else self._filters.of(allow), params)

    async def search(self, queries: Vectors, question: Question) -> Neighbours:
        """The best keys for each of ``queries``, which the index has prepared."""
        found = await self._ask(queries, question)
        if self._sampler.due and len(queries) and not question.params.exact:
            answer = Neighbours(found.keys[:1], found.scores[:1])
            self._sample = asyncio.create_task(self._compare(queries[:1], question, answer))
            # A sample that fails is a sample less, and nothing else.
            self._sample.add_done_callback(lambda done: done.cancelled() or done.exception())
        return found

    def explain(self, question: Question) -> str:
        """What each segment does about it: walks its structure with some effort, or scans rows."""
        view = question.view
        lines = [part.explain(question.k, question.allow, question.params) for part in view.parts]
        if view.delta.count:
            lines.append(f"new: scans {view.delta.count} rows")
        return "; ".join(lines)

    def stats(self) -> dict[str, Any]:
        """The recall of live queries."""
        return self._sampler.stats()

    async def close(self) -> None:
        """Stop what runs in the background."""
        if self._sample is not None:
            self._sample.cancel()
            await asyncio.wait([self._sample])

    async def _ask(self, queries: Vectors, question: Question) -> Neighbours:
        allow, exact = question.allow, question.params.exact
        lanes = self._walks if allow is None and not exact else self._scans
        pace = None if question.view.waits else self._pace_of(question)
        if len(lanes) == 1:
            return await lanes[0].search(queries, question, pace)
        found = await asyncio.gather(*(lane.search(queries, question, pace) for lane in lanes))
        return merge(found, len(queries), question.k)

    def _pace_of(self, question: Question) -> Pace:
        if question.params.exact:
            return self._exact_pace
        return self._pace if question.allow is None else question.allow.pace

    async def _compare(self, query: Vectors, asked: Question, found: Neighbours) -> None:
        exactly = replace(asked, params=replace(asked.params, exact=True))
        await self._sampler.compare(found, lambda: self._threads.build(self._scan, query, exactly))

    def _scan(self, queries: Vectors, question: Question) -> Neighbours:
        found = [self._search_shard(shard, queries, question) for shard in self._shards]
        return merge(found, len(queries), question.k)

    def _lane(self, shard: int, pool: Executor, threads: int) -> Coalescer[Question]:
        return Coalescer(
            partial(self._search_shard, shard), pool, threads=threads, alone=len(self._shards) == 1
        )

    def _search_shard(self, shard: int, queries: Vectors, asked: Question) -> Neighbours:
        return asked.view.search(shard, queries, asked.k, asked.allow, asked.params, self._metric)

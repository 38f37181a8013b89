"""Answers: search, then generate from what was found, with citations into the documents."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from generator.base import Delta, End, Generator, Limits, Passage, Prompt, Quote
from ragstone.types import (
    AnswerEvent,
    Citation,
    Contexts,
    Done,
    Hit,
    Query,
    TextDelta,
)
from retrieval import telemetry
from retrieval.query.search import Searcher
from retrieval.telemetry import Stopwatch
from retrieval.versions.snapshots import OpenCollection


class Answerer:
    """Answers questions, for all collections."""

    def __init__(self, *, searcher: Searcher, generator: Generator) -> None:
        self._searcher = searcher
        self._generator = generator

    async def answer(
        self, collection: OpenCollection, query: Query, *, tenant: str = "", deadline_s: float | None
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Contexts, then text deltas and citations as they come, usage, and Done.

        Raises what Searcher.search and the generator raise. Closing the iterator stops the generation.
        """
        watch = Stopwatch()
        with watch.stage(telemetry.STAGE_SEARCH):
            result = await self._searcher.search(collection, query, tenant=tenant, deadline_s=deadline_s)
        yield Contexts(
            hits=result.hits,
            version=result.version,
            space=result.space,
            seq=result.seq,
            degraded=result.degraded,
            adapter=result.adapter,
            truncation=result.truncation,
        )
        prompt = Prompt(
            question=query.text,
            passages=[_passage(hit) for hit in result.hits],
            language=query.language,
        )
        stream = self._generator.stream(prompt, Limits(), deadline_s=deadline_s)
        async with aclosing(stream) as generated:
            async for item in generated:
                match item:
                    case Delta():
                        yield TextDelta(text=item.text)
                    case Quote():
                        yield _citation(item, prompt.passages)
                    case End():
                        yield item.usage
                        yield Done(finish_reason=item.finish_reason, timings_ms=watch.total())


def _passage(hit: Hit) -> Passage:
    return Passage(
        chunk_id=hit.chunk_id,
        document_id=hit.document_id,
        text=hit.text,
        title=hit.title,
        start=hit.start,
        score=hit.score,
    )


def _citation(quote: Quote, passages: Sequence[Passage]) -> Citation:
    passage = passages[quote.passage]
    return Citation(
        chunk_id=passage.chunk_id,
        document_id=passage.document_id,
        start=passage.start + quote.start,
        end=passage.start + quote.end,
        answer_start=quote.answer_start,
        answer_end=quote.answer_end,
        quote=passage.text[quote.start : quote.end],
    )

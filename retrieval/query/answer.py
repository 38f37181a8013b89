"""Answers: search, then generate from what was found, with citations into the documents."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Final, Unpack

import structlog

from generator.base import Condensed, Condenser, Delta, End, Generator, Limits, Passage, Prompt, Quote
from ragstone.answers import Citation, Done, Generation, Standalone, TextDelta, Usage
from ragstone.errors import RagstoneError
from ragstone.types import AnswerEvent, Contexts, Hit, Question, SearchResult
from retrieval import telemetry
from retrieval.config import AnswerSettings
from retrieval.query.answer_cache import AnswerCache, Answered, repeatable
from retrieval.query.conversation import standalone
from retrieval.query.deadlines import Deadline
from retrieval.query.grounding import Grounding, ground
from retrieval.query.search import Searcher
from retrieval.query.similar_answers import Asked, SimilarAnswers, Vector
from retrieval.store.usage import Accounts, Used
from retrieval.telemetry import Metrics, Stopwatch
from retrieval.versions.snapshots import OpenCollection

log = structlog.get_logger(__name__)

_CONDENSING_SHARE: Final = 0.25
"""Of the time that is left, at most."""
_VECTOR_S: Final = 0.25
"""The longest wait for a question's vector, which its search has left in memory mostly."""
_GROUNDING_S: Final = 0.25
"""With less time left, an answer is held against its citations by words alone."""


class Answerer:
    """Answers questions, for all collections."""

    def __init__(
        self,
        *,
        searcher: Searcher,
        generator: Generator,
        settings: AnswerSettings,
        salt_key: bytes,
        metrics: Metrics,
        accounts: Accounts,
    ) -> None:
        self._searcher = searcher
        self._generator = generator
        self._settings = settings
        self._salt_key = salt_key
        self._cache = AnswerCache(settings.kept)
        self._similar: SimilarAnswers | None = None
        if settings.similarity is not None and settings.kept:
            self._similar = SimilarAnswers(settings.kept, similarity=settings.similarity)
        self._metrics = metrics
        self._accounts = accounts
        self._accounting: set[asyncio.Task[None]] = set()

    async def answer(
        self, collection: OpenCollection, question: Question, *, tenant: str = "", deadline_s: float | None
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Contexts, then text deltas and citations as they come, usage, and Done.

        Raises what Searcher.search and the generator raise. Closing the iterator stops the generation.
        """
        watch, deadline = Stopwatch(), Deadline(deadline_s)
        searched: Standalone | None = None
        condensing: Usage | None = None
        if question.history:
            with watch.stage(telemetry.STAGE_CONDENSE):
                searched, condensing = await self._standalone(question, tenant, deadline)
        query = question.query if searched is None else replace(question.query, text=searched.text)
        with watch.stage(telemetry.STAGE_SEARCH):
            result = await self._searcher.search(
                collection, query, tenant=tenant, deadline_s=deadline.remaining_s()
            )
        yield replace(_contexts(result), standalone=searched)
        prompt = Prompt(
            question=question.query.text,
            passages=[_passage(hit) for hit in result.hits],
            language=question.query.language,
            history=question.history,
            tenant=tenant,
        )
        limits = self._limits(question.generation)
        known, asked = await self._remembered(collection, prompt, limits, question.query.filter, deadline)
        if known is not None:
            for event in _again(known, watch, condensing):
                yield event
            return
        stream = self._generator.stream(
            prompt,
            limits,
            cache_salt=self._salt(tenant),
            deadline_s=deadline.remaining_s(),
        )
        text, citations = "", list[Citation]()
        async with aclosing(stream) as generated:
            async for item in generated:
                match item:
                    case Delta():
                        text += item.text
                        yield TextDelta(text=item.text)
                    case Quote():
                        citations.append(_citation(item, prompt.passages))
                        yield citations[-1]
                    case End():
                        yield _sum(self._account(item, tenant), condensing)
                        done = _done(item, watch)
                        if limits.json_schema is None:
                            grounding = await self._ground(collection, text, citations, tenant, deadline)
                            done = replace(done, grounded=grounding.share, ungrounded=grounding.ungrounded)
                        answered = Answered(text=text, citations=citations, done=done)
                        self._remember(prompt, limits, asked, answered)
                        yield done

    async def close(self) -> None:
        """Wait until all that was used is put down."""
        await asyncio.gather(*self._accounting, return_exceptions=True)

    async def _standalone(
        self, question: Question, tenant: str, deadline: Deadline
    ) -> tuple[Standalone | None, Usage | None]:
        """What to search for, where that is not the question itself, and what a generator took to say so."""
        asked, left_s = question.query.text, deadline.remaining_s()
        patience_s, usage, whole = self._settings.condense_s, None, Standalone(text="")
        if left_s is not None:
            patience_s = min(patience_s, _CONDENSING_SHARE * left_s)
        if patience_s > 0 and isinstance(self._generator, Condenser):
            prompt = Prompt(question=asked, passages=(), history=question.history, tenant=tenant)
            with suppress(RagstoneError):
                condensed = await self._generator.condense(
                    prompt, cache_salt=self._salt(tenant), deadline_s=patience_s
                )
                if condensed is not None:
                    usage = self._account(condensed, tenant)
                    whole = Standalone(text=condensed.text, condensed_by=condensed.answered_by)
        if not whole.text:
            whole = Standalone(text=standalone(asked, question.history))
        return (None if whole.text == asked else whole), usage

    async def _remembered(
        self, collection: OpenCollection, prompt: Prompt, limits: Limits, among: str, deadline: Deadline
    ) -> tuple[Answered | None, Asked | None]:
        """An answer that was given before, to this question or a similar one; this one as it is compared."""
        known = self._cache.get(prompt, limits)
        if known is not None or self._similar is None or prompt.history or not repeatable(limits):
            return known, None
        vector = await self._vector(collection, prompt, deadline)
        if vector is None:
            return None, None
        asked = Asked(
            prompt=prompt,
            limits=limits,
            space=vector[0],
            vector=vector[1],
            collection=str(collection.row.id),
            filter=among,
        )
        return self._similar.find(asked), asked

    def _remember(self, prompt: Prompt, limits: Limits, asked: Asked | None, answered: Answered) -> None:
        self._cache.put(prompt, limits, answered)
        if self._similar is not None and asked is not None:
            self._similar.put(asked, answered)

    async def _vector(
        self, collection: OpenCollection, prompt: Prompt, deadline: Deadline
    ) -> tuple[str, Vector] | None:
        """The question's space and vector; None where it has none, or not soon."""
        left_s = deadline.remaining_s()
        with suppress(RagstoneError, TimeoutError):
            async with asyncio.timeout(_VECTOR_S if left_s is None else min(_VECTOR_S, left_s)):
                return await self._searcher.query_vector(collection, prompt.question, tenant=prompt.tenant)
        return None

    def _limits(self, generation: Generation) -> Limits:
        return Limits(
            max_tokens=generation.max_tokens or self._settings.max_tokens,
            temperature=generation.temperature or 0.0,
            seed=generation.seed,
            stop=generation.stop,
            json_schema=generation.json_schema,
            logprobs=generation.logprobs,
        )

    def _salt(self, tenant: str) -> str:
        """The same for a tenant's requests, and of no use for guessing another's."""
        return hmac.digest(self._salt_key, tenant.encode(), "sha256").hex()

    def _account(self, made: End | Condensed, tenant: str) -> Usage:
        """What was made, with its cost: counted, and put down while the answer goes on."""
        usage = replace(made.usage, cost=self._cost(made.model, made.usage))
        generator, answers = made.answered_by or made.model, int(isinstance(made, End))
        self._metrics.generated(generator, tenant, usage, answers=answers)
        task = asyncio.create_task(
            self._put_down(tenant=tenant, generator=generator, model=made.model, usage=usage, answers=answers)
        )
        self._accounting.add(task)
        task.add_done_callback(self._accounting.discard)
        return usage

    async def _put_down(self, **used: Unpack[Used]) -> None:
        try:
            await self._accounts.add(**used)
        except RagstoneError as exc:
            # Whoever asked has the answer: it is not to fail for a row of an account.
            log.warning(
                "usage_not_kept", tenant=used["tenant"], generator=used["generator"], error=exc.message
            )

    def _cost(self, model: str, used: Usage) -> float | None:
        price = self._settings.prices.get(model)
        if price is None:
            return None
        cached = price.prompt if price.cached is None else price.cached
        return (
            (used.prompt_tokens - used.cached_tokens) * price.prompt
            + used.cached_tokens * cached
            + used.completion_tokens * price.completion
        ) / 1e6

    async def _ground(
        self,
        collection: OpenCollection,
        text: str,
        citations: Sequence[Citation],
        tenant: str,
        deadline: Deadline,
    ) -> Grounding:
        """By words and vectors; by words alone when time is short, or when the embedder does not answer."""
        similarity, left_s = self._settings.grounding_similarity, deadline.remaining_s()
        if left_s is None or left_s > _GROUNDING_S:
            with collection.lease() as snapshot, suppress(RagstoneError):
                embed = partial(snapshot.parts.embedder.embed_queries, tenant=tenant)
                return await ground(text, citations, embed=embed, similarity=similarity)
        return await ground(text, citations, embed=None, similarity=similarity)


def _contexts(result: SearchResult) -> Contexts:
    return Contexts(
        hits=result.hits,
        version=result.version,
        space=result.space,
        seq=result.seq,
        degraded=result.degraded,
        adapter=result.adapter,
        truncation=result.truncation,
    )


def _again(known: Answered, watch: Stopwatch, condensing: Usage | None) -> Iterator[AnswerEvent]:
    yield TextDelta(text=known.text)
    yield from known.citations
    yield _sum(Usage(cost=0.0), condensing)
    yield replace(known.done, timings_ms=watch.total(), from_cache=True)


def _sum(answering: Usage, condensing: Usage | None) -> Usage:
    """Of all that was generated; the times are those of the answer."""
    if condensing is None:
        return answering
    costs = answering.cost, condensing.cost
    return replace(
        answering,
        prompt_tokens=answering.prompt_tokens + condensing.prompt_tokens,
        cached_tokens=answering.cached_tokens + condensing.cached_tokens,
        completion_tokens=answering.completion_tokens + condensing.completion_tokens,
        cost=None if None in costs else sum(cost or 0.0 for cost in costs),
    )


def _done(end: End, watch: Stopwatch) -> Done:
    return Done(
        finish_reason=end.finish_reason,
        timings_ms=watch.total(),
        answered_by=end.answered_by,
        model=end.model,
        passed_over=tuple(end.passed_over),
        template=end.template,
        removed_marks=end.removed_marks,
        logprobs=tuple(end.logprobs),
    )


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

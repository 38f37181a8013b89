"""Answers by a language model that completes chats, wherever it runs: by its server, or in this process.

Passages are ordered for the prefix cache of the replica that is asked (``ordering``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from hashlib import blake2b
from itertools import cycle
from pathlib import Path
from time import monotonic
from typing import Final

from pydantic import BaseModel, Field
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from generator.base import Condensed, End, Generated, Limits, Passage, Prompt
from generator.chat_model import Chat, ChatModel, Chunk, Served, TokenUsage, within
from generator.citations import CitationParser
from generator.condensing import LIMITS, condensed, condensing_messages, may_be_condensed
from generator.ordering import OrderingOptions, Passages, Placement, Replicas
from generator.prompt import PromptBuilder, Rendered
from generator.reading import AnswerReader, JsonReader, Reader
from ragstone.answers import FinishReason, TokenLogprob, Usage
from ragstone.errors import BackendUnavailable, DeadlineExceeded, InvalidArgument, Overloaded

_RETRY_AFTER_S: Final = 1.0
_QUEUE_SHARE: Final = 0.4
"""Of the time that is left: then another generator can still answer, and this one is full, not broken."""
_CONTEXT_TOKENS: Final = 8_192
"""Of a model that does not tell."""
_LEAD_WITHIN: Final = 3
"""The best passage is among the first so many, whatever the cache holds."""
_CHARS_PER_TOKEN: Final = 4
_MARGIN_TOKENS: Final = 16
"""For what a chat template puts around each message; texts are counted without it."""


class ChatOptions(BaseModel, frozen=True, extra="forbid"):
    """Options of every generator that is such a model."""

    template: str | None = None
    """A file with a Jinja template of the prompt; without it, Ragstone's own."""
    context_tokens: int | None = Field(None, ge=256)
    """What prompt and answer may hold together; without it, as the model tells it, else 8,192."""
    concurrency: int = Field(256, ge=1, le=10_000)
    """Generations at once."""
    first_token_s: float = Field(60.0, gt=0, le=3600)
    """The longest wait for the first piece of text."""
    stall_s: float = Field(30.0, gt=0, le=3600)
    """The longest wait for another one."""
    retries: int = Field(2, ge=0, le=20)
    """Before the first piece of text; never after it."""
    max_displacement: int = Field(4, ge=0, le=100)
    """How many places a passage may stand from its rank, for the prefix cache's sake; 0 keeps the ranking."""
    cache_tokens: int | None = Field(None, ge=1)
    """What a replica's prefix cache holds; without it as vLLM tells, else 200,000."""


def prompt_builder(options: ChatOptions) -> PromptBuilder:
    """Of the template that they name. Raises InvalidArgument for one that is none."""
    return PromptBuilder(_source(options.template))


class ChatGenerator:
    """A ``Generator`` over the replicas of one model."""

    def __init__(self, replicas: Sequence[ChatModel], options: ChatOptions, builder: PromptBuilder) -> None:
        self._models = {model.url: model for model in replicas}
        self._options = options
        self._builder = builder
        self._replicas: Replicas | None = None
        self._slots = asyncio.Semaphore(options.concurrency)
        self._closed = False

    async def stream(
        self,
        prompt: Prompt,
        limits: Limits,
        *,
        cache_salt: str = "",
        priority: int = 0,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Generated, None]:
        """Deltas and quotes as they come, then ``End``; NO_EVIDENCE comes without text.

        Without passages that say anything the model is not asked. Raises DeadlineExceeded; InvalidArgument
        for a question that does not fit and a schema that the model refuses; Overloaded; FailedPrecondition
        when the model refuses the caller; BackendUnavailable when it does not answer, or breaks off.
        """
        end_s = self._end(deadline_s)
        if not any(passage.text.strip() for passage in prompt.passages):
            yield End(finish_reason=FinishReason.NO_EVIDENCE, usage=Usage())
            return
        model = await self._live(end_s)
        served = await model.served()
        async with self._slot(end_s) as queue_s:
            rendering = self._render(prompt, limits, model, served, cache_salt)
            rendered, placed = await within(rendering, end_s, self._options.first_token_s, model.url)
            chat = Chat(messages=rendered.messages, limits=limits, cache_salt=cache_salt, priority=priority)
            reader, times = _reader(prompt, rendered, limits), _Times(queue_s)
            usage, reason, logprobs = TokenUsage(), None, list[TokenLogprob]()
            async with aclosing(self._chunks(chat, placed, end_s)) as chunks:
                async for chunk in chunks:
                    times.see(chunk)
                    usage = chunk.usage or usage
                    reason = chunk.finish_reason or reason
                    logprobs += chunk.logprobs if limits.logprobs else ()
                    for item in reader.feed(chunk.text):
                        yield item
        for item in reader.finish():
            yield item
        yield End(
            finish_reason=_finish(reason, reader),
            usage=times.usage(usage),
            model=served.name,
            template=rendered.template,
            sent=rendered.sent,
            removed_marks=reader.removed_marks,
            logprobs=logprobs,
        )

    async def condense(
        self, prompt: Prompt, *, cache_salt: str = "", deadline_s: float | None = None
    ) -> Condensed | None:
        """The question as the model puts it, so that it stands alone. Raises as ``stream`` does."""
        if not may_be_condensed(prompt.question):
            return None
        end_s = self._end(deadline_s)
        model = await self._live(end_s)
        served = await model.served()
        chat = Chat(messages=condensing_messages(prompt), limits=LIMITS, cache_salt=cache_salt)
        text, usage, reason = "", TokenUsage(), None
        async with self._slot(end_s) as queue_s:
            times = _Times(queue_s)
            async with aclosing(self._chunks(chat, model.url, end_s)) as chunks:
                async for chunk in chunks:
                    times.see(chunk)
                    text += chunk.text
                    usage = chunk.usage or usage
                    reason = chunk.finish_reason or reason
        question = "" if reason == "length" else condensed(text)
        return Condensed(text=question, usage=times.usage(usage), model=served.name)

    async def close(self) -> None:
        """Release the model; streams that run end with an error."""
        self._closed = True
        for model in self._models.values():
            await model.close()

    # -- what is sent ------------------------------------------------------------------------------

    def _end(self, deadline_s: float | None) -> float | None:
        """The monotonic second of the deadline. Raises BackendUnavailable, DeadlineExceeded."""
        if self._closed:
            raise BackendUnavailable("the generator is closed")
        if deadline_s is not None and deadline_s <= 0:
            raise DeadlineExceeded("no time is left for an answer")
        return None if deadline_s is None else monotonic() + deadline_s

    @asynccontextmanager
    async def _slot(self, end_s: float | None) -> AsyncIterator[float]:
        """Hold one of the generations that may run at once; how many seconds one had to wait for it.

        Raises Overloaded after a wait as long as that for a first token may be, or a part of what is left.
        """
        began, patience_s = monotonic(), self._options.first_token_s
        if end_s is not None:
            patience_s = min(patience_s, _QUEUE_SHARE * max(0.0, end_s - began))
        try:
            await within(self._slots.acquire(), None, patience_s, "the queue")
        except BackendUnavailable as exc:
            told = f"{self._options.concurrency} generations run already"
            raise Overloaded(told, retry_after_s=_RETRY_AFTER_S) from exc
        try:
            yield monotonic() - began
        finally:
            self._slots.release()

    async def _live(self, end_s: float | None) -> ChatModel:
        """A replica that says what it serves. Raises what the last one raises."""
        models = sorted(self._models.values(), key=lambda model: (model.down, model.in_flight))
        for model in models:
            try:
                return await within(self._meet(model), end_s, self._options.first_token_s, model.url)
            except BackendUnavailable:
                if model is models[-1]:
                    raise
        raise AssertionError("the loop ends by returning or raising")

    async def _meet(self, model: ChatModel) -> ChatModel:
        """Ask what it serves; the first one that says it also says how large their caches are."""
        served = await model.served()
        if self._replicas is None:
            tokens, block_size = await model.cache(served)
            ordering = OrderingOptions(
                capacity_tokens=self._options.cache_tokens or tokens,
                block_size=block_size,
                max_displacement=self._options.max_displacement,
                lead_within=min(self._options.max_displacement + 1, _LEAD_WITHIN),
            )
            self._replicas = Replicas(dict.fromkeys(self._models, ordering))
        return model

    async def _render(
        self, prompt: Prompt, limits: Limits, model: ChatModel, served: Served, scope: str
    ) -> tuple[Rendered, str]:
        """The prompt, and the replica whose cache its order is for."""
        context = self._options.context_tokens or served.context_tokens or _CONTEXT_TOKENS
        budget = context - limits.max_tokens - (len(prompt.history) + 2) * _MARGIN_TOKENS
        if budget <= 0:
            raise InvalidArgument.at(
                "generation.max_tokens",
                f"{limits.max_tokens} leave no room for a prompt: {served.name} holds {context} tokens",
            )
        assert self._replicas is not None
        replicas, placements = self._replicas, list[tuple[Placement, Passages]]()

        def order(chosen: Sequence[int]) -> Sequence[int]:
            passages = _sizes([prompt.passages[index] for index in chosen], scope)
            placement = replicas.place(passages, self._in_flight, down=self._down)
            placements.append((placement, passages))
            return [chosen[place] for place in placement.order]

        rendered = await self._builder.build(prompt, budget_tokens=budget, count=model.count, order=order)
        placement, passages = placements[-1]
        replicas.sent(placement, passages)
        return rendered, placement.replica

    @property
    def _in_flight(self) -> dict[str, int]:
        return {url: model.in_flight for url, model in self._models.items()}

    @property
    def _down(self) -> list[str]:
        return [url for url, model in self._models.items() if model.down]

    # -- what comes back ---------------------------------------------------------------------------

    async def _chunks(self, chat: Chat, placed: str, end_s: float | None) -> AsyncGenerator[Chunk, None]:
        """The pieces of the answer: tried again, by another replica first, only before any text has come."""
        turns = cycle(sorted(self._models.values(), key=lambda model: (model.url != placed, model.down)))
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((BackendUnavailable, Overloaded)),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            stop=stop_after_attempt(self._options.retries + 1),
            sleep=lambda seconds: within(asyncio.sleep(seconds), end_s, seconds + 1, placed),
            reraise=True,
        ):
            with attempt:
                model = next(turns)
                begun = await within(model.begin(chat), end_s, self._options.first_token_s, model.url)
        try:
            yield begun.first
            while True:
                coming = anext(begun.rest, None)
                chunk = await within(coming, end_s, self._options.stall_s, model.url)
                if chunk is None:
                    return
                yield chunk
        finally:
            await model.end(begun)


def _sizes(passages: Sequence[Passage], scope: str) -> Passages:
    """Sizes are estimated: one that is wrong costs a block of the cache at most."""
    return Passages(
        keys=[blake2b(f"{p.title}\n{p.text}".encode("utf-8", "replace")).hexdigest() for p in passages],
        tokens=[len(p.text) // _CHARS_PER_TOKEN for p in passages],
        scope=scope,
    )


def _reader(prompt: Prompt, rendered: Rendered, limits: Limits) -> Reader:
    if limits.json_schema is not None:
        return JsonReader()
    marks = dict(enumerate(rendered.sent, start=1))
    return AnswerReader(CitationParser(prompt.passages, marks, kept=rendered.kept))


def _finish(reason: str | None, reader: Reader) -> FinishReason:
    if reader.refused:
        return FinishReason.NO_EVIDENCE
    return FinishReason.LENGTH if reason == "length" else FinishReason.COMPLETE


class _Times:
    """Of one generation, which begins now after a wait of ``queue_s``."""

    def __init__(self, queue_s: float) -> None:
        self._queue_s = queue_s
        self._began = monotonic()
        self._first: float | None = None

    def see(self, chunk: Chunk) -> None:
        """The next event has come."""
        if self._first is None and chunk.text:
            self._first = monotonic()

    def usage(self, usage: TokenUsage) -> Usage:
        """What a generation that ends now took."""
        written, now = usage.completion_tokens, monotonic()
        first = now if self._first is None else self._first
        return Usage(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=written,
            ttft_ms=(self._queue_s + first - self._began) * 1e3,
            tpot_ms=(now - first) * 1e3 / (written - 1) if written > 1 else 0.0,
            queue_ms=self._queue_s * 1e3,
        )


def _source(template: str | None) -> str | None:
    if template is None:
        return None
    try:
        return Path(template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidArgument.at("options.template", f"{template}: {exc}") from exc

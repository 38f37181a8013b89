"""Any server of OpenAI's chat API: vLLM, SGLang, TGI, LMDeploy, TensorRT-LLM, OpenAI.

Of vLLM it also uses ``cache_salt``, priorities and ``/tokenize``. Closing the stream closes the connection,
which is how these servers learn that nobody wants the rest.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from time import monotonic
from typing import Any, Final

import httpx
from pydantic import BaseModel, Field, field_validator
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from generator.base import End, Generated, Generator, Limits, Prompt
from generator.chat_api import ChatChunk, Served, TokenUsage, chat_chunks, refusal, served_models, unreached
from generator.citations import CitationParser
from generator.counting import LocalCounter, ServerCounter, guess, load_tokenizer
from generator.options import parse_options
from generator.prompt import Count, PromptBuilder, Rendered
from generator.reading import AnswerReader, JsonReader, Reader
from ragstone.answers import FinishReason, Usage
from ragstone.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Overloaded,
)

_CONNECT_S: Final = 5.0
_FORGET_S: Final = 60.0
"""After so long a server is asked again what it serves: it may have been started with another model."""
_MARGIN_TOKENS: Final = 16
"""For what a chat template puts around each message; texts are counted without it."""


_Opened = tuple[httpx.Response, ChatChunk, AsyncIterator[ChatChunk]]
"""An answer that has begun: its first event that counts, and the rest."""


class Options(BaseModel, frozen=True, extra="forbid"):
    """Options of the ``openai_http`` generator."""

    url: str = Field(max_length=2000)
    """Where the API begins: ``http://HOST:PORT/v1``."""
    model: str | None = Field(None, min_length=1, max_length=500)
    """As the server calls it; without it, the first that the server lists."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$")
    """The environment variable that has the key."""
    template: str | None = None
    """A file with a Jinja template of the prompt; without it, Ragstone's own."""
    context_tokens: int | None = Field(None, ge=256)
    """What prompt and answer may hold together; without it, as the server tells it, else 8,192."""
    tokenizer: str | None = None
    """A folder or file of the model's tokenizer. Without it vLLM counts; for others 3 bytes are a token."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Fields that go with every request, as ``top_p``."""
    concurrency: int = Field(256, ge=1, le=10_000)
    """Generations at once."""
    first_token_s: float = Field(60.0, gt=0, le=3600)
    """The longest wait for the first piece of text."""
    stall_s: float = Field(30.0, gt=0, le=3600)
    """The longest wait for another one."""
    retries: int = Field(2, ge=0, le=20)
    """Before the first piece of text; never after it."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("must be an http:// or https:// URL")
        if parsed.userinfo or parsed.query or parsed.fragment:
            raise ValueError("must have no user, query or fragment: a key belongs into api_key_env")
        return url.rstrip("/")


async def open_generator(options: Mapping[str, Any]) -> Generator:
    """A client of the server, which is asked nothing yet: it may come later.

    Raises InvalidArgument for wrong options, template or tokenizer, FailedPrecondition when the key's
    variable is not set.
    """
    parsed = parse_options(Options, options)
    return await asyncio.to_thread(OpenAIGenerator, parsed)


class OpenAIGenerator:
    """A ``Generator`` over pooled connections."""

    def __init__(self, options: Options) -> None:
        key = _api_key(options.api_key_env)
        self._options = options
        self._builder = PromptBuilder(_source(options.template))
        self._local = None if options.tokenizer is None else LocalCounter(load_tokenizer(options.tokenizer))
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(None, connect=_CONNECT_S, pool=options.first_token_s),
            limits=httpx.Limits(max_connections=options.concurrency),
        )
        self._served: Served | None = None
        self._count: Count = self._local or guess
        self._known_until_s = float("-inf")

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

        Without passages the model is not asked. Raises DeadlineExceeded; InvalidArgument for a question that
        does not fit and a schema that the server refuses; Overloaded; FailedPrecondition when the server
        refuses the caller; BackendUnavailable when it does not answer, or stops in the middle.
        """
        if self._client.is_closed:
            raise BackendUnavailable("the generator is closed")
        if deadline_s is not None and deadline_s <= 0:
            raise DeadlineExceeded("no time is left for an answer")
        if not prompt.passages:
            yield End(finish_reason=FinishReason.NO_EVIDENCE, usage=Usage(prompt_tokens=0))
            return
        end = None if deadline_s is None else monotonic() + deadline_s
        served = await self._within(self._find_served(), end, self._options.first_token_s)
        rendered = await self._render(prompt, limits, served)
        request = self._request(rendered, limits, served, cache_salt, priority)
        reader = _reader(prompt, rendered, limits)
        began = monotonic()
        first_s: float | None = None
        usage, reason = TokenUsage(), None
        async with aclosing(self._chunks(request, end)) as chunks:
            async for chunk in chunks:
                if first_s is None and chunk.text:
                    first_s = monotonic() - began
                usage = chunk.usage or usage
                reason = chunk.finish_reason or reason
                for item in reader.feed(chunk.text):
                    yield item
        for item in reader.finish():
            yield item
        yield End(
            finish_reason=_finish(reason, reader),
            usage=_usage(usage, first_s, monotonic() - began),
            model=served.name,
            template=rendered.template,
            sent=rendered.sent,
            removed_marks=reader.removed_marks,
        )

    async def close(self) -> None:
        """Close the connections; streams that run end with an error."""
        await self._client.aclose()

    # -- what is sent ------------------------------------------------------------------------------

    async def _find_served(self) -> Served:
        if self._served is not None and monotonic() < self._known_until_s:
            return self._served
        url = f"{self._options.url}/models"
        try:
            response = await self._client.get(url)
        except httpx.HTTPError as exc:
            raise unreached(url, exc) from exc
        if response.is_error:
            raise await refusal(response)
        try:
            models = served_models(response.json())
        except ValueError as exc:
            raise BackendUnavailable(f"{url} answers no JSON") from exc
        served = self._chosen(models)
        if self._served != served:
            self._served, self._count = served, self._counter(served)
        self._known_until_s = monotonic() + _FORGET_S
        return served

    def _chosen(self, models: list[Served]) -> Served:
        wanted = self._options.model
        if wanted is None and models:
            return models[0]
        for served in models:
            if served.name == wanted:
                return served
        names = ", ".join(served.name for served in models) or "none"
        raise FailedPrecondition.at(
            "options.model", f"{self._options.url} serves {names}, and not {wanted or 'any'}"
        )

    def _counter(self, served: Served) -> Count:
        if self._local is not None:
            return self._local
        if not served.is_vllm:
            return guess
        return ServerCounter(self._client, f"{self._options.url.removesuffix('/v1')}/tokenize", served.name)

    async def _render(self, prompt: Prompt, limits: Limits, served: Served) -> Rendered:
        context = self._options.context_tokens or served.context_tokens or 8_192
        turns = len(prompt.history) + 2
        budget = context - limits.max_tokens - turns * _MARGIN_TOKENS
        if budget <= 0:
            raise InvalidArgument.at(
                "generation.max_tokens",
                f"{limits.max_tokens} leave no room for a prompt: {served.name} holds {context} tokens",
            )
        return await self._builder.build(prompt, budget_tokens=budget, count=self._count)

    def _request(
        self, rendered: Rendered, limits: Limits, served: Served, cache_salt: str, priority: int
    ) -> httpx.Request:
        body: dict[str, Any] = {
            **self._options.extra,
            "model": served.name,
            "messages": [{"role": m.role, "content": m.content} for m in rendered.messages],
            "max_tokens": limits.max_tokens,
            "temperature": limits.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if limits.seed is not None:
            body["seed"] = limits.seed
        if limits.stop:
            body["stop"] = list(limits.stop)
        if limits.json_schema is not None:
            schema = {"name": "answer", "schema": dict(limits.json_schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if served.is_vllm and cache_salt:
            body["cache_salt"] = cache_salt
        if served.is_vllm and priority:
            body["priority"] = priority
        return self._client.build_request("POST", f"{self._options.url}/chat/completions", json=body)

    # -- what comes back ---------------------------------------------------------------------------

    async def _chunks(self, request: httpx.Request, end: float | None) -> AsyncGenerator[ChatChunk, None]:
        """The events of the answer, tried again only while none with text has come."""
        response, first, rest = await self._opened(request, end)
        try:
            yield first
            while True:
                chunk = await self._within(anext(rest, None), end, self._options.stall_s)
                if chunk is None:
                    return
                yield chunk
        finally:
            await response.aclose()

    async def _opened(self, request: httpx.Request, end: float | None) -> _Opened:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((BackendUnavailable, Overloaded)),
            wait=wait_random_exponential(multiplier=0.1, max=2.0),
            stop=stop_after_attempt(self._options.retries + 1),
            sleep=lambda seconds: self._within(asyncio.sleep(seconds), end, seconds + 1),
            reraise=True,
        ):
            with attempt:
                opened: _Opened = await self._within(self._open(request), end, self._options.first_token_s)
                return opened
        raise AssertionError("the retry loop ends by returning or raising")

    async def _open(self, request: httpx.Request) -> _Opened:
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as exc:
            raise unreached(self._options.url, exc) from exc
        try:
            if response.is_error:
                raise await refusal(response)
            chunks = chat_chunks(response)
            # The first event has only the role: a server that dies before the first token is tried again.
            async for chunk in chunks:
                if chunk.text or chunk.finish_reason or chunk.usage:
                    return response, chunk, chunks
            raise BackendUnavailable(f"{self._options.url} answered nothing")
        except BaseException:
            await response.aclose()
            raise

    async def _within(self, coming: Any, end: float | None, patience_s: float) -> Any:
        """What ``coming`` gives. Raises DeadlineExceeded at ``end``, BackendUnavailable after a long wait."""
        left_s = float("inf") if end is None else end - monotonic()
        try:
            async with asyncio.timeout(max(min(left_s, patience_s), 0)):
                return await coming
        except TimeoutError as exc:
            if left_s <= patience_s:
                raise DeadlineExceeded("the deadline passed while the model answered") from exc
            raise BackendUnavailable(f"{self._options.url} has been silent for {patience_s:.3g} s") from exc


def _reader(prompt: Prompt, rendered: Rendered, limits: Limits) -> Reader:
    if limits.json_schema is not None:
        return JsonReader()
    marks = dict(enumerate(rendered.sent, start=1))
    return AnswerReader(CitationParser(prompt.passages, marks))


def _finish(reason: str | None, reader: Reader) -> FinishReason:
    if reader.refused:
        return FinishReason.NO_EVIDENCE
    return FinishReason.LENGTH if reason == "length" else FinishReason.COMPLETE


def _usage(usage: TokenUsage, first_s: float | None, all_s: float) -> Usage:
    written = usage.completion_tokens or 0
    first_s = all_s if first_s is None else first_s
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=written,
        ttft_ms=first_s * 1e3,
        tpot_ms=(all_s - first_s) * 1e3 / (written - 1) if written > 1 else 0.0,
    )


def _source(template: str | None) -> str | None:
    if template is None:
        return None
    try:
        return Path(template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidArgument.at("options.template", f"{template}: {exc}") from exc


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)  # noqa: TID251 - the settings say which; its value is no setting
    if not key:
        raise FailedPrecondition.at("options.api_key_env", f"the environment variable {variable} is not set")
    return key

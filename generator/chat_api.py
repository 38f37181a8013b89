"""The OpenAI-compatible API of a model server: requests, server-sent events, and how they fail.

Spoken by vLLM, SGLang, TGI, LMDeploy, TensorRT-LLM and OpenAI. Specification:
https://platform.openai.com/docs/api-reference/chat and, for the events, WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx
from pydantic import BaseModel, Field

from generator.chat_model import Chat, Chunk, Served, TokenUsage
from ragstone.answers import TokenLogprob
from ragstone.errors import (
    BackendUnavailable,
    FailedPrecondition,
    InvalidArgument,
    Overloaded,
    RagstoneError,
    parse_retry_after,
)

_MESSAGE_CHARS: Final = 500
_WRONG_REQUEST: Final = (400, 413, 422)
_DATA: Final = "data:"
_DONE: Final = "[DONE]"


class _PromptDetails(BaseModel):
    cached_tokens: int = 0


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Delta = Field(default_factory=_Delta)
    logprobs: Any = None
    """As OpenAI has them; of no interest, whatever its form, where nobody asked."""
    finish_reason: str | None = None


class _Event(BaseModel):
    """One event of a streamed completion, as far as it is read here."""

    choices: list[_Choice] = Field(default_factory=list)
    usage: _Usage | None = None

    def chunk(self) -> Chunk:
        """What it says."""
        return Chunk(
            text="".join(choice.delta.content or "" for choice in self.choices),
            logprobs=self._logprobs(),
            finish_reason=next((one.finish_reason for one in self.choices if one.finish_reason), None),
            usage=None if self.usage is None else _token_usage(self.usage),
        )

    def _logprobs(self) -> list[TokenLogprob]:
        """How likely its tokens were, those of which the server tells."""
        told = [choice.logprobs for choice in self.choices if isinstance(choice.logprobs, dict)]
        return [
            TokenLogprob(token=token, logprob=float(logprob))
            for content in told
            for one in content.get("content") or ()
            if isinstance(one, dict)
            and isinstance(token := one.get("token"), str)
            and isinstance(logprob := one.get("logprob"), (int, float))
        ]


def _token_usage(usage: _Usage) -> TokenUsage:
    details = usage.prompt_tokens_details
    return TokenUsage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=0 if details is None else details.cached_tokens,
        completion_tokens=usage.completion_tokens or 0,
    )


def chat_body(chat: Chat, served: Served, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The request for ``chat``, with the fields of ``extra``; vLLM's own fields go to vLLM alone."""
    limits = chat.limits
    body: dict[str, Any] = {
        **extra,
        "model": served.name,
        "messages": [{"role": m.role, "content": m.content} for m in chat.messages],
        "max_tokens": limits.max_tokens,
        "temperature": limits.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if limits.seed is not None:
        body["seed"] = limits.seed
    if limits.stop:
        body["stop"] = list(limits.stop)
    if limits.logprobs:
        body["logprobs"] = True
    if limits.json_schema is not None:
        schema = {"name": "answer", "schema": dict(limits.json_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if served.is_vllm and chat.cache_salt:
        body["cache_salt"] = chat.cache_salt
    if served.is_vllm and chat.priority:
        body["priority"] = chat.priority
    return body


async def chat_chunks(response: httpx.Response) -> AsyncIterator[Chunk]:
    """The events of ``response`` up to ``[DONE]``.

    Raises BackendUnavailable when the stream breaks off, holds an error or what is no event.
    """
    try:
        async for line in response.aiter_lines():
            if not line.startswith(_DATA):
                continue
            data = line.removeprefix(_DATA).strip()
            if data == _DONE:
                return
            yield _chunk(data)
    except httpx.HTTPError as exc:
        raise BackendUnavailable(f"{response.url.host} broke the answer off: {_told(exc)}") from exc
    raise BackendUnavailable(f"{response.url.host} broke the answer off: its stream ended too early")


def _chunk(data: str) -> Chunk:
    try:
        event = json.loads(data)
        if isinstance(event, dict) and event.get("error"):
            raise _failure(event)
        return _Event.model_validate(event).chunk()
    except ValueError as exc:
        raise BackendUnavailable(f"the model's server sent no event: {data[:100]!r}") from exc


def _failure(event: Mapping[str, Any]) -> RagstoneError:
    """An error in the stream. Some requests are refused there only, since headers had gone out before."""
    told = _message(event) or json.dumps(event)[:_MESSAGE_CHARS]
    error = event["error"]
    code = error.get("code") if isinstance(error, Mapping) else None
    if code in _WRONG_REQUEST:
        return InvalidArgument(f"the model's server refuses the request: {told}")
    return BackendUnavailable(f"the model failed: {told}")


def served_models(listing: Any) -> list[Served]:
    """What ``GET /models`` lists. Raises BackendUnavailable for what is no listing."""
    try:
        return [
            Served(
                name=str(one["id"]),
                context_tokens=one.get("max_model_len"),
                is_vllm=one.get("owned_by") == "vllm",
            )
            for one in listing["data"]
        ]
    except (KeyError, TypeError, AttributeError) as exc:
        raise BackendUnavailable("the model's server lists no models at /models") from exc


async def refusal(response: httpx.Response) -> RagstoneError:
    """What a status that is none of success means; reads the body."""
    try:
        body = (await response.aread()).decode(errors="replace")
    except httpx.HTTPError as exc:
        return BackendUnavailable(f"{response.url.host}: {_told(exc)}")
    try:
        said = _message(json.loads(body)) or body
    except ValueError:
        said = body
    told = f"{response.url} answered {response.status_code}: {said[:_MESSAGE_CHARS].strip()}"
    match response.status_code:
        case code if code in _WRONG_REQUEST:
            return InvalidArgument(told)
        case 401 | 403:
            return FailedPrecondition(f"{told}; options.api_key_env names the variable of the key")
        case 404 | 405:
            return FailedPrecondition(f"{told}; options.url and options.model say what is asked")
        case 429 | 503:
            return Overloaded(told, retry_after_s=parse_retry_after(response.headers.get("Retry-After", "")))
        case _:
            return BackendUnavailable(told)


def unreached(url: str, exc: httpx.HTTPError) -> BackendUnavailable:
    """The server did not answer at all."""
    return BackendUnavailable(f"{url} does not answer: {_told(exc)}")


def _message(body: Any) -> str:
    """``{"error": {"message"}}``, ``{"error": text}``, ``{"message"}`` or ``{"detail"}``."""
    if not isinstance(body, Mapping):
        return ""
    error = body.get("error", body)
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("detail") or ""
    return str(error)


def _told(exc: httpx.HTTPError) -> str:
    return str(exc) or type(exc).__name__

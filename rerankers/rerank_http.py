"""A reranker behind ``POST /rerank``: text-embeddings-inference, vLLM, Jina, Cohere."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Literal

import httpx
import numpy as np
from pydantic import BaseModel, Field, field_validator
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_any,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from ragstone.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Overloaded,
    RagstoneError,
    parse_retry_after,
)
from rerankers import shapes
from rerankers.base import Reranker, Scores
from rerankers.circuit import Circuit
from rerankers.options import parse_options
from rerankers.shapes import Style

_CONNECT_S: Final = 5.0
_AWAY: Final = (502, 503, 504)
"""What servers, and proxies in front of them, say when nobody is at work."""
_PAUSE: Final = wait_random_exponential(multiplier=0.2, max=2.0)
_SLOW_S: Final = 1.0
"""A request that its caller gave up sooner says more about the caller's hurry than about the server."""
_MESSAGE_CHARS: Final = 300


class Options(BaseModel, frozen=True, extra="forbid"):
    """The recipe's ``reranker`` options."""

    url: str = Field(max_length=2000)
    """The whole address: ``http://HOST:PORT/rerank``."""
    style: Literal["auto", "tei", "cohere"] = "auto"
    """How requests and answers look; ``auto`` finds out with the first request."""
    model: str | None = Field(None, min_length=1, max_length=500)
    """As the server calls it; for servers that have several."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$")
    """The environment variable that has the key: recipes are stored and shown, so no key stands in one."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Fields that go with every request, as vLLM's ``truncate_prompt_tokens``."""
    batch_texts: int = Field(16, ge=1, le=1000)
    """Of one request."""
    concurrency: int = Field(8, ge=1, le=256)
    """Requests at once."""
    request_timeout_s: float = Field(10.0, gt=0, le=600)
    retries: int = Field(2, ge=0, le=20)
    failures: int = Field(3, ge=1, le=1000)
    """So many requests in a row without an answer, and the server is left alone for ``open_s``."""
    open_s: float = Field(5.0, gt=0, le=3600)

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("must be an http:// or https:// URL")
        if parsed.userinfo or parsed.query or parsed.fragment:
            raise ValueError("must have no user, query or fragment: a key belongs into api_key_env")
        return url


async def open_reranker(options: Mapping[str, Any]) -> Reranker:
    """A client of the server, which is asked nothing yet: it may come later.

    Raises InvalidArgument for wrong options, FailedPrecondition when the key's variable is not set.
    """
    return HttpReranker(parse_options(Options, options))


class _Again(Exception):
    """A request that may succeed when it is sent once more; ``error`` is what it means until then."""

    def __init__(self, error: RagstoneError) -> None:
        super().__init__(error.message)
        self.error = error


class _Before(stop_base):
    """No pause goes beyond the deadline ``end``, on the monotonic clock."""

    def __init__(self, end: float) -> None:
        self._end = end

    def __call__(self, retry_state: RetryCallState) -> bool:
        return monotonic() + retry_state.upcoming_sleep > self._end


class HttpReranker:
    """A ``Reranker`` over pooled connections. Batches go out in order; those that come back in time count."""

    def __init__(self, options: Options) -> None:
        key = _api_key(options.api_key_env)
        self._options = options
        self._style: Style | None = None if options.style == "auto" else options.style
        self._circuit = Circuit(failures=options.failures, open_s=options.open_s)
        self._turns = asyncio.Semaphore(options.concurrency)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(options.request_timeout_s, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=options.concurrency),
        )

    async def score(self, query: str, texts: Sequence[str], *, deadline_s: float | None) -> Scores:
        """Float32 ``(m,)``, as the server scores: the batches of first texts that came back in time.

        Raises DeadlineExceeded, BackendUnavailable, Overloaded when the server is busy, InvalidArgument for
        what it refuses, FailedPrecondition for a wrong key, model or address.
        """
        if self._client.is_closed:
            raise BackendUnavailable("the reranker is closed")
        if not texts:
            return np.empty(0, np.float32)
        size = self._options.batch_texts
        starts, scored = range(0, len(texts), size), dict[int, Scores]()
        todo = iter(starts)
        end = float("inf") if deadline_s is None else monotonic() + deadline_s

        async def work() -> None:
            for start in todo:
                scored[start] = await self._score_batch(query, texts[start : start + size], end)

        with suppress(TimeoutError):
            await _all(work, min(len(starts), self._options.concurrency), deadline_s)
        done = list(_prefix(starts, scored))
        if not done:
            raise DeadlineExceeded(f"{self._options.url} scored not one passage in {deadline_s:.3g} s")
        return np.concatenate(done)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    # -- inside ----------------------------------------------------------------------------------

    async def _score_batch(self, query: str, texts: Sequence[str], end: float) -> Scores:
        """In the server's shape; which one that is the first batch finds out."""
        if self._style is not None:
            return await self._score_as(self._style, query, texts, end)
        refused: list[RagstoneError] = []
        told: list[str] = []
        for style in _likely(self._options):
            try:
                found = await self._score_as(style, query, texts, end)
            except (InvalidArgument, FailedPrecondition) as exc:
                refused.append(exc)
                told.append(f"as {style}: {exc}")
            else:
                self._style = style
                return found
        raise type(refused[-1])("; ".join(told), violations=refused[-1].violations)

    async def _score_as(self, style: Style, query: str, texts: Sequence[str], end: float) -> Scores:
        body = shapes.request(style, query, texts, model=self._options.model)
        answer = await self._post({**body, **self._options.extra}, end)
        return shapes.scores(style, answer, len(texts))

    async def _post(self, body: Mapping[str, Any], end: float) -> Any:
        """The answer to ``body``, which is sent again while that helps and there is time."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_any(stop_after_attempt(1 + self._options.retries), _Before(end)),
            wait=_pause,
            reraise=True,
        )
        try:
            return await attempts(self._post_once, body)
        except _Again as exc:
            raise exc.error from exc

    async def _post_once(self, body: Mapping[str, Any]) -> Any:
        async with self._turns:
            self._circuit.check()
            response = await self._send(body)
        if response.status_code != httpx.codes.OK:
            raise self._failure(response)
        try:
            return response.json()
        except ValueError as exc:
            raise BackendUnavailable(f"{self._options.url} answered with what is no JSON") from exc

    async def _send(self, body: Mapping[str, Any]) -> httpx.Response:
        url, limit_s = self._options.url, self._options.request_timeout_s
        began = monotonic()
        try:
            # httpx's own timeouts are of a read or a write: a server that trickles would never be late.
            async with asyncio.timeout(limit_s):
                response = await self._client.post(url, json=body)
        except (TimeoutError, httpx.TimeoutException) as exc:
            self._circuit.failed()
            raise BackendUnavailable(f"{url} did not answer in {limit_s:g} s") from exc
        except httpx.HTTPError as exc:
            self._circuit.failed()
            raise _Again(BackendUnavailable(f"{url} is not there: {type(exc).__name__} {exc}")) from exc
        except asyncio.CancelledError:
            if monotonic() - began > _SLOW_S:
                self._circuit.failed()
            raise
        if response.status_code in _AWAY:
            self._circuit.failed()
        else:
            self._circuit.answered()
        return response

    def _failure(self, response: httpx.Response) -> Exception:
        """What a status means."""
        status = response.status_code
        said = f"{self._options.url} answered {status}: {_message(response)}"
        pause_s = parse_retry_after(response.headers.get("Retry-After", ""))
        if status == 429:
            return _Again(Overloaded(said, retry_after_s=pause_s))
        if status in _AWAY:
            return _Again(BackendUnavailable(said, retry_after_s=pause_s))
        if status in (401, 403):
            return FailedPrecondition.at("recipe.reranker.api_key_env", f"the key is refused: {said}")
        if status in (404, 405):
            return FailedPrecondition.at("recipe.reranker.url", f"is wrong, or the model is: {said}")
        return InvalidArgument(said) if status in (400, 413, 415, 422) else BackendUnavailable(said)


async def _all(work: Callable[[], Coroutine[Any, Any, None]], times: int, deadline_s: float | None) -> None:
    """``work`` so many times at once. Raises TimeoutError at the deadline, and the first error of any."""
    try:
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            for _ in range(times):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


def _prefix(starts: Sequence[int], scored: Mapping[int, Scores]) -> Iterator[Scores]:
    """The batches from the first on, up to one that is missing."""
    for start in starts:
        if start not in scored:
            return
        yield scored[start]


def _likely(options: Options) -> tuple[Style, Style]:
    """Both shapes; first that of the servers which are told a model, if one is told."""
    return ("tei", "cohere") if options.model is None else ("cohere", "tei")


def _pause(state: RetryCallState) -> float:
    """What the server asks for, else a little longer each time."""
    failure = state.outcome.exception() if state.outcome is not None else None
    asked_s = failure.error.retry_after_s if isinstance(failure, _Again) else None
    return _PAUSE(state) if asked_s is None else asked_s


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)  # noqa: TID251 - the recipe says which; its value is no setting
    if not key:
        raise FailedPrecondition.at(
            "recipe.reranker.api_key_env", f"the environment variable {variable} is not set"
        )
    return key


def _message(response: httpx.Response) -> str:
    """What the server says for people, short: some repeat the text."""
    try:
        told = response.json()
        told = told.get("error") or told.get("message") or told.get("detail")
        told = told.get("message") if isinstance(told, dict) else told
    except (ValueError, AttributeError):
        told = response.text
    return str(told or response.reason_phrase)[:_MESSAGE_CHARS]

"""Embeddings from a server that speaks OpenAI's ``POST /v1/embeddings``: vLLM, TEI, Infinity, OpenAI itself.

The request and the reply are those of OpenAI's API reference, "Create embeddings"; ``truncate_prompt_tokens``
is vLLM's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import httpx
import numpy as np
from pydantic import Field, field_validator

from embedders.base import Embedder, Space, Vectors
from embedders.options import parse_options
from embedders.remote.embedder import open_remote
from embedders.remote.options import RemoteOptions
from embedders.remote.transport import Away, Busy
from ragstone.errors import (
    BackendUnavailable,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    parse_retry_after,
)

_CONNECT_S: Final = 5.0
_BUSY_S: Final = 1.0
"""The pause where a busy server does not name one."""
_MESSAGE_CHARS: Final = 300
_LITTLE_ENDIAN: Final = np.dtype("<f4")


class Options(RemoteOptions):
    """The recipe's ``embedder`` options."""

    url: str = Field(max_length=2000)
    """Up to and with ``/v1``: ``/embeddings`` is appended."""
    model: str = Field(min_length=1, max_length=500)
    """As the server calls it."""
    max_tokens: int | None = Field(None, ge=4, le=131_072)
    """The longest text that the model takes; chunks are kept below it."""
    too_long: Literal["error", "truncate"] = "error"
    """``truncate`` has the server cut at ``max_tokens``, or at its own limit: vLLM alone can."""
    send_dimensions: bool = False
    """Whether the server cuts vectors to ``dim``; else they are cut here, which any server's model allows."""
    encoding_format: Literal["base64", "float"] = "base64"
    """How vectors travel; base64 is a quarter of the bytes, but not every server has it."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("must be an http:// or https:// URL")
        if parsed.userinfo or parsed.query or parsed.fragment:
            raise ValueError("must have no user, query or fragment: a key belongs into api_key_env")
        return url.rstrip("/")


async def open_embedder(options: Mapping[str, Any]) -> Embedder:
    """Ask the server for its dimension.

    Raises InvalidArgument for options that are wrong or that the server refuses, FailedPrecondition for a key
    or a model that it refuses, BackendUnavailable or Overloaded when it does not answer now.
    """
    parsed = parse_options(Options, options)

    async def describe() -> Space:
        # The protocol does not tell which weights a server has: the recipe may, else the vectors have to.
        return Space(
            name=parsed.model, dim=0, digest=parsed.revision or "", max_tokens=parsed.max_tokens or 0
        )

    return await open_remote(HttpTransport(parsed), describe, parsed)


class HttpTransport:
    """A ``Transport`` of OpenAI's shape, over pooled connections."""

    def __init__(self, options: Options) -> None:
        key = options.api_key()
        self._url = f"{options.url}/embeddings"
        self._rest = _constant_part(options)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(options.timeout_s, connect=min(_CONNECT_S, options.timeout_s)),
            limits=httpx.Limits(max_connections=options.concurrency),
        )

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Float32 ``(len(texts), width)``. Raises what ``Transport.embed`` does."""
        try:
            response = await self._client.post(self._url, json={**self._rest, "input": list(texts)})
        except httpx.ConnectTimeout as exc:
            raise Away(f"{self._url} does not accept connections") from exc
        except httpx.TimeoutException as exc:
            raise BackendUnavailable(f"{self._url} did not answer in time") from exc
        except httpx.HTTPError as exc:
            raise Away(f"{self._url} is not there: {type(exc).__name__} {exc}") from exc
        if response.status_code != httpx.codes.OK:
            raise self._failure(response)
        return _vectors(response, len(texts))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _failure(self, response: httpx.Response) -> Exception:
        """What a status means, for every server that was read: OpenAI, vLLM, TEI, Infinity."""
        status = response.status_code
        said = f"{self._url} answered {status}: {_message(response)}"
        match status:
            case 401 | 403:
                return FailedPrecondition.at("recipe.embedder.api_key_env", f"the key is refused: {said}")
            case 404 | 405:
                return FailedPrecondition.at(
                    "recipe.embedder.model", f"no such model, or no such URL: {said}"
                )
            case 429 | 503:
                pause_s = parse_retry_after(response.headers.get("Retry-After", ""))
                return Busy(said, retry_after_s=_BUSY_S if pause_s is None else pause_s)
            case 502 | 504:
                return Away(said)
            case 400 | 413 | 422:
                return InvalidArgument(said)
            case _:
                return Internal(said)


def _constant_part(options: Options) -> Mapping[str, object]:
    body: dict[str, object] = {"model": options.model, "encoding_format": options.encoding_format}
    if options.send_dimensions and options.dim is not None:
        body["dimensions"] = options.dim
    if options.too_long == "truncate":
        body["truncate_prompt_tokens"] = options.max_tokens or -1  # -1: at the model's own limit
    return body


def _vectors(response: httpx.Response, count: int) -> Vectors:
    """The rows of a reply, by their index. Raises Internal when it is not ``count`` vectors of one length."""
    try:
        rows = {int(row["index"]): row["embedding"] for row in response.json()["data"]}
        if sorted(rows) != list(range(count)):
            raise Internal(f"the embedding server gave {len(rows)} vectors for {count} texts")
        return np.stack([_vector(rows[i]) for i in range(count)])
    except (ValueError, TypeError, KeyError, binascii.Error) as exc:
        raise Internal(f"the embedding server's answer is not one of embeddings: {exc}") from exc


def _vector(embedding: str | Sequence[float]) -> Vectors:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), _LITTLE_ENDIAN)
    return np.array(embedding, np.float32)


def _message(response: httpx.Response) -> str:
    """What the server says for people, short: some repeat the text."""
    try:
        told = response.json()
        told = told.get("error") or told.get("message") or told.get("detail")
        told = told.get("message") if isinstance(told, dict) else told
    except (ValueError, AttributeError):
        told = response.text
    return str(told or response.reason_phrase)[:_MESSAGE_CHARS]

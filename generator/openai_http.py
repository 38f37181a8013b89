"""Any server of OpenAI's chat API: vLLM, SGLang, TGI, LMDeploy, TensorRT-LLM, OpenAI.

Of vLLM it also uses ``cache_salt``, priorities and ``/tokenize``. Closing the stream closes the connection,
which is how these servers learn that nobody wants the rest.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Annotated, Any, Final

import httpx
from pydantic import AfterValidator, Field

from generator.base import Generator
from generator.chat_generator import ChatGenerator, ChatOptions, prompt_builder
from generator.counting import LocalCounter, load_tokenizer
from generator.model_server import ModelServer
from generator.options import parse_options
from ragstone.errors import FailedPrecondition

_CONNECT_S: Final = 5.0
_SHORT_CALLS: Final = 32
"""Connections for counting, beside those of generations."""


def _http_url(url: str) -> str:
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("must be an http:// or https:// URL")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError("must have no user, query or fragment: a key belongs into api_key_env")
    return url.rstrip("/")


Url = Annotated[str, Field(max_length=2000), AfterValidator(_http_url)]


class Options(ChatOptions, frozen=True, extra="forbid"):
    """Options of the ``openai_http`` generator."""

    url: Url
    """Where the API begins: ``http://HOST:PORT/v1``."""
    replicas: tuple[Url, ...] = Field((), max_length=64)
    """More servers of the same model. Questions about the same passages go to the same one."""
    model: str | None = Field(None, min_length=1, max_length=500)
    """As the server calls it; without it, the first that the server lists."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$")
    """The environment variable that has the key."""
    tokenizer: str | None = None
    """A folder or file of the model's tokenizer. Without it vLLM counts; for others 3 bytes are a token."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Fields that go with every request, as ``top_p``."""


async def open_generator(options: Mapping[str, Any]) -> Generator:
    """A client of the server, which is asked nothing yet: it may come later.

    Raises InvalidArgument for wrong options, template or tokenizer, FailedPrecondition when the key's
    variable is not set.
    """
    return await asyncio.to_thread(_opened, parse_options(Options, options))


def _opened(options: Options) -> ChatGenerator:
    key, builder = _api_key(options.api_key_env), prompt_builder(options)
    count = None if options.tokenizer is None else LocalCounter(load_tokenizer(options.tokenizer))
    client = httpx.AsyncClient(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(None, connect=_CONNECT_S, pool=options.first_token_s),
        limits=httpx.Limits(max_connections=options.concurrency + _SHORT_CALLS),
    )
    urls = dict.fromkeys((options.url, *options.replicas))
    servers = [ModelServer(client, url, options.model, count=count, extra=options.extra) for url in urls]
    return ChatGenerator(servers, options, builder)


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)  # noqa: TID251 - the settings say which; its value is no setting
    if not key:
        raise FailedPrecondition.at("options.api_key_env", f"the environment variable {variable} is not set")
    return key

"""One model server: what it serves, how it counts, how much it is at work on, and answers that it begins."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from types import MappingProxyType
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from generator.chat_api import chat_body, chat_chunks, refusal, served_models, unreached
from generator.chat_model import BLOCK_SIZE, CACHE_TOKENS, Begun, Chat, Served
from generator.counting import ServerCounter, guess
from generator.prompt import Count
from ragstone.errors import BackendUnavailable, FailedPrecondition

_FORGET_S: Final = 60.0
"""After so long a server is asked again what it serves: it may have been started with another model."""
_DOWN_S: Final = 5.0
"""So long a server that did not answer is not chosen where there is another one."""
_CACHE_INFO: Final = "vllm:cache_config_info"


class ModelServer:
    """A ``ChatModel``: one server of OpenAI's chat API, which gets ``extra`` with every request."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        model: str | None,
        *,
        count: Count | None = None,
        extra: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.url = url
        self.in_flight = 0
        self._client = client
        self._model = model
        self._own_count = count
        self._extra = extra
        self._served: Served | None = None
        self._known_until_s = float("-inf")
        self._down_until_s = float("-inf")
        self.count: Count = count or guess

    @property
    def down(self) -> bool:
        """Whether it has not answered of late."""
        return monotonic() < self._down_until_s

    async def served(self) -> Served:
        """The model. Raises BackendUnavailable, FailedPrecondition where it serves another one."""
        if self._served is not None and monotonic() < self._known_until_s:
            return self._served
        response = await self._get(f"{self.url}/models")
        try:
            found = self._chosen(served_models(response.json()))
        except ValueError as exc:
            raise BackendUnavailable(f"{self.url}/models answers no JSON") from exc
        if found != self._served:
            self._served, self.count = found, self._counter(found)
        self._known_until_s = monotonic() + _FORGET_S
        return found

    async def cache(self, served: Served) -> tuple[int, int]:
        """Tokens that its prefix cache holds, and its block size: as vLLM's metrics tell, else a guess."""
        if not served.is_vllm:
            return CACHE_TOKENS, BLOCK_SIZE
        try:
            response = await self._get(f"{self._root}/metrics")
            return _cache_config(response.text)
        except (BackendUnavailable, FailedPrecondition, ValueError, KeyError):
            return CACHE_TOKENS, BLOCK_SIZE

    async def begin(self, chat: Chat) -> Begun:
        """The completion of ``chat``, once its first piece of text is there.

        Raises BackendUnavailable, and what a refusal means.
        """
        # From now on: while it waits for its first token, others are to go elsewhere.
        self.in_flight += 1
        try:
            return await self._begin(chat_body(chat, await self.served(), self._extra))
        except BaseException:
            self.in_flight -= 1
            raise

    async def end(self, begun: Begun) -> None:
        """Close the connection: the server stops what it still generates."""
        self.in_flight -= 1
        await begun.close()

    async def close(self) -> None:
        """Close the connections, which replicas share."""
        await self._client.aclose()

    async def _begin(self, body: dict[str, Any]) -> Begun:
        request = self._client.build_request("POST", f"{self.url}/chat/completions", json=body)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as exc:
            self._down_until_s = monotonic() + _DOWN_S
            raise unreached(self.url, exc) from exc
        try:
            if response.is_error:
                raise await refusal(response)
            chunks = chat_chunks(response)
            # The first event has only the role: a server that dies before the first token may be tried again.
            async for chunk in chunks:
                if chunk.text or chunk.logprobs or chunk.finish_reason or chunk.usage:
                    return Begun(chunk, chunks, response.aclose)
            raise BackendUnavailable(f"{self.url} answered nothing")
        except BaseException:
            await response.aclose()
            raise

    @property
    def _root(self) -> str:
        return self.url.removesuffix("/v1")

    async def _get(self, url: str) -> httpx.Response:
        try:
            response = await self._client.get(url)
        except httpx.HTTPError as exc:
            self._down_until_s = monotonic() + _DOWN_S
            raise unreached(url, exc) from exc
        if response.is_error:
            raise await refusal(response)
        return response

    def _chosen(self, models: list[Served]) -> Served:
        if self._model is None and models:
            return models[0]
        for served in models:
            if served.name == self._model:
                return served
        names = ", ".join(served.name for served in models) or "none"
        raise FailedPrecondition.at(
            "options.model", f"{self.url} serves {names}, and not {self._model or 'any'}"
        )

    def _counter(self, served: Served) -> Count:
        if self._own_count is not None:
            return self._own_count
        if not served.is_vllm:
            return guess
        return ServerCounter(self._client, f"{self._root}/tokenize", served.name)


def _cache_config(metrics: str) -> tuple[int, int]:
    """Raises ValueError, KeyError where vLLM's metrics do not tell."""
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == _CACHE_INFO:
                block_size = int(sample.labels["block_size"])
                return int(sample.labels["num_gpu_blocks"]) * block_size, block_size
    raise KeyError(_CACHE_INFO)

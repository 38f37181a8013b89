"""Who answers the prompts of benchmarks.prefix: a real vLLM, or a model of its prefix cache."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Final, Protocol, Self

import httpx
from tokenizers import Tokenizer

from tests.vllm.server import MODELS, VllmServer

MODEL: Final = "mid"
KV_BYTES_PER_TOKEN: Final = 16 * 1_024
"""8 layers of keys and values of 512 numbers of 2 bytes."""
BLOCK_SIZE: Final = 32
ANSWER_TOKENS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What one prompt cost."""

    prompt_tokens: int
    cached_tokens: int
    ttft_ms: float | None
    """To the first piece of the stream; None where nothing is generated."""


class Engine(Protocol):
    """Answers prompts one after another; a context manager, with an empty cache at its beginning."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def ask(self, system: str, user: str) -> Answered:
        """Answer a prompt of two messages."""
        ...


def tokenizer() -> Tokenizer:
    """The model's own."""
    return Tokenizer.from_file(str(MODELS / MODEL / "tokenizer.json"))


class Vllm:
    """A server of its own."""

    def __init__(self, *, kv_tokens: int) -> None:
        self._server = VllmServer(
            model=MODEL,
            max_model_tokens=8_192,
            kv_cache_bytes=kv_tokens * KV_BYTES_PER_TOKEN,
            block_size=BLOCK_SIZE,
        )
        self._client = httpx.Client(timeout=120.0)

    def __enter__(self) -> Self:
        self._server.start()
        self._ask("warm", "The first request pays for what is made once.", cache_salt="warm")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._server.stop()

    def ask(self, system: str, user: str) -> Answered:
        """Answer a prompt, and time it."""
        return self._ask(system, user, cache_salt="tenant")

    def _ask(self, system: str, user: str, *, cache_salt: str) -> Answered:
        body = {
            "model": MODEL,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_salt": cache_salt,
        }
        began, times, last = perf_counter(), [], ""
        with self._client.stream("POST", f"{self._server.base_url}/chat/completions", json=body) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    times.append(perf_counter())
                    last = line.removeprefix("data: ")
        usage: Mapping[str, int] = json.loads(last)["usage"]
        details: Mapping[str, int] = json.loads(last)["usage"]["prompt_tokens_details"]
        return Answered(
            prompt_tokens=usage["prompt_tokens"],
            cached_tokens=details["cached_tokens"] or 0,
            ttft_ms=(times[0] - began) * 1e3,
        )


class CacheModel:
    """vLLM's automatic prefix caching, as its documentation has it; what is generated is left out.

    A block is known by its tokens and the block before it. The one that was longest unused makes room, a
    prompt's end before its beginning. The last token is always computed.
    """

    def __init__(self, *, kv_tokens: int) -> None:
        self._tokenizer = tokenizer()
        self._capacity = kv_tokens // BLOCK_SIZE
        self._by_use: OrderedDict[int, None] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._by_use.clear()

    def ask(self, system: str, user: str) -> Answered:
        """Count what would be found in the cache."""
        prompt = f"<|begin|><|system|>{system}<|end|><|user|>{user}<|end|><|assistant|>"
        tokens = self._tokenizer.encode(prompt).ids
        blocks = _chain(tokens)
        known = 0
        while known < min(len(blocks), (len(tokens) - 1) // BLOCK_SIZE) and blocks[known] in self._by_use:
            known += 1
        for block in reversed(blocks):
            self._by_use[block] = None
            self._by_use.move_to_end(block)
        while len(self._by_use) > self._capacity:
            self._by_use.popitem(last=False)
        return Answered(prompt_tokens=len(tokens), cached_tokens=known * BLOCK_SIZE, ttft_ms=None)


def _chain(tokens: Sequence[int]) -> list[int]:
    blocks, before = [], 0
    for start in range(0, len(tokens) - BLOCK_SIZE + 1, BLOCK_SIZE):
        before = hash((before, *tokens[start : start + BLOCK_SIZE]))
        blocks.append(before)
    return blocks

"""Counting in the model's own tokens: by its tokenizer where that is here, else by its server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import httpx
from cachetools import LRUCache
from tokenizers import Tokenizer

from generator.chat_api import refusal, unreached
from ragstone.errors import BackendUnavailable, InvalidArgument

_INLINE_CHARS: Final = 20_000
"""Up to so many characters are counted on the event loop: some 5 ms."""
_KNOWN_TEXTS: Final = 50_000
_AT_ONCE: Final = 16
_BYTES_PER_TOKEN: Final = 3
"""A guess on the safe side: English has 4 and more, most other languages 3 with today's vocabularies."""


class LocalCounter:
    """Counts with a tokenizer in this process."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def __call__(self, texts: Sequence[str]) -> Sequence[int]:
        """The tokens of each of ``texts``, without those that begin or end a sequence."""
        if sum(map(len, texts)) <= _INLINE_CHARS:
            return self._count(texts)
        return await asyncio.to_thread(self._count, texts)

    def _count(self, texts: Sequence[str]) -> Sequence[int]:
        return [len(e.ids) for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


class ServerCounter:
    """Counts by ``POST /tokenize`` of vLLM. Texts that were counted before are remembered."""

    def __init__(self, client: httpx.AsyncClient, url: str, model: str) -> None:
        self._client = client
        self._url = url
        self._model = model
        self._known: LRUCache[bytes, int] = LRUCache(_KNOWN_TEXTS)
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, texts: Sequence[str]) -> Sequence[int]:
        """The tokens of each of ``texts``. Raises BackendUnavailable."""
        return await asyncio.gather(*map(self._count, texts))

    async def _count(self, text: str) -> int:
        key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._known.get(key)
        if known is None:
            async with self._turns:
                known = self._known[key] = await self._ask(text)
        return known

    async def _ask(self, text: str) -> int:
        asked = {"model": self._model, "prompt": text, "add_special_tokens": False}
        try:
            response = await self._client.post(self._url, json=asked)
        except httpx.HTTPError as exc:
            raise unreached(self._url, exc) from exc
        if response.is_error:
            raise await refusal(response)
        try:
            return int(response.json()["count"])
        except (ValueError, KeyError, TypeError) as exc:
            raise BackendUnavailable(f"{self._url} does not say how many tokens a text has") from exc


async def guess(texts: Sequence[str]) -> Sequence[int]:
    """For servers that do not count, and models whose tokenizer is not here."""
    return [-(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN) for text in texts]


def load_tokenizer(path: str) -> Tokenizer:
    """A ``tokenizer.json``, or the one in a folder. Raises InvalidArgument where there is none."""
    file = Path(path)
    file = file / "tokenizer.json" if file.is_dir() else file
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, json.JSONDecodeError) as exc:
        raise InvalidArgument.at("options.tokenizer", f"no tokenizer.json at {path}: {exc}") from exc
    except Exception as exc:  # `tokenizers` raises plain Exception for what does not parse
        raise InvalidArgument.at("options.tokenizer", f"{file} does not parse: {exc}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer

"""Vectors of queries: computed once for a search, and kept for those who ask the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import TypeVar

from cachetools import LRUCache

from embedders.base import Embedder, Encoded, TokenEncoder, Vectors
from ragstone.errors import InvalidArgument
from retrieval.telemetry import Metrics

T = TypeVar("T", Vectors, Encoded)
_Key = tuple[str, str, bytes, str]

Encode = Callable[[], Awaitable[Encoded]]


class QueryVectors:
    """The last vectors by space, tenant and text; the one that was used longest ago goes first.

    A tenant finds its own alone: how fast an answer comes tells nobody what others have asked. A query's
    tokens count as a vector each.
    """

    def __init__(self, *, max_vectors: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._cache: LRUCache[_Key, Vectors | Encoded] | None = None
        if max_vectors:
            self._cache = LRUCache(max_vectors, getsizeof=_vectors)

    async def of(self, embedder: Embedder, text: str, *, tenant: str) -> Vectors:
        """A query's vector ``(1, dim)``, float32. Raises what the embedder raises; no failure is kept."""
        encoded = None if self._cache is None else self._cache.get(_key(embedder, text, tenant, "tokens"))
        if isinstance(encoded, Encoded):
            self._metrics.looked_up(hit=True)
            return encoded.vector[None, :]
        key = _key(embedder, text, tenant, "vector")
        return await self._found(key, lambda: embed_anew(embedder, text, tenant=tenant))

    async def encoded(self, embedder: Embedder, text: str, *, tenant: str) -> Encoded:
        """A query's vector and tokens, of an embedder that is a ``TokenEncoder``. Raises as ``of`` does."""
        key = _key(embedder, text, tenant, "tokens")
        return await self._found(key, lambda: encode_anew(embedder, text, tenant=tenant))

    async def _found(self, key: _Key, compute: Callable[[], Awaitable[T]]) -> T:
        if self._cache is None:
            return await compute()
        found = self._cache.get(key)
        self._metrics.looked_up(hit=found is not None)
        if found is None:
            found = await compute()
            _freeze(found)  # many will read it
            if _vectors(found) <= self._cache.maxsize:
                self._cache[key] = found
        return found  # type: ignore[return-value] # keys tell them apart


async def embed_anew(embedder: Embedder, text: str, *, tenant: str) -> Vectors:
    """A query's vector, computed whatever was asked before: for what is to be measured.

    Raises what the embedder raises, with what is wrong in the text named ``text``.
    """
    with _naming_the_text():
        return await embedder.embed_queries([text], tenant=tenant)


async def encode_anew(embedder: Embedder, text: str, *, tenant: str) -> Encoded:
    """A query's vector and tokens, computed whatever was asked before. Raises as ``embed_anew`` does."""
    assert isinstance(embedder, TokenEncoder)
    with _naming_the_text():
        [encoded] = await embedder.encode_queries([text], tenant=tenant)
    return encoded


@contextmanager
def _naming_the_text() -> Iterator[None]:
    try:
        yield
    except InvalidArgument as exc:
        if not exc.violations:
            raise
        # To the embedder it was the only one of its texts.
        raise InvalidArgument.at("text", exc.violations[0].description) from exc


def once(encode: Encode) -> Encode:
    """``encode``, called when it is first asked for; everybody who asks gets what came of that."""
    running: asyncio.Future[Encoded] | None = None

    async def shared() -> Encoded:
        nonlocal running
        if running is None:
            running = asyncio.ensure_future(encode())
        # Whoever is cancelled leaves the others what they wait for.
        return await asyncio.shield(running)

    return shared


def _key(embedder: Embedder, text: str, tenant: str, what: str) -> _Key:
    return embedder.space.id, tenant, blake2b(text.encode("utf-8", "surrogatepass")).digest(), what


def _vectors(value: Vectors | Encoded) -> int:
    return 1 + len(value.tokens) if isinstance(value, Encoded) else 1


def _freeze(value: Vectors | Encoded) -> None:
    for array in (value.vector, value.tokens) if isinstance(value, Encoded) else (value,):
        array.setflags(write=False)

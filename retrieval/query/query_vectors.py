"""Vectors of queries that were asked before."""

from __future__ import annotations

from hashlib import blake2b

from cachetools import LRUCache

from embedders.base import Embedder, Vectors
from retrieval.telemetry import Metrics

_Key = tuple[str, str, bytes]


async def embed_anew(embedder: Embedder, text: str) -> Vectors:
    """A query's vector, computed whatever was asked before: for what is to be measured."""
    return await embedder.embed_queries([text])


class QueryVectors:
    """The last vectors by space, tenant and text; the one that was used longest ago goes first.

    A tenant finds its own alone: how fast an answer comes tells nobody what others have asked.
    """

    def __init__(self, *, max_entries: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._cache: LRUCache[_Key, Vectors] | None = LRUCache(max_entries) if max_entries else None

    async def of(self, embedder: Embedder, text: str, *, tenant: str) -> Vectors:
        """A query's vector ``(1, dim)``, float32. Raises what the embedder raises; no failure is kept."""
        if self._cache is None:
            return await embed_anew(embedder, text)
        key = embedder.space.id, tenant, blake2b(text.encode("utf-8", "surrogatepass")).digest()
        found = self._cache.get(key)
        self._metrics.looked_up(hit=found is not None)
        if found is None:
            found = self._cache[key] = await embed_anew(embedder, text)
        return found.copy()

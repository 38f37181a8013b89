"""The cache of query vectors: what is found again, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from embedders.base import Encoded, Vectors
from embedders.hashing import HashingEmbedder
from ragstone.errors import Overloaded
from retrieval.query.query_vectors import QueryVectors, encode_anew, once
from retrieval.telemetry import QUERY_VECTORS
from retrieval.wiring import make_metrics


class CountingEmbedder(HashingEmbedder):
    """Knows which texts it was asked for."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__(dim=dim)
        self.asked: list[str] = []

    async def embed_queries(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        self.asked += texts
        return await super().embed_queries(texts, tenant=tenant)


def kept(max_vectors: int = 8) -> QueryVectors:
    return QueryVectors(max_vectors=max_vectors, metrics=make_metrics())


async def test_a_text_is_embedded_once_for_a_tenant() -> None:
    embedder, vectors = CountingEmbedder(), kept()
    first = await vectors.of(embedder, "a light", tenant="t")
    again = await vectors.of(embedder, "a light", tenant="t")
    assert embedder.asked == ["a light"]
    np.testing.assert_array_equal(first, again)


async def test_what_one_tenant_asked_makes_nobody_else_faster() -> None:
    embedder, vectors = CountingEmbedder(), kept()
    for tenant in ("one", "another"):
        await vectors.of(embedder, "a light", tenant=tenant)
    assert embedder.asked == ["a light", "a light"]


async def test_a_vector_of_another_space_is_never_given() -> None:
    vectors = kept()
    found = [await vectors.of(CountingEmbedder(dim), "a light", tenant="t") for dim in (64, 32, 64)]
    assert [vector.shape[1] for vector in found] == [64, 32, 64]


async def test_what_was_used_longest_ago_goes_first() -> None:
    embedder, vectors = CountingEmbedder(), kept(max_vectors=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await vectors.of(embedder, text, tenant="t")
    assert embedder.asked == ["a", "b", "c", "b"]


async def test_nothing_is_kept_where_there_is_no_room() -> None:
    embedder, vectors = CountingEmbedder(), kept(max_vectors=0)
    for _ in range(2):
        await vectors.of(embedder, "a light", tenant="t")
    assert len(embedder.asked) == 2


async def test_nobody_can_change_what_others_will_get() -> None:
    embedder, vectors = CountingEmbedder(), kept()
    first = await vectors.of(embedder, "a light", tenant="t")
    with pytest.raises(ValueError, match="read-only"):
        first[:] = 0


async def test_tokens_come_with_their_vector_and_take_room_each() -> None:
    embedder, vectors = HashingEmbedder(dim=64), kept(max_vectors=5)
    first = await vectors.encoded(embedder, "a light at dusk", tenant="t")
    np.testing.assert_array_equal(first.vector[None], await embedder.embed_queries(["a light at dusk"]))
    assert await vectors.encoded(embedder, "a light at dusk", tenant="t") is first
    await vectors.encoded(embedder, "another", tenant="t")
    assert await vectors.encoded(embedder, "a light at dusk", tenant="t") is not first


async def test_a_query_is_encoded_once_for_all_who_wait() -> None:
    embedder, calls = HashingEmbedder(dim=64), 0

    async def encode() -> Encoded:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return await encode_anew(embedder, "a light", tenant="t")

    shared = once(encode)
    first, second = await asyncio.gather(shared(), shared())
    assert calls == 1
    assert first is second is await shared()


async def test_a_failure_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, vectors = CountingEmbedder(), kept()

    async def full(_: Sequence[str], *, tenant: str) -> Vectors:
        raise Overloaded("too many texts wait for the embedder")

    with monkeypatch.context() as broken:
        broken.setattr(embedder, "embed_queries", full)
        with pytest.raises(Overloaded):
            await vectors.of(embedder, "a light", tenant="t")
    assert (await vectors.of(embedder, "a light", tenant="t")).shape == (1, 64)


async def test_hits_and_misses_are_counted() -> None:
    metrics = make_metrics()
    vectors = QueryVectors(max_vectors=8, metrics=metrics)
    for _ in range(3):
        await vectors.of(CountingEmbedder(), "a light", tenant="t")
    counted = [
        metrics.registry.get_sample_value(QUERY_VECTORS, {"outcome": name}) for name in ("hit", "miss")
    ]
    assert counted == [2.0, 1.0]

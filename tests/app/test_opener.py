"""The opener of back ends: what it keeps, and whom it tells."""

from __future__ import annotations

from retrieval.versions.recipe import EmbedderSpec, RerankerSpec
from retrieval.wiring import RegistryOpener


def _hashing(dim: int) -> EmbedderSpec:
    return EmbedderSpec.model_validate({"kind": "hashing", "dim": dim})


async def test_equal_specs_share_one_embedder() -> None:
    opener = RegistryOpener()
    assert await opener.embedder(_hashing(64)) is await opener.embedder(_hashing(64))
    await opener.close()


async def test_specs_that_differ_in_how_scores_are_used_share_one_reranker() -> None:
    opener = RegistryOpener()
    embedder = await opener.embedder(_hashing(64))
    one, other, third = [
        RerankerSpec.model_validate({"kind": "rerank_http", "url": f"http://{host}/rerank", "depth": depth})
        for host, depth in (("a", 10), ("a", 50), ("b", 10))
    ]
    reranker = await opener.reranker(one, embedder)
    assert await opener.reranker(other, embedder) is reranker
    assert await opener.reranker(third, embedder) is not reranker
    assert await opener.reranker(RerankerSpec(), embedder) is None
    await opener.close()


async def test_every_embedder_that_is_new_is_told_of_once() -> None:
    told: list[None] = []
    opener = RegistryOpener(when_opened=lambda: told.append(None))
    for dim in (64, 32, 64, 32):
        await opener.embedder(_hashing(dim))
    assert len(told) == 2
    await opener.close()

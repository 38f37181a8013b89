"""Every reranker keeps the promises of the protocol."""

from pathlib import Path
from typing import Any

import pytest

from embedders.hashing import HashingEmbedder
from rerankers.base import Reranker
from rerankers.conformance import RERANKER_CHECKS, Check
from rerankers.late_interaction import LateInteractionReranker
from rerankers.registry import BACKENDS, open_reranker
from tests.rerankers.servers import RerankServer


async def late_interaction() -> Reranker:
    return LateInteractionReranker(HashingEmbedder(dim=64))


@pytest.mark.parametrize("check", RERANKER_CHECKS, ids=lambda check: check.__name__)
async def test_cross_encoder(cross_encoder: Path, check: Check) -> None:
    options = {"model": str(cross_encoder), "device": "cpu", "workers": 2, "batch_tokens": 300}
    await check(lambda: open_reranker("cross_encoder", options))


@pytest.mark.parametrize("check", RERANKER_CHECKS, ids=lambda check: check.__name__)
async def test_rerank_http(server: RerankServer, check: Check) -> None:
    options: dict[str, Any] = {"url": server.url, "batch_texts": 3}
    await check(lambda: open_reranker("rerank_http", options))


@pytest.mark.parametrize("check", RERANKER_CHECKS, ids=lambda check: check.__name__)
async def test_late_interaction(check: Check) -> None:
    await check(late_interaction)


def test_no_reranker_is_left_out() -> None:
    assert set(BACKENDS) == {"cross_encoder", "rerank_http"}

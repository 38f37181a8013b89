"""A real vLLM that scores pairs: RAGSTONE_VLLM_URL is its address, with /v1."""

import os
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from ragstone.errors import FailedPrecondition
from rerankers.conformance import RERANKER_CHECKS, Check
from rerankers.registry import open_reranker

pytestmark = pytest.mark.service


@pytest.fixture
def options() -> Mapping[str, Any]:
    """The recipe's options for the server."""
    url = os.environ.get("RAGSTONE_VLLM_URL")
    if not url:
        pytest.skip("no vLLM: set RAGSTONE_VLLM_URL to one that runs a pooling model")
    [model] = httpx.get(f"{url}/models").json()["data"]
    return {"url": f"{url}/rerank", "model": model["id"], "extra": {"truncate_prompt_tokens": -1}}


@pytest.mark.parametrize("check", RERANKER_CHECKS, ids=lambda check: check.__name__)
async def test_vllm(options: Mapping[str, Any], check: Check) -> None:
    await check(lambda: open_reranker("rerank_http", options))


@pytest.mark.parametrize("style", ["auto", "cohere"])
async def test_the_passage_that_answers_is_the_best(options: Mapping[str, Any], style: str) -> None:
    reranker = await open_reranker("rerank_http", {**options, "style": style})
    texts = ["Bees store honey.", "The lamp of the tower is lit at dusk.", "Ships sail in convoys."]
    scores = await reranker.score("when is the light of the tower switched on?", texts, deadline_s=60.0)
    assert int(scores.argmax()) == 1
    await reranker.close()


async def test_an_unknown_model_is_refused(options: Mapping[str, Any]) -> None:
    reranker = await open_reranker("rerank_http", {**options, "model": "nobodys-model"})
    with pytest.raises(FailedPrecondition, match="nobodys-model"):
        await reranker.score("query", ["text"], deadline_s=60.0)
    await reranker.close()

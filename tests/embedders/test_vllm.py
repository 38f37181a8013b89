"""A real vLLM with the default model: RAGSTONE_VLLM_URL is its address, with /v1."""

import os
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest

from embedders.base import Embedder
from embedders.conformance import EMBEDDER_CHECKS, Check
from embedders.registry import open_embedder
from embedders.weights import DEFAULT_MODEL
from ragstone.errors import FailedPrecondition, InvalidArgument

pytestmark = pytest.mark.service

TEXTS = [f"Ship number {i} sails on to the harbour of Lindholm. " * (i % 5 + 1) for i in range(100)]


@pytest.fixture
def options() -> Mapping[str, Any]:
    """The recipe's options for the server."""
    url = os.environ.get("RAGSTONE_VLLM_URL")
    if not url:
        pytest.skip("no vLLM: set RAGSTONE_VLLM_URL to one that serves the default model")
    [model] = httpx.get(f"{url}/models").json()["data"]
    return {"url": url, "model": model["id"]}


@pytest.mark.parametrize("check", EMBEDDER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_vllm(options: Mapping[str, Any], encoding: str, check: Check) -> None:
    asked = {**options, "too_long": "truncate", "encoding_format": encoding}
    await check(lambda: open_embedder("openai_http", asked))


@pytest.mark.asyncio(loop_scope="session")
async def test_its_vectors_are_the_models(options: Mapping[str, Any], minilm: Embedder) -> None:
    embedder = await open_embedder("openai_http", {**options, "tokenizer": DEFAULT_MODEL})
    got, wanted = await embedder.embed_passages(TEXTS), await minilm.embed_passages(TEXTS)
    assert (got * wanted).sum(axis=1).min() > 0.9999
    await embedder.close()


async def test_a_text_that_is_too_long_is_named_by_its_position(options: Mapping[str, Any]) -> None:
    embedder = await open_embedder("openai_http", options)
    with pytest.raises(InvalidArgument, match="context length") as caught:
        await embedder.embed_passages([*TEXTS[:40], "word " * 700, *TEXTS[40:]])
    assert [violation.field for violation in caught.value.violations] == ["texts[40]"]
    await embedder.close()


async def test_a_text_that_is_too_long_is_cut_where_the_recipe_says_so(options: Mapping[str, Any]) -> None:
    embedder = await open_embedder("openai_http", {**options, "too_long": "truncate"})
    cut, short = await embedder.embed_passages(["word " * 700, "word " * 254])
    assert float(np.dot(cut, short)) > 0.9999
    await embedder.close()


async def test_an_unknown_model_is_refused(options: Mapping[str, Any]) -> None:
    with pytest.raises(FailedPrecondition, match="no such model"):
        await open_embedder("openai_http", {**options, "model": "nobodys-model"})

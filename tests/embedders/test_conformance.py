"""Every embedder keeps the promises of the protocol."""

from collections.abc import Mapping
from typing import Any

import pytest

from embedders.conformance import EMBEDDER_CHECKS, TOKEN_ENCODER_CHECKS, Check
from embedders.registry import open_embedder
from tests.embedders.servers import OpenAIServer, TeiServer

LOCAL: Mapping[str, Mapping[str, Any]] = {
    "hashing": {},
    "sentence_transformer": {"device": "cpu", "workers": 2, "batch_tokens": 300},
}


@pytest.mark.parametrize("check", EMBEDDER_CHECKS + TOKEN_ENCODER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", LOCAL)
async def test_embedder(kind: str, check: Check) -> None:
    await check(lambda: open_embedder(kind, LOCAL[kind]))


@pytest.mark.parametrize("check", EMBEDDER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_openai_http(openai_server: OpenAIServer, encoding: str, check: Check) -> None:
    options = {"url": openai_server.url, "model": "hashing", "encoding_format": encoding, "batch_texts": 3}
    await check(lambda: open_embedder("openai_http", options))


@pytest.mark.parametrize("check", EMBEDDER_CHECKS, ids=lambda check: check.__name__)
async def test_tei(tei_server: TeiServer, check: Check) -> None:
    options = {"address": tei_server.address, "batch_texts": 3, "query_prompt": "query: "}
    await check(lambda: open_embedder("tei", options))

"""Every embedder keeps the promises of the protocol."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from embedders.conformance import EMBEDDER_CHECKS, TOKEN_ENCODER_CHECKS, Check
from embedders.onnx_int8 import int8_is_exact
from embedders.registry import open_embedder
from tests.embedders.servers import OpenAIServer, TeiServer

SMALL_BATCHES = {"workers": 2, "batch_tokens": 300}
LOCAL: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "hashing": ("hashing", {}),
    "sentence_transformer": ("sentence_transformer", {"device": "cpu", **SMALL_BATCHES}),
    "onnx": ("onnx", SMALL_BATCHES),
    "onnx, int8": ("onnx", {"precision": "int8", **SMALL_BATCHES}),
}


@pytest.fixture(scope="module", autouse=True)
def _graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Graphs are exported once for all checks, and not into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("check", EMBEDDER_CHECKS + TOKEN_ENCODER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", LOCAL)
async def test_embedder(name: str, check: Check) -> None:
    kind, options = LOCAL[name]
    if options.get("precision") == "int8" and not int8_is_exact():
        pytest.skip("this CPU is not exact in int8")
    await check(lambda: open_embedder(kind, options))


@pytest.mark.parametrize("check", EMBEDDER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_openai_http(openai_server: OpenAIServer, encoding: str, check: Check) -> None:
    options = {"url": openai_server.url, "model": "hashing", "encoding_format": encoding, "batch_texts": 3}
    await check(lambda: open_embedder("openai_http", options))


@pytest.mark.parametrize("check", EMBEDDER_CHECKS, ids=lambda check: check.__name__)
async def test_tei(tei_server: TeiServer, check: Check) -> None:
    options = {"address": tei_server.address, "batch_texts": 3, "query_prompt": "query: "}
    await check(lambda: open_embedder("tei", options))

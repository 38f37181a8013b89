"""What the other tests take for granted of a vLLM server."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.vllm.conftest import MakeVllmServer
from tests.vllm.server import VllmServer

pytestmark = pytest.mark.vllm

TEXT = "The lamp of the tower is lit at dusk, and the keeper notes the hour in the book. " * 12


@pytest.fixture
def salt() -> str:
    """A tenant whose prompts nobody has sent before."""
    return uuid4().hex


def ask(server: VllmServer, question: str, salt: str) -> dict[str, Any]:
    asked = {
        "model": server.model,
        "messages": [{"role": "user", "content": TEXT + question}],
        "max_tokens": 4,
        "temperature": 0,
        "cache_salt": salt,
    }
    answer = httpx.post(f"{server.base_url}/chat/completions", json=asked, timeout=60.0)
    return dict(answer.raise_for_status().json())


def cached_tokens(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"] or 0)


def test_it_serves_the_model_by_its_name(vllm_server: VllmServer) -> None:
    [model] = httpx.get(f"{vllm_server.base_url}/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == (vllm_server.model, vllm_server.max_model_tokens)


def test_it_counts_tokens(vllm_server: VllmServer) -> None:
    assert vllm_server.count_tokens("") == 0
    assert 1 < vllm_server.count_tokens("The lamp") < vllm_server.count_tokens(TEXT)


def test_a_repeated_prefix_comes_from_its_cache_in_whole_blocks(vllm_server: VllmServer, salt: str) -> None:
    first, second = (ask(vllm_server, question, salt) for question in ("Who lit it?", "What is noted?"))
    assert cached_tokens(first) == 0
    shared = cached_tokens(second)
    assert shared % vllm_server.block_size == 0
    assert 0 < second["usage"]["prompt_tokens"] - shared < 3 * vllm_server.block_size


def test_another_salt_shares_nothing(vllm_server: VllmServer, salt: str) -> None:
    ask(vllm_server, "Who lit it?", salt)
    assert cached_tokens(ask(vllm_server, "Who lit it?", f"{salt}-other")) == 0


def test_its_metrics_count_the_cached_tokens(vllm_server: VllmServer, salt: str) -> None:
    before = vllm_server.metric("vllm:prefix_cache_hits_total")
    hits = sum(cached_tokens(ask(vllm_server, "Who lit it?", salt)) for _ in range(3))
    assert vllm_server.metric("vllm:prefix_cache_hits_total") - before == hits > 0


def test_an_unknown_metric_is_named(vllm_server: VllmServer) -> None:
    with pytest.raises(KeyError, match="vllm:nothing"):
        vllm_server.metric("vllm:nothing")


def test_a_killed_server_starts_again_where_it_was(make_vllm_server: MakeVllmServer, salt: str) -> None:
    server = make_vllm_server(dev_mode=True)
    server.start()
    address = server.base_url
    server.kill()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{address}/models")
    server.start()
    assert server.base_url == address
    ask(server, "Who lit it?", salt)
    server.reset_prefix_cache()
    assert cached_tokens(ask(server, "Who lit it?", salt)) == 0

"""Answers by a real vLLM: streams, forms, limits, failures, and whose cache is whose.

The model is tiny and writes nonsense; where its words matter, vLLM itself makes it write by a pattern.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from generator.base import (
    Condenser,
    Delta,
    End,
    Generated,
    Generator,
    Limits,
    Passage,
    Prompt,
    Quote,
)
from generator.circuit import Circuit
from generator.extractive import ExtractiveGenerator
from generator.fallback import Candidate, FallbackGenerator
from generator.registry import open_generator
from ragstone.answers import FinishReason, Role, Turn
from ragstone.errors import BackendUnavailable, InvalidArgument
from tests.vllm.conftest import MakeVllmServer
from tests.vllm.server import VllmServer

pytestmark = pytest.mark.vllm

LAMP = "The lamp of the tower is lit at dusk. The keeper notes the hour in the book."
PROMPT = Prompt(
    question="When is the lamp lit?",
    passages=(
        Passage(chunk_id="a#0", document_id="a", text=LAMP),
        Passage(chunk_id="b#0", document_id="b", text="Bees store honey in combs of wax. " * 20),
    ),
)


@asynccontextmanager
async def opened(server: VllmServer, **options: Any) -> AsyncIterator[Generator]:
    generator = await open_generator("openai_http", {"url": server.base_url, **options})
    try:
        yield generator
    finally:
        await generator.close()


async def answer(
    server: VllmServer,
    prompt: Prompt = PROMPT,
    *,
    max_tokens: int = 8,
    salt: str = "",
    extra: dict[str, Any] | None = None,
    **limits: Any,
) -> list[Generated]:
    async with opened(server, extra=extra or {}) as generator:
        stream = generator.stream(prompt, Limits(max_tokens=max_tokens, **limits), cache_salt=salt)
        return [item async for item in stream]


def text_of(items: list[Generated]) -> str:
    return "".join(item.text for item in items if isinstance(item, Delta))


def end_of(items: list[Generated]) -> End:
    assert isinstance(items[-1], End)
    return items[-1]


async def until(met: Any) -> None:
    while not await asyncio.to_thread(met):
        pass


async def test_an_answer_streams_and_ends_with_its_usage(vllm_server: VllmServer) -> None:
    items = await answer(vllm_server, max_tokens=32, extra={"ignore_eos": True})
    assert sum(isinstance(item, Delta) for item in items) > 1
    end = end_of(items)
    assert (end.finish_reason, end.model) == (FinishReason.LENGTH, vllm_server.model)
    assert end.usage.completion_tokens == 32
    assert end.usage.ttft_ms > 0


async def test_marks_of_a_model_become_citations_of_passages(vllm_server: VllmServer) -> None:
    pattern = {"structured_outputs": {"regex": r"The lamp is lit at dusk \[1\]\. Bees sleep \[9\]\."}}
    items = await answer(vllm_server, max_tokens=64, extra=pattern)
    end = end_of(items)
    first = end.sent[0]
    assert text_of(items) == f"The lamp is lit at dusk [{first + 1}]. Bees sleep."
    [quote] = [item for item in items if isinstance(item, Quote)]
    assert quote.passage == first
    assert end.removed_marks == 1


async def test_an_answer_in_a_schema_is_json_that_fits(vllm_server: VllmServer) -> None:
    schema = {
        "type": "object",
        "properties": {"lit": {"enum": ["at dusk", "at dawn"]}},
        "required": ["lit"],
        "additionalProperties": False,
    }
    items = await answer(vllm_server, max_tokens=64, json_schema=schema)
    assert json.loads(text_of(items))["lit"] in ("at dusk", "at dawn")


async def test_a_schema_that_is_none_is_refused_with_vllms_words(vllm_server: VllmServer) -> None:
    with pytest.raises(InvalidArgument, match="no such type"):
        await answer(vllm_server, json_schema={"type": "no such type"})


async def test_a_model_says_how_likely_each_of_its_tokens_was(vllm_server: VllmServer) -> None:
    end = end_of(await answer(vllm_server, max_tokens=6, logprobs=True, extra={"ignore_eos": True}))
    assert len(end.logprobs) == 6
    assert all(one.logprob <= 0 for one in end.logprobs)
    assert end_of(await answer(vllm_server)).logprobs == []


async def test_a_model_makes_a_question_stand_alone(vllm_server: VllmServer) -> None:
    history = (Turn(role=Role.USER, text=PROMPT.question), Turn(role=Role.ASSISTANT, text="At dusk."))
    leaning = Prompt(question="And in winter?", passages=(), history=history)
    pattern = {"structured_outputs": {"regex": r"When is the lamp lit in winter\?"}}
    async with opened(vllm_server, extra=pattern) as generator:
        assert isinstance(generator, Condenser)
        condensed = await generator.condense(leaning)
    assert condensed is not None
    assert (condensed.text, condensed.model) == ("When is the lamp lit in winter?", vllm_server.model)
    assert condensed.usage.prompt_tokens > 0


async def test_passages_beyond_the_context_are_left_out(vllm_server: VllmServer) -> None:
    many = tuple(
        Passage(chunk_id=f"{i}", document_id=f"{i}", text=f"Fact {i}. " + LAMP * 4) for i in range(60)
    )
    end = end_of(await answer(vllm_server, Prompt(question=PROMPT.question, passages=many)))
    assert 0 < len(end.sent) < 60
    assert vllm_server.max_model_tokens // 2 < end.usage.prompt_tokens <= vllm_server.max_model_tokens - 8


async def test_a_question_beyond_the_context_is_a_typed_error(vllm_server: VllmServer) -> None:
    prompt = Prompt(question="why? " * vllm_server.max_model_tokens, passages=PROMPT.passages)
    with pytest.raises(InvalidArgument):
        await answer(vllm_server, prompt)


async def test_a_tenants_repeats_are_cached_and_no_other_tenant_sees_them(vllm_server: VllmServer) -> None:
    red, blue = uuid4().hex, uuid4().hex
    cached = [end_of(await answer(vllm_server, salt=salt)).usage.cached_tokens for salt in (red, red, blue)]
    assert cached[0] == 0
    assert cached[1] > 0
    assert cached[2] == 0


async def test_another_question_over_the_same_passages_reuses_them(vllm_server: VllmServer) -> None:
    salt = uuid4().hex
    await answer(vllm_server, salt=salt)
    other = Prompt(question="What does the keeper note?", passages=PROMPT.passages)
    usage = end_of(await answer(vllm_server, other, salt=salt)).usage
    assert usage.cached_tokens > usage.prompt_tokens // 2


async def test_a_caller_that_leaves_ends_the_generation_in_the_engine(vllm_server: VllmServer) -> None:
    running, written = "vllm:num_requests_running", "vllm:generation_tokens_total"
    before = await asyncio.to_thread(vllm_server.metric, written)
    async with opened(vllm_server, extra={"ignore_eos": True}) as generator:
        async with aclosing(generator.stream(PROMPT, Limits(max_tokens=1_500))) as stream:
            await anext(stream)
        await until(lambda: vllm_server.metric(running) == 0)
    assert 0 < await asyncio.to_thread(vllm_server.metric, written) - before < 1_500


@pytest.mark.slow
async def test_a_server_killed_in_mid_stream_is_left_alone_and_taken_back(
    make_vllm_server: MakeVllmServer,
) -> None:
    server = make_vllm_server()
    await asyncio.to_thread(server.start)
    model = await open_generator(
        "openai_http", {"url": server.base_url, "retries": 0, "extra": {"ignore_eos": True}}
    )
    both = FallbackGenerator(
        [
            Candidate(name="vllm", generator=model, circuit=Circuit(failures=1, open_s=2.0)),
            Candidate(name="sentences", generator=ExtractiveGenerator()),
        ]
    )

    async def answered_by() -> str:
        return end_of([item async for item in both.stream(PROMPT, Limits(max_tokens=4))]).answered_by

    with pytest.raises(BackendUnavailable):
        async for _ in both.stream(PROMPT, Limits(max_tokens=1_500)):
            if server.running:
                await asyncio.to_thread(server.kill)
    assert await answered_by() == "sentences"

    await asyncio.to_thread(server.start)
    deadline = time.monotonic() + 30
    while await answered_by() != "vllm":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    await both.close()


def test_vllm_is_recognised_by_its_listing(vllm_server: VllmServer) -> None:
    [model] = httpx.get(f"{vllm_server.base_url}/models").json()["data"]
    assert model["owned_by"] == "vllm"

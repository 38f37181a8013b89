"""A reranking server: both shapes, and everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from ragstone.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Overloaded,
    RagstoneError,
)
from rerankers.base import Reranker
from rerankers.rerank_http import open_reranker
from tests.rerankers.servers import Fault, RerankServer

QUERY = "lamp lit at dusk"
TEXTS = ["a lamp", "nothing of the kind", "the lamp is lit at dusk", "at dusk"]
WANTED = np.array([0.25, 0.0, 1.0, 0.5], np.float32)


class Opened:
    """Rerankers of the server, closed at the end."""

    def __init__(self, server: RerankServer) -> None:
        self.server = server
        self.rerankers: list[Reranker] = []

    async def __call__(self, **options: Any) -> Reranker:
        self.rerankers.append(await open_reranker({"url": self.server.url, **options}))
        return self.rerankers[-1]

    async def score(self, **options: Any) -> np.ndarray:
        return await (await self(**options)).score(QUERY, TEXTS, deadline_s=10.0)


@pytest.fixture
async def opened(server: RerankServer) -> AsyncIterator[Opened]:
    made = Opened(server)
    yield made
    for reranker in made.rerankers:
        await reranker.close()


@pytest.mark.parametrize("style", ["auto", "the server's own"])
@pytest.mark.parametrize("model", [None, "a-reranker"])
async def test_scores_come_in_the_order_of_the_texts(opened: Opened, style: str, model: str | None) -> None:
    asked = {} if style == "auto" else {"style": opened.server.style}
    np.testing.assert_array_equal(await opened.score(model=model, **asked), WANTED)


async def test_the_shape_is_found_out_once(opened: Opened) -> None:
    reranker = await opened()
    for _ in range(3):
        await reranker.score(QUERY, TEXTS, deadline_s=None)
    assert len(opened.server.asked) == 3
    assert len(opened.server.requests) <= 4


async def test_texts_go_in_batches(opened: Opened) -> None:
    np.testing.assert_array_equal(await opened.score(style=opened.server.style, batch_texts=3), WANTED)
    assert sorted(map(len, opened.server.asked)) == [1, 3]


async def test_the_key_comes_from_the_environment(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    await opened.score(api_key_env="SOME_API_KEY")
    assert opened.server.keys[-1] == "Bearer secret"


async def test_fields_of_the_recipe_s_own_go_with_every_request(opened: Opened) -> None:
    await opened.score(extra={"truncate_prompt_tokens": 256})
    assert opened.server.requests[-1]["truncate_prompt_tokens"] == 256


# -- what passes by itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, headers={"Retry-After": "0"}),
        Fault(status=429, headers={"Retry-After": format_datetime(datetime.now(UTC))}),
        Fault(status=502),
        Fault(status=503),
        Fault(status=504),
        Fault(cut=True),
    ],
    ids=["busy", "busy until a date", "502", "503", "504", "a connection that breaks"],
)
async def test_what_may_pass_is_tried_again(opened: Opened, fault: Fault) -> None:
    opened.server.faults += [fault, fault]
    np.testing.assert_array_equal(await opened.score(style=opened.server.style), WANTED)
    assert len(opened.server.requests) == 3


async def test_a_pause_beyond_the_deadline_is_not_waited_for(opened: Opened) -> None:
    opened.server.always = Fault(status=429, headers={"Retry-After": "30"})
    reranker = await opened(style=opened.server.style)
    async with asyncio.timeout(5.0):
        with pytest.raises(Overloaded) as caught:
            await reranker.score(QUERY, TEXTS, deadline_s=10.0)
    assert caught.value.retry_after_s == 30.0


# -- what does not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "told"),
    [
        (Fault(status=401), FailedPrecondition, "key is refused"),
        (Fault(status=404), FailedPrecondition, "recipe.reranker.url"),
        (Fault(status=413), InvalidArgument, "413: out of order"),
        (Fault(status=500), BackendUnavailable, "500: out of order"),
        (Fault(status=503), BackendUnavailable, "503: out of order"),
        (Fault(body=b"<html>"), BackendUnavailable, "no JSON"),
        (Fault(body=b"{}"), BackendUnavailable, "not a"),
        (Fault(body=b"[]"), BackendUnavailable, "not a"),
        (Fault(spoil=lambda scores: scores[:-1]), BackendUnavailable, "for 4 texts"),
        (Fault(spoil=lambda scores: [float("nan"), *scores[1:]]), BackendUnavailable, "not finite"),
    ],
    ids=lambda value: "" if callable(value) or isinstance(value, Fault) else str(value),
)
@pytest.mark.parametrize("style", ["auto", "the server's own"])
async def test_an_answer_that_is_none_is_a_typed_error_and_the_next_call_works(
    opened: Opened, fault: Fault, error: type[RagstoneError], told: str, style: str
) -> None:
    opened.server.always = fault
    asked = "auto" if style == "auto" else opened.server.style
    reranker = await opened(style=asked, retries=1, failures=100)
    with pytest.raises(error, match=told):
        await reranker.score(QUERY, TEXTS, deadline_s=10.0)
    opened.server.always = None
    np.testing.assert_array_equal(await reranker.score(QUERY, TEXTS, deadline_s=10.0), WANTED)


async def test_texts_that_are_too_long_are_an_error_with_the_server_s_words(opened: Opened) -> None:
    opened.server.refuses = lambda text: "dusk" in text
    with pytest.raises(InvalidArgument, match="less than 512 tokens"):
        await opened.score()


async def test_a_server_that_is_not_there_is_named() -> None:
    reranker = await open_reranker({"url": "http://127.0.0.1:9/rerank", "retries": 0})
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9"):
        await reranker.score(QUERY, TEXTS, deadline_s=10.0)
    await reranker.close()


# -- time ----------------------------------------------------------------------------------------


async def test_a_server_that_hangs_is_waited_for_until_the_deadline(opened: Opened) -> None:
    opened.server.always = Fault(hang=True)
    reranker = await opened(style=opened.server.style)
    async with asyncio.timeout(5.0):
        with pytest.raises(DeadlineExceeded, match="not one passage"):
            await reranker.score(QUERY, TEXTS, deadline_s=0.2)


async def test_without_a_deadline_a_server_that_hangs_is_given_up(opened: Opened) -> None:
    opened.server.always = Fault(hang=True)
    reranker = await opened(style=opened.server.style, request_timeout_s=0.2)
    async with asyncio.timeout(5.0):
        with pytest.raises(BackendUnavailable, match=r"did not answer in 0\.2 s"):
            await reranker.score(QUERY, TEXTS, deadline_s=None)


async def test_batches_that_came_back_in_time_count(opened: Opened) -> None:
    reranker = await opened(style=opened.server.style, batch_texts=1, concurrency=1)
    opened.server.faults += [Fault(), Fault(), Fault(hang=True)]
    part = await reranker.score(QUERY, TEXTS, deadline_s=1.0)
    np.testing.assert_array_equal(part, WANTED[:2])


async def test_a_server_that_does_not_answer_is_left_alone_and_asked_again_later(opened: Opened) -> None:
    opened.server.always = Fault(status=503)
    reranker = await opened(style=opened.server.style, retries=0, failures=2, open_s=0.2)
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="503"):
            await reranker.score(QUERY, TEXTS, deadline_s=10.0)
    with pytest.raises(BackendUnavailable, match="left alone"):
        await reranker.score(QUERY, TEXTS, deadline_s=10.0)
    assert len(opened.server.requests) == 2
    opened.server.always = None
    async with asyncio.timeout(10.0):
        while True:
            with suppress(BackendUnavailable):
                assert len(await reranker.score(QUERY, TEXTS, deadline_s=10.0)) == len(TEXTS)
                return
            await asyncio.sleep(0.05)


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"url": "ftp://host/rerank"}, "url"),
        ({"url": "http://user:secret@host/rerank"}, "url"),
        ({}, "url"),
        ({"url": "http://host/rerank", "api_key_env": "HOME"}, "api_key_env"),
        ({"url": "http://host/rerank", "style": "dada"}, "style"),
    ],
)
async def test_wrong_options_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await open_reranker(options)
    assert caught.value.violations[0].field == f"recipe.reranker.{field}"


async def test_a_key_that_is_not_set_is_named() -> None:
    with pytest.raises(FailedPrecondition, match="NOBODYS_API_KEY is not set"):
        await open_reranker({"url": "http://host/rerank", "api_key_env": "NOBODYS_API_KEY"})

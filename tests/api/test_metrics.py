"""Every call is counted under its method and its status code, and timed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc.aio
import pytest

from ragstone import AsyncClient, Document, errors
from retrieval import telemetry
from retrieval.telemetry import Metrics

Count = Callable[..., float]


@pytest.fixture
def count(metrics: Metrics) -> Count:
    """The value of a metric, 0 where it has none: ``count(telemetry.REQUESTS_SHED)``."""

    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(name, labels) or 0.0

    return value


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a caller who has left does not see."""
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


async def test_calls_that_end_well(asynchronous: AsyncClient, count: Count) -> None:
    for _ in range(3):
        await asynchronous.search("docs", "question")
    assert count(telemetry.REQUESTS, method="Search", code="OK") == 3
    assert count(f"{telemetry.REQUEST_DURATION}_count", method="Search") == 3


async def test_errors_under_their_status_code(asynchronous: AsyncClient, app: Any, count: Count) -> None:
    app.errors += [errors.NotFound("gone"), errors.Overloaded("full"), ZeroDivisionError()]
    for _ in range(3):
        with pytest.raises(errors.RagstoneError):
            await asynchronous.search("docs", "question")
    with pytest.raises(errors.InvalidArgument):
        await asynchronous.search("docs", k=0)
    for code in ("NOT_FOUND", "RESOURCE_EXHAUSTED", "INTERNAL", "INVALID_ARGUMENT"):
        assert count(telemetry.REQUESTS, method="Search", code=code) == 1
    assert count(telemetry.REQUESTS, method="Search", code="OK") == 0
    assert count(f"{telemetry.REQUEST_DURATION}_count", method="Search") == 4


async def test_a_stream_is_one_call(either: Any, count: Count) -> None:
    [_ async for _ in either.answer("docs", "question")]
    documents = [Document(id=str(i), text="text") for i in range(10)]
    await either.import_documents("docs", documents, batch=2)
    assert count(telemetry.REQUESTS, method="Answer", code="OK") == 1
    assert count(telemetry.REQUESTS, method="ImportDocuments", code="OK") == 1


async def test_a_stream_that_fails_on_its_way(asynchronous: AsyncClient, count: Count) -> None:
    with pytest.raises(errors.NotFound):
        [_ async for _ in asynchronous.answer("docs", "fail")]
    assert count(telemetry.REQUESTS, method="Answer", code="NOT_FOUND") == 1


async def test_a_deadline_that_passed(asynchronous: AsyncClient, count: Count) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await asynchronous.search("docs", "wait", timeout=0.2)
    await until(lambda: count(telemetry.REQUESTS, method="Search", code="DEADLINE_EXCEEDED") == 1)


async def test_a_caller_who_went_away(asynchronous: AsyncClient, app: Any, count: Count) -> None:
    call = asyncio.create_task(asynchronous.search("docs", "wait"))
    await asyncio.wait_for(app.waiting.wait(), 5)
    call.cancel()
    await until(lambda: count(telemetry.REQUESTS, method="Search", code="CANCELLED") == 1)


async def test_leaving_an_answer_early(asynchronous: AsyncClient, app: Any, count: Count) -> None:
    stream = asynchronous.answer("docs", "wait")
    await anext(stream)
    await asyncio.wait_for(app.waiting.wait(), 5)
    await stream.aclose()  # type: ignore[attr-defined]
    await until(lambda: count(telemetry.REQUESTS, method="Answer", code="CANCELLED") == 1)


@pytest.mark.parametrize("path", ["/ragstone.v1.Retrieval/Guess", "/made.up.Service/Method"])
async def test_methods_that_do_not_exist_share_one_label(address: str, count: Count, path: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert count(telemetry.REQUESTS, method="unknown", code="UNIMPLEMENTED") == 1


async def test_requests_in_flight_waiting_and_shed(start: Any, app: Any, count: Count) -> None:
    server = await start(max_running=1, max_waiting=1)
    async with AsyncClient(server.address) as client:
        running = asyncio.create_task(client.search("docs", "pause"))
        await asyncio.wait_for(app.waiting.wait(), 5)
        waiting = asyncio.create_task(client.search("docs", "question"))
        await until(lambda: count(telemetry.REQUESTS_WAITING) == 1)
        with pytest.raises(errors.Overloaded):
            await client.search("docs", "question")
        assert count(telemetry.REQUESTS_IN_FLIGHT) == 1
        assert count(telemetry.REQUESTS_SHED) == 1
        app.go_on.set()
        await asyncio.gather(running, waiting)
    assert count(telemetry.REQUESTS_IN_FLIGHT) == count(telemetry.REQUESTS_WAITING) == 0

"""Deadlines, cancellation, admission, identity, and the end of a server."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ragstone import AsyncClient, Client, Document, Health, errors
from ragstone.errors import NotFound
from retrieval.api.server import ServerOptions, serve
from retrieval.telemetry import Metrics


async def test_each_collection_has_a_health_of_its_own(app: Any, start: Any) -> None:
    server = await start()
    app.ready = {"docs": True, "behind": False}
    async with AsyncClient(server.address) as client:

        async def told(name: str) -> Health:
            try:
                return await client.health(f"collections/{name}")
            except NotFound:
                return Health.UNKNOWN

        async def until(**expected: Health) -> None:
            async with asyncio.timeout(10):
                while {name: await told(name) for name in expected} != expected:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

        await until(docs=Health.SERVING, behind=Health.NOT_SERVING, other=Health.UNKNOWN)
        app.ready = {"behind": True}
        await until(behind=Health.SERVING)
        assert await told("docs") is not Health.SERVING


async def test_a_deadline_of_a_millisecond(either: Any) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await either.search("docs", "wait", timeout=0.001)


async def test_a_deadline_that_passes_stops_the_work(asynchronous: AsyncClient, app: Any) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await asynchronous.search("docs", "wait", timeout=0.2)
    await asyncio.wait_for(app.stopped.wait(), 5)


async def test_a_cancelled_call_stops_the_work(asynchronous: AsyncClient, app: Any) -> None:
    call = asyncio.create_task(asynchronous.search("docs", "wait"))
    await asyncio.wait_for(app.waiting.wait(), 5)
    call.cancel()
    await asyncio.wait_for(app.stopped.wait(), 5)
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_leaving_an_answer_early_stops_the_generation(asynchronous: AsyncClient, app: Any) -> None:
    stream = asynchronous.answer("docs", "wait")
    await anext(stream)
    await asyncio.wait_for(app.waiting.wait(), 5)
    await stream.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(app.stopped.wait(), 5)


async def test_leaving_a_blocking_answer_early_stops_the_generation(address: str, app: Any) -> None:
    def first_event() -> None:
        with Client(address) as client:
            for _ in client.answer("docs", "wait"):
                break

    await asyncio.to_thread(first_event)
    await asyncio.wait_for(app.stopped.wait(), 5)


async def test_a_full_queue_sheds_and_says_when_to_come_back(start: Any, app: Any) -> None:
    server = await start(max_running=1, max_waiting=1)
    async with AsyncClient(server.address) as client:
        running = asyncio.create_task(client.search("docs", "pause"))
        await asyncio.wait_for(app.waiting.wait(), 5)
        others = [asyncio.create_task(client.search("docs", "question")) for _ in range(2)]
        [shed], _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(errors.Overloaded) as caught:
            shed.result()
        assert caught.value.retry_after_s
        app.go_on.set()
        done = await asyncio.gather(running, *others, return_exceptions=True)
        assert sum(isinstance(result, errors.Overloaded) for result in done) == 1


async def test_one_who_waits_and_leaves_does_not_take_a_place(start: Any, app: Any) -> None:
    server = await start(max_running=1, max_waiting=1)
    async with AsyncClient(server.address) as client:
        running = asyncio.create_task(client.search("docs", "pause"))
        await asyncio.wait_for(app.waiting.wait(), 5)
        with pytest.raises(errors.DeadlineExceeded):
            await client.search("docs", "question", timeout=0.2)
        app.go_on.set()
        await running
        await client.search("docs", "question")


async def test_looking_at_collections_works_under_load(start: Any, app: Any) -> None:
    server = await start(max_running=1, max_waiting=0)
    async with AsyncClient(server.address) as client:
        running = asyncio.create_task(client.search("docs", "pause"))
        await asyncio.wait_for(app.waiting.wait(), 5)
        assert await client.list_collections() == []
        app.go_on.set()
        await running


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_a_server_with_tokens_refuses_strangers(start: Any, app: Any, token: str | None) -> None:
    server = await start(tokens={"secret": "acme"})
    async with AsyncClient(server.address, token=token) as client:
        with pytest.raises(errors.Unauthenticated):
            await client.search("docs", "question")
    assert app.calls == []


async def test_the_tenant_comes_from_the_token(start: Any, app: Any) -> None:
    server = await start(tokens={"secret": "acme", "other": "globex"})
    async with AsyncClient(server.address, token="secret") as client:
        await client.search("docs", "question")
        await client.upsert("docs", [Document(id="1", text="text")])
    assert [arguments["tenant"] for _, arguments in app.calls] == ["acme", "acme"]


async def test_without_tokens_everybody_is_the_default_tenant(asynchronous: AsyncClient, app: Any) -> None:
    await asynchronous.search("docs", "question")
    assert app.calls[0][1]["tenant"] == "default"


async def test_reflection_lists_the_services(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        reply = await call.read()
    names = {service.name for service in reply.list_services_response.service}
    assert names == {
        "ragstone.v1.Retrieval",
        "ragstone.v1.Collections",
        "ragstone.v1.Documents",
        "ragstone.v1.Versions",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_watchers_are_told_before_the_server_goes(start: Any) -> None:
    server = await start(drain_s=0.2)
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="ragstone.v1.Retrieval"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        leaving = asyncio.create_task(server.stop())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        async with AsyncClient(server.address) as client:  # still taken, while the watchers move away
            await client.search("docs", "question")
        await leaving


async def test_calls_on_their_way_end_before_the_application_is_closed(start: Any, app: Any) -> None:
    server = await start(grace_s=5.0)
    async with AsyncClient(server.address) as client:
        call = asyncio.create_task(client.search("docs", "pause"))
        await asyncio.wait_for(app.waiting.wait(), 5)
        leaving = asyncio.create_task(server.stop())
        await asyncio.sleep(0.05)
        assert not app.closed
        app.go_on.set()
        await call
        await leaving
    assert app.closed


async def test_a_signal_drains_stops_and_closes(app: Any, metrics: Metrics) -> None:
    listening: asyncio.Queue[str] = asyncio.Queue()
    options = ServerOptions(listen="127.0.0.1:0", drain_s=0.0)
    serving = asyncio.create_task(serve(app, options, metrics, on_listening=listening.put_nowait))
    async with AsyncClient(await listening.get()) as client:
        await client.info()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 10)
    assert app.closed


async def test_an_address_in_use_is_refused_and_the_application_closed(
    address: str, app: Any, metrics: Metrics
) -> None:
    with pytest.raises(errors.FailedPrecondition, match="cannot listen"):
        await serve(app, ServerOptions(listen=address), metrics)
    assert app.closed

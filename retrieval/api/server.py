"""The server's lifetime: bind, tell that it serves, drain, stop, close the application."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import enable_server_reflection

from ragstone.errors import FailedPrecondition
from ragstone.v1 import collections_pb2, documents_pb2, retrieval_pb2, versions_pb2
from retrieval.api.admission import Admission
from retrieval.api.application import Application
from retrieval.api.collections import CollectionsServicer
from retrieval.api.documents import DocumentsServicer
from retrieval.api.interceptors import Edge, UnknownMethods
from retrieval.api.retrieval import RetrievalServicer
from retrieval.api.versions import VersionsServicer
from retrieval.telemetry import Metrics

COLLECTION: Final = "collections/"
"""Before its name, what the health service calls a collection."""
_TELL_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a server listens, how much it takes on, and how it goes."""

    listen: str = "127.0.0.1:50051"
    """HOST:PORT; port 0 is a free one."""
    max_message_bytes: int = 32 * 2**20
    max_running: int = 256
    max_waiting: int = 1024
    drain_s: float = 0.2
    """How long it still takes calls after it told its health watchers that it goes."""
    grace_s: float = 10.0
    """How long calls on their way may take to end."""
    max_connection_age_s: float | None = None
    """After which a client has to connect again, so that a load balancer can spread clients anew."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Bearer token -> tenant; empty lets everybody in as the tenant ``default``."""
    log_calls: bool = False
    credentials: grpc.ServerCredentials | None = None
    """TLS; ``None`` is plain text."""


class Server:
    """An application behind gRPC, with health checking and reflection."""

    def __init__(self, app: Application, options: ServerOptions, metrics: Metrics) -> None:
        self._app = app
        self._options = options
        self._log = structlog.get_logger("ragstone.api")
        self._health = health.HealthServicer()
        self._metrics = metrics
        admission = Admission(
            running=options.max_running, waiting=options.max_waiting, on_shed=metrics.shed.inc
        )
        metrics.in_flight.set_function(lambda: admission.running)
        metrics.waiting.set_function(lambda: admission.waiting)
        self._edge = Edge(
            admission=admission,
            metrics=metrics,
            tokens=options.tokens,
            log_calls=options.log_calls,
        )
        self._server = grpc.aio.server(options=_channel_options(options))
        self._names = self._add_services()
        self._ready: dict[str, bool] = {}
        """What was last told of each collection."""
        self._telling: asyncio.Task[None] | None = None
        self.address = ""
        """HOST:PORT, once started."""

    async def start(self) -> str:
        """Bind and serve; returns the address. Raises FailedPrecondition when it cannot be bound."""
        host = self._options.listen.rpartition(":")[0]
        try:
            port = self._bind()
        except RuntimeError as exc:
            raise FailedPrecondition(f"cannot listen on {self._options.listen}: {exc}") from exc
        await self._server.start()
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._telling = asyncio.create_task(self._tell_regularly(), name="readiness")
        self.address = f"{host}:{port}"
        return self.address

    async def stop(self) -> None:
        """Tell the watchers, drain, let calls end, then close the application."""
        if self._telling is not None:
            self._telling.cancel()
        await self._health.enter_graceful_shutdown()
        self._log.info("draining", seconds=self._options.drain_s)
        await asyncio.sleep(self._options.drain_s)
        self._edge.close()
        await self._server.stop(self._options.grace_s)
        await self._app.close()
        self._log.info("stopped")

    async def _tell_regularly(self) -> None:
        while True:
            await self._tell_readiness()
            await asyncio.sleep(_TELL_S)

    async def _tell_readiness(self) -> None:
        """Each collection is a service of its own to the health service, ``collections/NAME``."""
        now = dict(self._app.readiness())
        for name in now.keys() | self._ready.keys():
            if now.get(name) != self._ready.get(name):
                status = health_pb2.HealthCheckResponse
                told = {True: status.SERVING, False: status.NOT_SERVING, None: status.SERVICE_UNKNOWN}
                await self._health.set(f"{COLLECTION}{name}", told[now.get(name)])
        self._ready = now

    def _bind(self) -> int:
        if self._options.credentials is None:
            return self._server.add_insecure_port(self._options.listen)
        return self._server.add_secure_port(self._options.listen, self._options.credentials)

    def _add_services(self) -> list[str]:
        """Register every service of the API; returns their names."""
        served = (
            (retrieval_pb2, RetrievalServicer(self._app).handlers(self._edge)),
            (collections_pb2, CollectionsServicer(self._app).handlers(self._edge)),
            (documents_pb2, DocumentsServicer(self._app).handlers(self._edge)),
            (versions_pb2, VersionsServicer(self._app).handlers(self._edge)),
        )
        names = []
        for file, handlers in served:
            [service] = file.DESCRIPTOR.services_by_name.values()
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service.full_name, handlers),)
            )
            names.append(service.full_name)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        enable_server_reflection([*names, HEALTH, REFLECTION], self._server)
        self._server.add_generic_rpc_handlers((UnknownMethods(self._metrics),))
        return names


async def serve(
    app: Application,
    options: ServerOptions,
    metrics: Metrics,
    *,
    on_listening: Callable[[str], None] = lambda _: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or ``stop``; then drain, stop, and close ``app``.

    ``on_listening`` gets the bound address. ``app`` is closed also when the address cannot be bound.
    """
    leaving = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    server = Server(app, options, metrics)
    try:
        address = await server.start()
    except FailedPrecondition:
        await app.close()
        raise
    for number in _SIGNALS:
        loop.add_signal_handler(number, leaving.set)
    try:
        on_listening(address)
        await leaving.wait()
    finally:
        await server.stop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def _channel_options(options: ServerOptions) -> list[tuple[str, Any]]:
    age_s = options.max_connection_age_s
    return [
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would share its connections by chance.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients ping once a minute.
        ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
        *([("grpc.max_connection_age_ms", round(age_s * 1e3))] if age_s is not None else []),
    ]

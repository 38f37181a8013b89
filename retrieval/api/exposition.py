"""Prometheus metrics over HTTP, on threads of their own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socketserver import ThreadingMixIn
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from ragstone.errors import FailedPrecondition

log = structlog.get_logger("ragstone.api")


@asynccontextmanager
async def expose(registry: CollectorRegistry, listen: str) -> AsyncIterator[str]:
    """Serve what ``registry`` collects at ``listen``, HOST:PORT, for the length of the block.

    The value is the address, with the port that was bound. An empty ``listen`` serves nothing. Raises
    FailedPrecondition when the address cannot be bound.
    """
    if not listen:
        yield ""
        return
    server = await asyncio.to_thread(_bind, listen)
    server.set_app(make_wsgi_app(registry))
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    address = f"{listen.rpartition(':')[0]}:{server.server_port}"
    log.info("metrics_served", address=address)
    try:
        yield address
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # Some versions of Python set it: two servers on one port would share its scrapes by chance.
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        super().__init__(address, _Silent)


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is no news."""


def _bind(listen: str) -> _Server:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        [(family, *_), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return _Server((host, int(port)), family)
    except (OSError, OverflowError) as exc:
        raise FailedPrecondition(f"cannot serve metrics on {listen}: {exc}") from exc

"""A server on a real socket, in a thread of the test's own process."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HttpServer:
    """Serves by ``handler``, whose class attribute ``served`` it becomes, until ``close``."""

    def __init__(self, handler: type[Handler]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"served": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def root(self) -> str:
        """``http://HOST:PORT``."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        """End it, and requests that hang."""
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class Handler(BaseHTTPRequestHandler):
    """Reads and answers JSON."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def get(self) -> None:
        """Answer a GET."""
        self.reply(405, {})

    def post(self, request: dict[str, Any]) -> None:
        """Answer a POST."""
        self.reply(405, {})

    def do_GET(self) -> None:
        """What the standard library calls."""
        self.get()

    def do_POST(self) -> None:
        """What the standard library calls."""
        self.post(self._read())

    def _read(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def reply(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """``body`` as JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests print enough."""

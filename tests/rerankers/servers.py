"""A real server of ``POST /rerank`` on a real socket, in both shapes, with failures on demand."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def overlap(query: str, text: str) -> float:
    """What these servers know of relevance: the share of the query's words that a text has."""
    asked, told = {*query.lower().split()}, {*text.lower().split()}
    return len(asked & told) / len(asked) if asked else 0.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What one request comes to."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    spoil: Callable[[list[float]], list[Any]] = lambda scores: scores
    """Scores that are sent instead."""
    hang: bool = False
    cut: bool = False


class RerankServer:
    """Speaks ``tei`` or ``cohere``; each of ``faults`` befalls one request, in their order.

    ``refuses`` tells which texts are too long for its model.
    """

    def __init__(self, style: str) -> None:
        self.style = style
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.refuses: Callable[[str], bool] = lambda text: False
        self.closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": self}))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/rerank"

    @property
    def asked(self) -> list[list[str]]:
        """The texts of every request so far that was of this server's shape."""
        name = "texts" if self.style == "tei" else "documents"
        return [request[name] for request in self.requests if name in request]

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: RerankServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        served = self.served
        served.requests.append(request)
        served.keys.append(self.headers["Authorization"])
        fault = served.faults.popleft() if served.faults else served.always or Fault()
        if fault.hang:
            served.closing.wait()
        if fault.hang or fault.cut:
            self.close_connection = True
            return
        texts = request.get("texts" if served.style == "tei" else "documents")
        if self.path != "/rerank":
            self._reply(404, {"detail": "Not Found"})
        elif fault.status != 200 or fault.body is not None:
            self._reply(fault.status, fault.body or {"error": "out of order"}, fault.headers)
        elif texts is None:
            self._reply(422, {"error": "Failed to deserialize the JSON body: missing field"})
        elif any(map(served.refuses, texts)):
            self._reply(413, {"error": "Input validation error: must have less than 512 tokens"})
        else:
            self._reply(200, self._answer(fault.spoil([overlap(request["query"], text) for text in texts])))

    def _answer(self, scores: Sequence[Any]) -> Any:
        """Best first, as the real ones."""
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        if self.served.style == "tei":
            return [{"index": i, "score": scores[i]} for i in order]
        return {"id": "r", "results": [{"index": i, "relevance_score": scores[i]} for i in order]}

    def _reply(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args: object) -> None:
        """No line a request."""

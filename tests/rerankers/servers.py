"""A real server of ``POST /rerank`` on a real socket, in both shapes, with failures on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.http_server import Handler, HttpServer


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


class RerankServer(HttpServer):
    """Speaks ``tei`` or ``cohere``; each of ``faults`` befalls one request, in their order.

    ``refuses`` tells which texts are too long for its model.
    """

    def __init__(self, style: str) -> None:
        self.style = style
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.refuses: Callable[[str], bool] = lambda text: False
        super().__init__(_Handler)

    @property
    def url(self) -> str:
        return f"{self.root}/rerank"

    @property
    def asked(self) -> list[list[str]]:
        """The texts of every request so far that was of this server's shape."""
        name = "texts" if self.style == "tei" else "documents"
        return [request[name] for request in self.requests if name in request]


class _Handler(Handler):
    served: RerankServer

    def post(self, request: dict[str, Any]) -> None:
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
            self.reply(404, {"detail": "Not Found"})
        elif fault.status != 200 or fault.body is not None:
            self.reply(fault.status, fault.body or {"error": "out of order"}, fault.headers)
        elif texts is None:
            self.reply(422, {"error": "Failed to deserialize the JSON body: missing field"})
        elif any(map(served.refuses, texts)):
            self.reply(413, {"error": "Input validation error: must have less than 512 tokens"})
        else:
            self.reply(200, self._answer(fault.spoil([overlap(request["query"], text) for text in texts])))

    def _answer(self, scores: Sequence[Any]) -> Any:
        """Best first, as the real ones."""
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        if self.served.style == "tei":
            return [{"index": i, "score": scores[i]} for i in order]
        return {"id": "r", "results": [{"index": i, "relevance_score": scores[i]} for i in order]}

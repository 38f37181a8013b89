"""A model server of OpenAI's shape on a real socket, with failures on demand.

Its model quotes: the first sentence of the first passage, word by word, and its mark. What a real model does
is tested in ``tests/vllm``.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.http_server import Handler, HttpServer

MODEL = "quoting"
CONTEXT_TOKENS = 4_096


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What one request comes to."""

    status: int = 200
    message: str = "out of order"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """The connection ends after so many pieces of text."""
    error_after: int | None = None
    """An error of this ``status`` comes in the stream after so many."""
    hang_after: int | None = None
    body: bytes | None = None


class ChatServer(HttpServer):
    """``GET /v1/models``, ``POST /v1/chat/completions``, ``POST /tokenize`` (words are tokens)."""

    def __init__(self, *, vllm: bool = True) -> None:
        self.vllm = vllm
        self.say: Callable[[Mapping[str, Any]], Sequence[str]] = lambda request: ("Yes", " [1]", ".")
        """The pieces of text that answer a request."""
        self.faults: deque[Fault] = deque()
        self.counted: list[str] = []
        self.counting = threading.Event()
        """While it is not set, nothing is counted."""
        self.counting.set()
        self.left = threading.Event()
        """A caller went away in the middle."""
        super().__init__(_Handler)

    @property
    def url(self) -> str:
        return f"{self.root}/v1"


class _Handler(Handler):
    served: ChatServer

    def get(self) -> None:
        self.served.keys.append(self.headers["Authorization"])
        model: dict[str, Any] = {"id": MODEL, "object": "model", "owned_by": "someone"}
        if self.served.vllm:
            model |= {"owned_by": "vllm", "max_model_len": CONTEXT_TOKENS}
        self.reply(200, {"object": "list", "data": [model]})

    def post(self, request: dict[str, Any]) -> None:
        if self.path == "/tokenize":
            self.served.counted.append(request["prompt"])
            while not (self.served.counting.is_set() or self.served.closing.wait(0.01)):
                pass
            self.reply(200, {"count": len(request["prompt"].split())})
            return
        served = self.served
        served.requests.append(request)
        fault = served.faults.popleft() if served.faults else Fault()
        if fault.status != 200 and fault.error_after is None:
            self.reply(fault.status, {"error": {"message": fault.message}}, fault.headers)
        else:
            self._stream(request, fault)

    def _stream(self, request: Mapping[str, Any], fault: Fault) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            if fault.body is not None:
                self.wfile.write(fault.body)
                return
            self._event(choices=[{"delta": {"role": "assistant", "content": ""}}])
            pieces = self.served.say(request)
            for number, piece in enumerate(pieces):
                if number == fault.cut_after:
                    return
                if number == fault.error_after:
                    self._event(error={"message": fault.message, "code": fault.status})
                    return
                if number == fault.hang_after:
                    self._wait()
                    return
                likely = {"content": [{"token": piece, "logprob": -0.5 * number}]}
                asked = {"logprobs": likely} if request.get("logprobs") else {}
                self._event(choices=[{"delta": {"content": piece}, **asked}])
            reason = "length" if len(pieces) >= request["max_tokens"] else "stop"
            self._event(choices=[{"delta": {}, "finish_reason": reason}])
            prompt = sum(len(message["content"].split()) for message in request["messages"])
            usage = {
                "prompt_tokens": prompt,
                "completion_tokens": len(pieces),
                "prompt_tokens_details": {"cached_tokens": prompt // 2},
            }
            self._event(choices=[], usage=usage)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.served.left.set()

    def _wait(self) -> None:
        """Until the test is over or the caller leaves."""
        while not self.served.closing.wait(0.01):
            self.wfile.write(b": still there\n\n")

    def _event(self, **event: Any) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

"""Real servers on real sockets, with a real embedder behind them and failures on demand."""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from embedders.base import Vectors
from embedders.hashing import HashingEmbedder
from embedders.remote._tei import tei_pb2
from tests.http_server import Handler, HttpServer

DIM = 64


class Model:
    """What a server serves. ``refuses`` tells which texts are too long, ``breaks_on`` which it fails on."""

    def __init__(self) -> None:
        self._embedder = HashingEmbedder(dim=DIM)
        self.salt = ""
        """Another one makes it another model."""
        self.refuses: Callable[[str], bool] = lambda text: False
        self.breaks_on: Callable[[str], bool] = lambda text: False

    def __call__(self, texts: Sequence[str]) -> Vectors:
        # Not of length 1: some servers give what the model gives.
        return 3 * asyncio.run(self._embedder.embed_passages([self.salt + text for text in texts]))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What one request comes to."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    spoil: Callable[[Vectors], Any] = lambda rows: rows
    """Rows that are sent instead."""
    body: bytes | None = None
    hang: bool = False
    cut: bool = False


class OpenAIServer(HttpServer):
    """``POST /v1/embeddings``; each of ``faults`` befalls one request, in their order."""

    def __init__(self) -> None:
        self.model = Model()
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.max_texts = 1000
        super().__init__(_Handler)

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def inputs(self) -> list[list[str]]:
        """The texts of every request so far."""
        return [request["input"] for request in self.requests]

    def forget(self) -> None:
        """Forget the requests so far."""
        self.requests.clear()


class _Handler(Handler):
    served: OpenAIServer

    def post(self, request: dict[str, Any]) -> None:
        served = self.served
        served.requests.append(request)
        served.keys.append(self.headers["Authorization"])
        fault = served.faults.popleft() if served.faults else served.always or Fault()
        if fault.hang:
            served.closing.wait()
        if fault.cut or fault.hang:
            self.close_connection = True
            return
        texts, model = request["input"], served.model
        if fault.status != 200 or fault.body is not None:
            self.reply(fault.status, fault.body or {"error": {"message": "out of order"}}, fault.headers)
        elif len(texts) > served.max_texts:
            self.reply(413, {"message": f"batch size {len(texts)} > {served.max_texts}"})
        elif any(map(model.refuses, texts)):
            self.reply(400, {"error": {"message": "This model's maximum context length is 256 tokens."}})
        elif any(map(model.breaks_on, texts)):
            self.reply(500, {"error": {"message": "Out of range float values are not JSON compliant"}})
        else:
            rows = fault.spoil(model(texts)[:, : request.get("dimensions")])
            self.reply(200, {"data": _data(rows, request["encoding_format"]), "model": request["model"]})


def _data(rows: Sequence[Vectors], encoding: str) -> list[dict[str, Any]]:
    """The rows of a reply, not in order: it is the index that counts."""
    encoded = [
        base64.b64encode(np.asarray(row, "<f4").tobytes()).decode() if encoding == "base64" else list(row)
        for row in np.asarray(rows, np.float64 if encoding == "float" else np.float32)
    ]
    return [{"index": i, "embedding": value} for i, value in reversed(list(enumerate(encoded)))]


def _serialise(message: Message) -> bytes:
    return message.SerializeToString()


class TeiServer:
    """TEI's gRPC service; each of ``faults`` befalls one call, in their order. Opened by ``start``."""

    def __init__(self) -> None:
        self.model = Model()
        self.faults: deque[grpc.StatusCode] = deque()
        self.info = tei_pb2.InfoResponse(
            model_id="hashing", model_sha="c0ffee", model_dtype="float32", max_input_length=512
        )
        self.key: str | None = None
        self.requests: list[tei_pb2.EmbedRequest] = []
        self.address = ""
        self._server = grpc.aio.server()

    async def start(self) -> None:
        embed, info = tei_pb2.EmbedRequest.FromString, tei_pb2.InfoRequest.FromString
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {
            "Info": {"Info": unary(self._tell, info, _serialise)},
            "Embed": {
                "Embed": unary(self._embed, embed, _serialise),
                "EmbedStream": stream(self._embed_stream, embed, _serialise),
            },
        }
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(f"tei.v1.{name}", its) for name, its in services.items()]
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def close(self) -> None:
        await self._server.stop(None)

    async def _admit(self, context: Any) -> None:
        if self.faults:
            await context.abort(self.faults.popleft(), "out of order")
        if self.key and ("authorization", f"Bearer {self.key}") not in context.invocation_metadata():
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Unauthorized")

    async def _tell(self, request: tei_pb2.InfoRequest, context: Any) -> tei_pb2.InfoResponse:
        await self._admit(context)
        return self.info

    async def _embed(self, request: tei_pb2.EmbedRequest, context: Any) -> tei_pb2.EmbedResponse:
        await self._admit(context)
        return await self._answer(request, context)

    async def _embed_stream(
        self, requests: AsyncIterator[tei_pb2.EmbedRequest], context: Any
    ) -> AsyncIterator[tei_pb2.EmbedResponse]:
        await self._admit(context)
        async for request in requests:
            yield await self._answer(request, context)

    async def _answer(self, request: tei_pb2.EmbedRequest, context: Any) -> tei_pb2.EmbedResponse:
        self.requests.append(request)
        if self.model.refuses(request.inputs) and not request.truncate:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "`inputs` must have less than 512 tokens")
        if self.model.breaks_on(request.inputs):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "backend error")
        [row] = await asyncio.to_thread(self.model, [request.inputs])
        return tei_pb2.EmbedResponse(embeddings=row)

"""Embeddings from Hugging Face's text-embeddings-inference over gRPC; its server tells its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import grpc
import numpy as np
from grpc import StatusCode
from pydantic import Field

from embedders.base import Embedder, Space, Vectors
from embedders.options import parse_options
from embedders.remote._tei import tei_pb2
from embedders.remote.embedder import open_remote
from embedders.remote.options import RemoteOptions
from embedders.remote.transport import Away, Busy
from ragstone.errors import BackendUnavailable, FailedPrecondition, Internal, InvalidArgument

_Metadata: TypeAlias = tuple[tuple[str, str], ...]

_BUSY_S: Final = 1.0
_MESSAGE_CHARS: Final = 300


class Options(RemoteOptions):
    """The recipe's ``embedder`` options."""

    address: str = Field(pattern=r"^[^\s/]+:\d+$", max_length=500)
    """HOST:PORT."""
    tls: bool = False
    model: str | None = None
    """Where it is given, a server with another model is refused."""
    too_long: Literal["error", "truncate"] = "error"
    """``truncate`` has the server cut texts at its longest."""


async def open_embedder(options: Mapping[str, Any]) -> Embedder:
    """Ask the server for its model and its dimension.

    Raises InvalidArgument for wrong options, FailedPrecondition when the server refuses the caller or has
    another model than the recipe names, BackendUnavailable or Overloaded when it does not answer now.
    """
    parsed = parse_options(Options, options)
    transport = GrpcTransport(parsed)

    async def describe() -> Space:
        return _space(await transport.info(), parsed)

    return await open_remote(transport, describe, parsed)


class GrpcTransport:
    """A ``Transport`` over one channel: a text alone as one call, several as a stream."""

    def __init__(self, options: Options) -> None:
        key = options.api_key()
        self._address = options.address
        self._timeout_s = options.timeout_s
        self._truncate = options.too_long == "truncate"
        self._metadata: _Metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self._channel = _channel(options)
        self._info = self._channel.unary_unary(
            "/tei.v1.Info/Info",
            request_serializer=tei_pb2.InfoRequest.SerializeToString,
            response_deserializer=tei_pb2.InfoResponse.FromString,
        )
        self._one = self._channel.unary_unary(
            "/tei.v1.Embed/Embed",
            request_serializer=tei_pb2.EmbedRequest.SerializeToString,
            response_deserializer=tei_pb2.EmbedResponse.FromString,
        )
        self._many = self._channel.stream_stream(
            "/tei.v1.Embed/EmbedStream",
            request_serializer=tei_pb2.EmbedRequest.SerializeToString,
            response_deserializer=tei_pb2.EmbedResponse.FromString,
        )

    async def info(self) -> tei_pb2.InfoResponse:
        """What the server is. Raises what ``Transport.embed`` does."""
        try:
            return await self._info(tei_pb2.InfoRequest(), metadata=self._metadata, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as exc:
            raise self._failure(exc) from exc

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Float32 ``(len(texts), width)``. Raises what ``Transport.embed`` does."""
        requests = [
            tei_pb2.EmbedRequest(inputs=text, truncate=self._truncate, normalize=True) for text in texts
        ]
        try:
            replies = await self._replies(requests)
        except grpc.aio.AioRpcError as exc:
            raise self._failure(exc) from exc
        if len(replies) != len(texts):
            raise Internal(f"the embedding server gave {len(replies)} vectors for {len(texts)} texts")
        if len({len(reply.embeddings) for reply in replies}) != 1:
            raise Internal("the embedding server gave vectors of different lengths")
        return np.array([reply.embeddings for reply in replies], np.float32)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _replies(self, requests: Sequence[tei_pb2.EmbedRequest]) -> list[tei_pb2.EmbedResponse]:
        if len(requests) > 1:
            stream = self._many(iter(requests), metadata=self._metadata, timeout=self._timeout_s)
            try:
                return [reply async for reply in stream]
            except grpc.aio.AioRpcError as exc:
                # Where a server ends a stream while requests are still being written, gRPC puts a status of
                # its own in place of the server's. One by one the server's comes out.
                if exc.code() is not StatusCode.INTERNAL:
                    raise
        return [
            await self._one(request, metadata=self._metadata, timeout=self._timeout_s) for request in requests
        ]

    def _failure(self, exc: grpc.aio.AioRpcError) -> Exception:
        """What a status of TEI's means; it gives FAILED_PRECONDITION when its model or tokenizer fails."""
        said = f"{self._address} answered {exc.code().name}: {(exc.details() or '')[:_MESSAGE_CHARS]}"
        match exc.code():
            case StatusCode.UNAVAILABLE | StatusCode.CANCELLED:
                return Away(said)
            case StatusCode.RESOURCE_EXHAUSTED:
                return Busy(said, retry_after_s=_BUSY_S)
            case StatusCode.DEADLINE_EXCEEDED:
                return BackendUnavailable(f"{self._address} did not answer in time")
            case StatusCode.INVALID_ARGUMENT | StatusCode.OUT_OF_RANGE:
                return InvalidArgument(said)
            case StatusCode.UNAUTHENTICATED | StatusCode.PERMISSION_DENIED:
                return FailedPrecondition.at("recipe.embedder.api_key_env", f"the key is refused: {said}")
            case StatusCode.UNIMPLEMENTED:
                return FailedPrecondition.at(
                    "recipe.embedder.address", f"no embedding server of TEI's: {said}"
                )
            case _:
                return Internal(said)


def _channel(options: Options) -> grpc.aio.Channel:
    # Tries again are counted and paced by the sender.
    arguments = [("grpc.enable_retries", 0), ("grpc.keepalive_time_ms", 60_000)]
    if options.tls:
        return grpc.aio.secure_channel(options.address, grpc.ssl_channel_credentials(), options=arguments)
    return grpc.aio.insecure_channel(options.address, options=arguments)


def _space(info: tei_pb2.InfoResponse, options: Options) -> Space:
    """All but the dimension. The weights' commit is the digest; in 16 bits they are the same weights."""
    if info.model_type != tei_pb2.MODEL_TYPE_EMBEDDING:
        raise FailedPrecondition.at(
            "recipe.embedder.address", f"serves {info.model_id!r}, which is no embedding model"
        )
    for name, wanted, served in (
        ("model", options.model, info.model_id),
        ("revision", options.revision, info.model_sha),
    ):
        if wanted and served and wanted != served:
            raise FailedPrecondition.at(
                f"recipe.embedder.{name}", f"is {wanted!r}; the server has {served!r}"
            )
    return Space(
        name=info.model_id,
        dim=0,
        digest=info.model_sha or options.revision or "",
        max_tokens=info.max_input_length,
    )

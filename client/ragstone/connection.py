"""A connection to a server: sends calls, and makes its errors Ragstone's.

Two classes with one surface; they differ only in how they wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from ragstone import calls, status
from ragstone.channel import Destination
from ragstone.errors import BackendUnavailable, FailedPrecondition, RagstoneError
from ragstone.importing import Import
from ragstone.methods import Call, Method

T = TypeVar("T")


class AsyncConnection:
    """For asyncio. The channel opens in the loop of the first call."""

    def __init__(self, to: Destination) -> None:
        self._to = to
        self._opened: grpc.aio.Channel | None = None
        self._stubs: dict[str, Any] = {}
        self._closed = False

    async def close(self) -> None:
        """Close the channel; calls on their way are cancelled."""
        self._closed = True
        channel, self._opened = self._opened, None
        self._stubs.clear()
        if channel is not None:
            await channel.close(None)

    async def unary(self, call: Call[T], timeout_s: float | None) -> T:
        """The value of the one reply."""
        try:
            reply = await self._stub("unary_unary", call.method)(call.request, **_terms(self._to, timeout_s))
        except grpc.aio.AioRpcError as exc:
            raise _error(exc, self._to) from exc
        return call.read(reply)

    async def stream(
        self, call: Call[T | None], timeout_s: float | None, *, endless: bool = False
    ) -> AsyncIterator[T]:
        """The values of the replies as they come; leaving early stops the work on the server.

        ``None`` is passed over. An ``endless`` stream has no deadline unless ``timeout_s`` is given.
        """
        terms = _terms(self._to, timeout_s, endless=endless)
        stream = self._stub("unary_stream", call.method)(call.request, **terms)
        try:
            async for reply in stream:
                value = call.read(reply)
                if value is not None:
                    yield value
        except grpc.aio.AioRpcError as exc:
            raise _error(exc, self._to) from exc
        finally:
            stream.cancel()

    async def send(self, state: Import, source: AsyncIterator[Message], timeout_s: float | None) -> None:
        """Send an import until all of it is acknowledged or the connection fails."""
        stream = self._stub("stream_stream", calls.IMPORT)(**_terms(self._to, timeout_s, endless=True))
        state.connect()
        more = True
        try:
            while more or state.pending:
                while more and state.has_room:
                    following = state.resend() or await anext(source, None)
                    more = following is not None
                    await (stream.write(following) if more else stream.done_writing())
                if state.pending:
                    reply = await stream.read()
                    if reply is grpc.aio.EOF:
                        raise BackendUnavailable(_ENDED_EARLY)
                    state.receive(reply)
            with suppress(grpc.aio.AioRpcError):  # all is acknowledged; the server sees an end in order
                await stream.read()
        except grpc.aio.AioRpcError as exc:
            # A write that meets the end of the call overwrites the call's status (grpc/grpc#36066). The
            # next connection writes no more than it reads, and so learns what the matter was.
            if exc.details() == "Internal error from Core":
                raise BackendUnavailable("the connection ended during a write") from exc
            raise _error(exc, self._to) from exc
        except asyncio.InvalidStateError as exc:  # the call had ended before something was written
            raise await self._error_of(stream) from exc
        finally:
            stream.cancel()

    def _stub(self, kind: str, method: Method) -> Any:
        """The channel's callable of a method."""
        stub = self._stubs.get(method.path)
        if stub is None:
            if self._closed:
                raise FailedPrecondition("the client is closed")
            if self._opened is None:
                self._opened = self._open()
            make = getattr(self._opened, kind)
            stub = make(method.path, request_serializer=_serialize, response_deserializer=method.parse)
            self._stubs[method.path] = stub
        return stub

    def _open(self) -> grpc.aio.Channel:
        if self._to.tls is None:
            return grpc.aio.insecure_channel(self._to.address, self._to.options)
        return grpc.aio.secure_channel(self._to.address, self._to.tls.credentials(), self._to.options)

    async def _error_of(self, stream: Any) -> RagstoneError:
        code, details, trailers = (
            await stream.code(),
            await stream.details(),
            await stream.trailing_metadata(),
        )
        return status.from_call(code.name, details, trailers, target=self._to.address)


class Connection:
    """For callers that block."""

    def __init__(self, to: Destination) -> None:
        self._to = to
        self._channel = self._open()
        self._stubs: dict[str, Any] = {}
        self._closed = False

    def close(self) -> None:
        """Close the channel; calls on their way are cancelled."""
        self._closed = True
        self._stubs.clear()
        self._channel.close()

    def unary(self, call: Call[T], timeout_s: float | None) -> T:
        """The value of the one reply."""
        try:
            reply = self._stub("unary_unary", call.method)(call.request, **_terms(self._to, timeout_s))
        except grpc.RpcError as exc:
            raise _error(exc, self._to) from exc
        return call.read(reply)

    def stream(self, call: Call[T | None], timeout_s: float | None, *, endless: bool = False) -> Iterator[T]:
        """The values of the replies as they come; leaving early stops the work on the server.

        ``None`` is passed over. An ``endless`` stream has no deadline unless ``timeout_s`` is given.
        """
        terms = _terms(self._to, timeout_s, endless=endless)
        stream = self._stub("unary_stream", call.method)(call.request, **terms)
        try:
            for reply in stream:
                value = call.read(reply)
                if value is not None:
                    yield value
        except grpc.RpcError as exc:
            raise _error(exc, self._to) from exc
        finally:
            stream.cancel()

    def send(self, state: Import, source: Iterator[Message], timeout_s: float | None) -> None:
        """Send an import until all of it is acknowledged or the connection fails."""
        outgoing: SimpleQueue[Message | None] = SimpleQueue()
        stub = self._stub("stream_stream", calls.IMPORT)
        stream = stub(iter(outgoing.get, None), **_terms(self._to, timeout_s, endless=True))
        state.connect()
        more = True
        try:
            while more or state.pending:
                while more and state.has_room:
                    following = state.resend() or next(source, None)
                    more = following is not None
                    outgoing.put(following)
                if state.pending:
                    reply = next(stream, None)
                    if reply is None:
                        raise BackendUnavailable(_ENDED_EARLY)
                    state.receive(reply)
            with suppress(grpc.RpcError):  # all is acknowledged; the server sees an end in order
                next(stream, None)
        except grpc.RpcError as exc:
            raise _error(exc, self._to) from exc
        finally:
            outgoing.put(None)
            stream.cancel()

    def _stub(self, kind: str, method: Method) -> Any:
        """The channel's callable of a method."""
        stub = self._stubs.get(method.path)
        if stub is None:
            if self._closed:
                raise FailedPrecondition("the client is closed")
            make = getattr(self._channel, kind)
            stub = make(method.path, request_serializer=_serialize, response_deserializer=method.parse)
            self._stubs[method.path] = stub
        return stub

    def _open(self) -> grpc.Channel:
        if self._to.tls is None:
            return grpc.insecure_channel(self._to.address, self._to.options)
        return grpc.secure_channel(self._to.address, self._to.tls.credentials(), self._to.options)


_ENDED_EARLY = "the server ended an import before it had acknowledged everything"


def _terms(to: Destination, timeout_s: float | None, *, endless: bool = False) -> dict[str, Any]:
    deadline_s = to.timeout_s if timeout_s is None and not endless else timeout_s
    return {"timeout": deadline_s, "metadata": to.metadata}


def _error(error: Any, to: Destination) -> RagstoneError:
    trailers = error.trailing_metadata()
    return status.from_call(error.code().name, error.details(), trailers, target=to.address)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()

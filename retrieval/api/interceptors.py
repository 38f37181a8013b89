"""What happens around every call: who calls, whether there is room, how long they wait, what went wrong.

One function around each handler instead of a stack of gRPC interceptors: a Search passes here thousands
of times a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

import grpc
import structlog
from google.protobuf.message import Message
from grpc.aio import ServicerContext

from ragstone.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    Internal,
    Overloaded,
    RagstoneError,
    Unauthenticated,
)
from ragstone.status import TRAILER, to_status
from retrieval.api.admission import Admission
from retrieval.api.requests import Reader

_M = TypeVar("_M", bound=Message)
_Context = ServicerContext[Any, Any]

_CLOSING = "the server is shutting down"

ANYONE = "default"
"""The tenant of every call to a server without tokens."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and how many seconds they still wait (``None``: for ever)."""

    tenant: str
    deadline_s: float | None


class Edge:
    """Turns handlers of messages into handlers of bytes that gRPC can serve.

    ``tokens`` maps bearer tokens to tenants; without any, everybody is welcome.
    """

    def __init__(
        self, *, admission: Admission, tokens: Mapping[str, str] | None = None, log_calls: bool = False
    ) -> None:
        self._admission = admission
        self._tenants = {_digest(token): tenant for token, tenant in (tokens or {}).items()}
        self._reader = Reader()
        self._log = structlog.get_logger("ragstone.api")
        self._log_calls = log_calls
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End the long streams: watches at once, imports before their next request."""
        self._closing.set()

    def unary(
        self, kind: type[_M], handler: Callable[[_M, Caller], Awaitable[Message]], *, admit: bool = True
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """One request, one response. ``admit`` puts the call under admission."""

        async def call(data: bytes, context: _Context) -> bytes:
            started = time.perf_counter()
            try:
                caller = self._caller(context)
                if admit:
                    async with self._admission:
                        request = self._reader.read(kind, data)
                        reply = await handler(request, _in_time(caller, context))
                else:
                    reply = await handler(self._reader.read(kind, data), caller)
                answer = reply.SerializeToString()
            except Exception as exc:
                await self._refuse(context, kind, exc)
                raise
            if self._log_calls:
                self._log_call(kind, started)
            return answer

        return grpc.unary_unary_rpc_method_handler(call)

    def stream(
        self, kind: type[_M], handler: Callable[[_M, Caller], AsyncIterator[Message]]
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """One request, many responses. The handler's iterator is closed when the caller goes away."""

        async def call(data: bytes, context: _Context) -> AsyncIterator[bytes]:
            started = time.perf_counter()
            try:
                caller = self._caller(context)
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(self._admission)
                    request = self._reader.read(kind, data)
                    replies = handler(request, _in_time(caller, context))
                    await stack.enter_async_context(aclosing(replies))  # type: ignore[type-var]
                    async for reply in replies:
                        yield reply.SerializeToString()
            except Exception as exc:
                await self._refuse(context, kind, exc)
                raise
            if self._log_calls:
                self._log_call(kind, started)

        return grpc.unary_stream_rpc_method_handler(call)

    def watch(
        self, kind: type[_M], handler: Callable[[_M, Caller], AsyncIterator[Message]]
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """One request, and responses for as long as the caller listens and the server serves.

        A watch is no work, so it takes no place of those that admission has to give.
        """

        async def call(data: bytes, context: _Context) -> AsyncIterator[bytes]:
            try:
                caller = self._caller(context)
                replies = handler(self._reader.read(kind, data), _in_time(caller, context))
                async with aclosing(replies):  # type: ignore[type-var]
                    while (reply := await self._next(replies)) is not None:
                        yield reply.SerializeToString()
            except Exception as exc:
                await self._refuse(context, kind, exc)
                raise

        return grpc.unary_stream_rpc_method_handler(call)

    async def _next(self, replies: AsyncIterator[Message]) -> Message | None:
        """The next reply, ``None`` after the last. Raises BackendUnavailable when the edge closes first."""
        following = asyncio.ensure_future(anext(replies, None))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((following, closing), return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                raise BackendUnavailable(_CLOSING)
            return following.result()
        finally:
            # Both have to have ended: an iterator cannot be closed while a step of it runs.
            for task in (following, closing):
                task.cancel()
            await asyncio.wait((following, closing))

    def conversation(
        self,
        kind: type[_M],
        handler: Callable[[_M, Caller], Awaitable[Message]],
        back_off: Callable[[_M, Overloaded], Message],
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Many requests, each answered in its turn.

        A request that finds the server overloaded waits, after ``back_off`` has told the caller. While it
        waits no further request is read, so gRPC's flow control holds the caller back.
        """

        async def call(requests: AsyncIterable[bytes], context: _Context) -> AsyncIterator[bytes]:
            try:
                caller = self._caller(context)
                async for data in requests:
                    if self._closing.is_set():
                        raise BackendUnavailable(_CLOSING)
                    request = self._reader.read(kind, data)
                    reply: Message | None = None
                    while reply is None:
                        try:
                            async with self._admission:
                                reply = await handler(request, _in_time(caller, context))
                        except Overloaded as exc:
                            yield back_off(request, exc).SerializeToString()
                            await asyncio.sleep(exc.retry_after_s or 0.5)
                    yield reply.SerializeToString()
            except Exception as exc:
                await self._refuse(context, kind, exc)
                raise

        return grpc.stream_stream_rpc_method_handler(call)

    def _caller(self, context: _Context) -> Caller:
        """Who calls. Raises Unauthenticated."""
        if not self._tenants:
            return Caller(ANYONE, None)
        for key, value in context.invocation_metadata() or ():
            if key == "authorization" and isinstance(value, str):
                scheme, _, token = value.partition(" ")
                tenant = self._tenants.get(_digest(token)) if scheme.lower() == "bearer" else None
                if tenant is not None:
                    return Caller(tenant, None)
        raise Unauthenticated("no valid bearer token")

    async def _refuse(self, context: _Context, kind: type[Message], exc: Exception) -> None:
        """End the call with the status of an error; one that nobody raised on purpose goes to the log."""
        error = _on_purpose(exc)
        if error is None:
            incident = uuid4().hex[:12]
            error = Internal(f"an internal error; the server's log has more under {incident}")
            error.metadata["incident"] = incident
            self._log.error("call_failed", request=kind.DESCRIPTOR.name, incident=incident, exc_info=exc)
        elif self._log_calls:
            self._log.info("call_refused", request=kind.DESCRIPTOR.name, reason=error.reason)
        status = to_status(error)
        await context.abort(
            grpc.StatusCode[error.status],
            status.message,
            trailing_metadata=((TRAILER, status.SerializeToString()),),
        )

    def _log_call(self, kind: type[Message], started: float) -> None:
        taken_ms = round((time.perf_counter() - started) * 1e3, 3)
        self._log.info("call", request=kind.DESCRIPTOR.name, ms=taken_ms)


def _in_time(caller: Caller, context: _Context) -> Caller:
    """The caller with what is left of the deadline. Raises DeadlineExceeded when nothing is.

    gRPC cancels the handler itself when the deadline passes later, or when the caller goes away.
    """
    remaining_s = context.time_remaining()
    if remaining_s is None:
        return caller
    if remaining_s <= 0:
        raise DeadlineExceeded("the deadline passed before the work began")
    return Caller(caller.tenant, remaining_s)


def _on_purpose(exc: Exception) -> RagstoneError | None:
    """The error that Ragstone raised, also as one of several concurrent ones."""
    if isinstance(exc, RagstoneError):
        return exc
    if isinstance(exc, ExceptionGroup):
        found = [_on_purpose(inner) for inner in exc.exceptions]
        return None if None in found else found[0]
    return None


def _digest(token: str) -> bytes:
    # Tokens are looked up by digest: how long that takes says nothing about a token.
    return hashlib.sha256(token.encode()).digest()

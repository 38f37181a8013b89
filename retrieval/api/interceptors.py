"""What happens around every call: who calls, whether there is room, how long it takes, what went wrong.

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
from typing import Any, Final, TypeVar
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
from retrieval.telemetry import Calls, Metrics

_M = TypeVar("_M", bound=Message)
_Context = ServicerContext[Any, Any]

_CLOSING = "the server is shutting down"

ANYONE = "default"
"""The tenant of every call to a server without tokens."""
_CLOCKS_APART_S: Final = 0.05
"""A caller ends its call by its own clock, which may be ahead of the deadline that is known here."""


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
        self,
        *,
        admission: Admission,
        metrics: Metrics,
        tokens: Mapping[str, str] | None = None,
        log_calls: bool = False,
    ) -> None:
        self._admission = admission
        self._metrics = metrics
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
        calls = self._calls(kind)

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
            except BaseException as exc:
                await self._failed(calls, started, context, exc)
                raise
            self._answered(calls, started)
            return answer

        return grpc.unary_unary_rpc_method_handler(call)

    def stream(
        self, kind: type[_M], handler: Callable[[_M, Caller], AsyncIterator[Message]]
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """One request, many responses. The handler's iterator is closed when the caller goes away."""
        calls = self._calls(kind)

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
            except BaseException as exc:
                await self._failed(calls, started, context, exc)
                raise
            self._answered(calls, started)

        return grpc.unary_stream_rpc_method_handler(call)

    def watch(
        self, kind: type[_M], handler: Callable[[_M, Caller], AsyncIterator[Message]]
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """One request, and responses for as long as the caller listens and the server serves.

        A watch is no work, so it takes no place of those that admission has to give.
        """

        calls = self._calls(kind)

        async def call(data: bytes, context: _Context) -> AsyncIterator[bytes]:
            started = time.perf_counter()
            try:
                caller = self._caller(context)
                replies = handler(self._reader.read(kind, data), _in_time(caller, context))
                async with aclosing(replies):  # type: ignore[type-var]
                    while (reply := await self._next(replies)) is not None:
                        yield reply.SerializeToString()
            except BaseException as exc:
                await self._failed(calls, started, context, exc)
                raise
            self._answered(calls, started)

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
        calls = self._calls(kind)

        async def call(requests: AsyncIterable[bytes], context: _Context) -> AsyncIterator[bytes]:
            started = time.perf_counter()
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
            except BaseException as exc:
                await self._failed(calls, started, context, exc)
                raise
            self._answered(calls, started)

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

    def _calls(self, kind: type[Message]) -> Calls:
        # buf lint keeps it so: each method's request is named after it, and no two methods share one.
        return self._metrics.calls(kind.DESCRIPTOR.name.removesuffix("Request"))

    def _answered(self, calls: Calls, started: float) -> None:
        taken_s = time.perf_counter() - started
        calls.answered(taken_s)
        if self._log_calls:
            self._log.info("call", method=calls.method, ms=round(taken_s * 1e3, 3))

    async def _failed(self, calls: Calls, started: float, context: _Context, exc: BaseException) -> None:
        """Count the call, and end it with the status of its error, unless the caller has ended it."""
        taken_s = time.perf_counter() - started
        if isinstance(exc, Exception):
            error = self._error(calls, exc)
            calls.failed(error.status, taken_s)
            await _abort(context, error)
        else:
            calls.failed(_end_by_caller(context), taken_s)

    def _error(self, calls: Calls, exc: Exception) -> RagstoneError:
        """What the caller is told; what nobody raised on purpose goes to the log."""
        error = _on_purpose(exc)
        if error is None:
            incident = uuid4().hex[:12]
            error = Internal(f"an internal error; the server's log has more under {incident}")
            error.metadata["incident"] = incident
            self._log.error("call_failed", method=calls.method, incident=incident, exc_info=exc)
        elif self._log_calls:
            self._log.info("call_refused", method=calls.method, reason=error.reason)
        return error


class UnknownMethods(grpc.GenericRpcHandler):
    """Refuses, and counts, calls of methods that no handler before it serves."""

    def __init__(self, metrics: Metrics) -> None:
        self._counter = metrics.unknown_methods

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The same handler for each: it reads nothing, so it does not matter how many requests come."""
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, requests: AsyncIterable[bytes], context: _Context) -> None:
        self._counter.inc()
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no such method")


async def _abort(context: _Context, error: RagstoneError) -> None:
    status = to_status(error)
    await context.abort(
        grpc.StatusCode[error.status],
        status.message,
        trailing_metadata=((TRAILER, status.SerializeToString()),),
    )


def _end_by_caller(context: _Context) -> str:
    """The status code that a caller sees whose deadline has passed, or who has gone away."""
    remaining_s = context.time_remaining()
    if remaining_s is None or remaining_s > _CLOCKS_APART_S:  # type: ignore[redundant-expr]
        return grpc.StatusCode.CANCELLED.name
    return grpc.StatusCode.DEADLINE_EXCEEDED.name


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

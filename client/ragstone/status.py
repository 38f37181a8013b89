"""Errors <-> ``google.rpc.Status``: every error carries ``ErrorInfo``, and what else belongs to it.

A status travels in a trailer, and trailers are small: long texts and long lists are cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from ragstone.errors import (
    DOMAIN,
    ERRORS,
    BackendUnavailable,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    RagstoneError,
)

TRAILER: Final = "grpc-status-details-bin"
"""The trailer that carries a serialised ``google.rpc.Status``."""
MAX_VIOLATIONS: Final = 16
_MAX_MESSAGE: Final = 512
_MAX_FIELD: Final = 160
_T = TypeVar("_T", bound=Message)


def to_status(error: RagstoneError) -> Status:
    """The status of an error."""
    status = Status(code=Code.Value(error.status), message=_cut(error.message, _MAX_MESSAGE))
    metadata = {_cut(key, _MAX_FIELD): _cut(value, _MAX_FIELD) for key, value in error.metadata.items()}
    status.details.add().Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if error.violations:
        status.details.add().Pack(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(
                        field=_cut(v.field, _MAX_FIELD), description=_cut(v.description, _MAX_FIELD)
                    )
                    for v in error.violations[:MAX_VIOLATIONS]
                ]
            )
        )
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    return status


def from_status(status: Status) -> RagstoneError:
    """The error of a status; the nearest class where the reason is unknown or not Ragstone's."""
    info = _detail(status, ErrorInfo)
    bad = _detail(status, BadRequest)
    retry = _detail(status, RetryInfo)
    name = Code.Name(status.code) if status.code in Code.values() else "UNKNOWN"
    reason = info.reason if info is not None and info.domain == DOMAIN else ""
    error_class = ERRORS.get((name, reason)) or _BY_STATUS.get(name, Internal)
    return error_class(
        status.message,
        violations=tuple(FieldViolation(v.field, v.description) for v in bad.field_violations) if bad else (),
        retry_after_s=retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
        metadata=info.metadata if info else None,
    )


def from_call(
    code: str, details: str | None, trailers: Iterable[tuple[str, str | bytes]] | None, *, target: str
) -> RagstoneError:
    """The error of a call to ``target`` that ended with status ``code``, from its trailers if they tell."""
    for key, value in trailers or ():
        if key == TRAILER and isinstance(value, bytes):
            try:
                return from_status(Status.FromString(value))
            except DecodeError:
                break
    return _bare(code, details or "", target)


def _bare(code: str, details: str, target: str) -> RagstoneError:
    """The error of a status that has no details: gRPC itself made it, or a proxy."""
    if code == "UNAVAILABLE":
        return BackendUnavailable(
            f"no Ragstone server answers at {target}; start one with `ragstone serve` ({details})"
        )
    if code == "RESOURCE_EXHAUSTED" and "message larger than max" in details:
        return InvalidArgument(f"a message is too large: {details}")
    if code == "UNIMPLEMENTED":
        return FailedPrecondition(f"the server at {target} does not know this call: {details}")
    return _BY_STATUS.get(code, Internal)(details or code.lower().replace("_", " "))


_BY_STATUS: Final[Mapping[str, type[RagstoneError]]] = {
    name: error for (name, _), error in reversed(list(ERRORS.items()))
}
"""Status -> the first class of the table that has it, which is the base of the others."""


def _detail(status: Status, kind: type[_T]) -> _T | None:
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            message = kind()
            packed.Unpack(message)
            return message
    return None


def _cut(text: str, limit: int) -> str:
    text = text.encode(errors="replace").decode()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"

"""The error tree, shared by the server and its clients.

Each class stands for exactly one pair of gRPC status and ``ErrorInfo`` reason; ``ERRORS`` is that
table, and the wire uses it in both directions. This module knows no gRPC: ``status`` is the name
of a ``grpc.StatusCode``.

    RagstoneError
    ├── InvalidArgument          the request is wrong: ``violations`` says where
    │   ├── InvalidFilter        the filter does not parse: with the column
    │   └── InvalidPageToken     the token is damaged or belongs to another query
    ├── NotFound · AlreadyExists
    ├── Conflict                 lost a race: read again, then decide
    ├── FailedPrecondition       the system is not in the state that this needs
    │   └── SpaceMismatch        a vector of one embedding space met another space
    ├── Unauthenticated · PermissionDenied
    ├── Overloaded               try again after ``retry_after_s``
    ├── OutOfMemory              it does not fit into the memory of its device
    ├── DeadlineExceeded · Cancelled
    ├── BackendUnavailable       a part that this needs does not answer
    ├── CorruptIndex             stored bytes fail their checksum
    └── Internal                 a bug of Ragstone's
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import ClassVar, Final, Self

DOMAIN: Final = "ragstone"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field: ``field`` is a path such as ``documents[3].vector``."""

    field: str
    description: str


class RagstoneError(Exception):
    """Base of every error that Ragstone raises on purpose."""

    status: ClassVar[str] = "UNKNOWN"
    reason: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = violations
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})

    @classmethod
    def at(cls, field: str, description: str, **metadata: str) -> Self:
        """The error for one wrong field, named by its path."""
        return cls(
            f"{field}: {description}",
            violations=(FieldViolation(field, description),),
            metadata=metadata,
        )

    def within(self, path: str) -> Self:
        """The same error, seen from outside: its fields are parts of ``path``."""
        violations = tuple(FieldViolation(f"{path}.{v.field}", v.description) for v in self.violations)
        message = "; ".join(f"{v.field}: {v.description}" for v in violations) or f"{path}: {self.message}"
        return type(self)(
            message, violations=violations, retry_after_s=self.retry_after_s, metadata=self.metadata
        )


class InvalidArgument(RagstoneError):
    """The request can never succeed as it is."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_ARGUMENT"


class InvalidFilter(InvalidArgument):
    """A filter expression does not parse; ``column`` counts from 1."""

    reason = "INVALID_FILTER"

    @property
    def column(self) -> int:
        """The column of the first character that does not fit."""
        return int(self.metadata.get("column", "0"))


class InvalidPageToken(InvalidArgument):
    """A page token is damaged, or belongs to another query."""

    reason = "INVALID_PAGE_TOKEN"


class NotFound(RagstoneError):
    """No such collection, version or document."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"


class AlreadyExists(RagstoneError):
    """The name is taken."""

    status = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class Conflict(RagstoneError):
    """Somebody else changed it first, or a request id was used for another request."""

    status = "ABORTED"
    reason = "CONFLICT"


class FailedPrecondition(RagstoneError):
    """The system is not in the state that this call needs."""

    status = "FAILED_PRECONDITION"
    reason = "FAILED_PRECONDITION"


class SpaceMismatch(FailedPrecondition):
    """Vectors of two embedding spaces would have met."""

    reason = "SPACE_MISMATCH"


class Unauthenticated(RagstoneError):
    """No valid credentials."""

    status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class PermissionDenied(RagstoneError):
    """Valid credentials that do not allow this."""

    status = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"


class Overloaded(RagstoneError):
    """A bounded queue is full; ``retry_after_s`` says when to come back."""

    status = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"


class OutOfMemory(RagstoneError):
    """What this needs does not fit into the memory of the device that it is to run on."""

    status = "RESOURCE_EXHAUSTED"
    reason = "OUT_OF_MEMORY"


class DeadlineExceeded(RagstoneError):
    """The caller's deadline passed."""

    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class Cancelled(RagstoneError):
    """The caller went away."""

    status = "CANCELLED"
    reason = "CANCELLED"


class BackendUnavailable(RagstoneError):
    """A back end, or the server itself, does not answer."""

    status = "UNAVAILABLE"
    reason = "BACKEND_UNAVAILABLE"


class CorruptIndex(RagstoneError):
    """Stored bytes are not what was written."""

    status = "DATA_LOSS"
    reason = "CORRUPT_INDEX"


class Internal(RagstoneError):
    """A bug: the message names an id that the server's log explains."""

    status = "INTERNAL"
    reason = "INTERNAL"


ERRORS: Final[Mapping[tuple[str, str], type[RagstoneError]]] = {
    (cls.status, cls.reason): cls
    for cls in (
        InvalidArgument,
        InvalidFilter,
        InvalidPageToken,
        NotFound,
        AlreadyExists,
        Conflict,
        FailedPrecondition,
        SpaceMismatch,
        Unauthenticated,
        PermissionDenied,
        Overloaded,
        OutOfMemory,
        DeadlineExceeded,
        Cancelled,
        BackendUnavailable,
        CorruptIndex,
        Internal,
    )
}
"""``(status, reason)`` -> class; one entry a class."""


def parse_retry_after(header: str) -> float | None:
    """``Retry-After`` of HTTP (RFC 9110, 10.2.3), seconds or a date, in seconds from now; None: none."""
    try:
        seconds = float(header)
        return max(seconds, 0.0) if isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):  # no date, or one without a zone
        return None

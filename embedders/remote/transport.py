"""What an embedding server's own protocol has to bring: one request, and how it failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from embedders.base import Vectors


class Away(Exception):
    """The server was not reached, or its connection was lost: another try may help."""


class Busy(Exception):
    """The server has too much to do: another try may help, ``retry_after_s`` from now."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Transport(Protocol):
    """One server, as one protocol reaches it. Requests may run side by side."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Float32 ``(len(texts), width)``, as the server gave them, in the order of ``texts``.

        Raises Away and Busy; InvalidArgument when the server refuses one of the texts; FailedPrecondition
        when it refuses the caller, whatever the text; BackendUnavailable when it takes too long; Internal
        when it fails, or when its answer is none.
        """
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...

"""A server that does not answer is left alone for a while, so that not every search waits for it."""

from __future__ import annotations

from time import monotonic

from ragstone.errors import BackendUnavailable


class Circuit:
    """Open after ``failures`` in a row, for ``open_s``; after that one more failure opens it again."""

    def __init__(self, *, failures: int, open_s: float) -> None:
        self._limit = failures
        self._open_s = open_s
        self._failures = 0
        self._until = 0.0

    def check(self) -> None:
        """Raises BackendUnavailable while it is open."""
        left_s = self._until - monotonic()
        if left_s > 0:
            raise BackendUnavailable(
                f"the reranking server did not answer {self._failures} times in a row: it is left alone",
                retry_after_s=left_s,
            )

    def answered(self) -> None:
        """Close it: the server is there."""
        self._failures, self._until = 0, 0.0

    def failed(self) -> None:
        """Count a request without an answer."""
        self._failures += 1
        if self._failures >= self._limit:
            self._until = monotonic() + self._open_s

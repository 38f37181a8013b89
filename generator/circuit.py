"""A circuit breaker: a generator that does not answer is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class Circuit:
    """Closed, open, half open, as in Nygard, "Release It!", 2007.

    ``failures`` in a row open it for ``open_s``. Then one call is let through: its end closes the circuit, or
    opens it anew.
    """

    def __init__(self, *, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._in_a_row = 0
        self._open_until_s = float("-inf")
        self._reason = ""

    @property
    def closed(self) -> bool:
        """Whether nothing is wrong: for calls that are not to be the one that tries."""
        return self._in_a_row < self._limit

    def refusal(self) -> str | None:
        """Why no call may go through now; None lets this one through."""
        if self.closed:
            return None
        left_s = self._open_until_s - self._clock()
        if left_s <= 0:
            # This call tries whether it is back. Another one is let through only when that took too long.
            self._open_until_s = self._clock() + self._open_s
            return None
        return f"left alone for {left_s:.1f} s more after {self._in_a_row} failures: {self._reason}"

    def answered(self) -> None:
        """Close it."""
        self._in_a_row = 0

    def failed(self, reason: str) -> None:
        """Count a call without an answer."""
        self._in_a_row += 1
        self._reason = reason
        self._open_until_s = self._clock() + self._open_s

"""A circuit breaker: a store that does not answer is left alone for a while; callers are told at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ragstone.errors import BackendUnavailable


class CircuitBreaker:
    """Closed, open, half open, as in Nygard, "Release It!", 2007.

    ``failures`` calls in a row that end in BackendUnavailable open it for ``open_s``; then one call is let
    through, and its end closes the circuit or opens it anew. Any other error is an answer.
    """

    def __init__(self, *, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures = failures
        self._open_s = open_s
        self._clock = clock
        self._in_a_row = 0
        self._open_until_s = float("-inf")
        self._trying = False
        self._reason = ""

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call. Raises BackendUnavailable instead of letting it through."""
        trial = self._enter()
        try:
            yield
            self._in_a_row = 0
        except BackendUnavailable as exc:
            self._in_a_row += 1
            self._reason = exc.message
            self._open_until_s = self._clock() + self._open_s
            raise
        except Exception:
            self._in_a_row = 0
            raise
        finally:
            if trial:
                self._trying = False

    def _enter(self) -> bool:
        """Whether this call is the one that tries if the store is back."""
        if self._in_a_row < self._failures:
            return False
        left_s = self._open_until_s - self._clock()
        if left_s > 0 or self._trying:
            raise BackendUnavailable(f"{self._reason}; it is asked again in {max(left_s, 0):.1f} s")
        self._trying = True
        return True

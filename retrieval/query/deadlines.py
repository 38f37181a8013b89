"""How long a caller still waits."""

from __future__ import annotations

from time import monotonic


class Deadline:
    """The moment after which nobody waits for an answer any more; None: there is none."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else monotonic() + seconds

    def remaining_s(self) -> float | None:
        """Seconds from now; below 0 when it has passed."""
        return None if self._end is None else self._end - monotonic()

"""The pace of a rebuild beside requests: work and rest in turn, so that requests find the machine free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

_EXPECTED_S: Final = 1.0
"""So long after a request another one is expected."""
_TEXTS_BESIDE_REQUESTS: Final = 4
"""Embedded between two rests. A search waits for them at worst: some 25 ms of one core."""


class Pace:
    """Rests after each piece of work while requests come in; not at all while nobody asks."""

    def __init__(self, requests: Callable[[], int], *, busy_share: float) -> None:
        """``requests`` tells how many have begun; work takes ``busy_share`` of the time."""
        self._requests = requests
        self._rest_share = 1 / busy_share - 1
        self._seen = requests()
        self._asked_at = monotonic()
        self._rested_at = monotonic()

    def texts(self, at_most: int) -> int:
        """How many texts to embed before the next rest."""
        return min(_TEXTS_BESIDE_REQUESTS, at_most) if self._busy() else at_most

    async def rest(self, since: float) -> None:
        """Rest from the work since ``since``, monotonic seconds, or since the last rest if that is later."""
        worked_s = monotonic() - max(since, self._rested_at)
        await asyncio.sleep(worked_s * self._rest_share if self._busy() else 0)
        self._rested_at = monotonic()

    def _busy(self) -> bool:
        if self._requests() != self._seen:
            self._seen, self._asked_at = self._requests(), monotonic()
        return monotonic() - self._asked_at < _EXPECTED_S

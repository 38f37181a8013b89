"""The recall of live queries: now and then one is asked again exactly, in the background."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final

import numpy as np

from indexes.base import Neighbours

_WINDOW: Final = 500
_PAUSE_S: Final = 1.0
_SHARE: Final = 0.02
"""Of one core, at most, for asking again."""


class RecallSampler:
    """Compares a few answers with the truth. Belongs to one event loop.

    Between two samples lies at least a second, and fifty times as long as the last one took.
    """

    def __init__(self, pause_s: float = _PAUSE_S) -> None:
        self._pause_s = pause_s
        self._next = 0.0
        self._recalls: deque[float] = deque(maxlen=_WINDOW)

    @property
    def due(self) -> bool:
        """Whether it is time for a sample."""
        return monotonic() >= self._next

    async def compare(self, found: Neighbours, ask_exactly: Callable[[], Awaitable[Neighbours]]) -> None:
        """Take a sample: the answer to one query, and how to get the true one."""
        self._next = float("inf")
        start = monotonic()
        try:
            self._recalls.append(_recall(found, await ask_exactly()))
        finally:
            now = monotonic()
            self._next = now + max(self._pause_s, (now - start) / _SHARE)

    def stats(self) -> dict[str, Any]:
        """The mean recall@k of the last samples, None without any, and how many these are."""
        recall = float(np.mean(self._recalls)) if self._recalls else None
        return {"recall": recall, "samples": len(self._recalls)}


def _recall(found: Neighbours, truth: Neighbours) -> float:
    """The share of the true neighbours that were found; one that scores as well as the last counts too."""
    there = truth.keys[0] >= 0
    if not there.any():
        return 1.0
    floor = truth.scores[0, there].min()
    return float(min(1.0, np.count_nonzero(found.scores[0] >= floor) / np.count_nonzero(there)))

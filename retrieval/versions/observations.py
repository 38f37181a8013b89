"""What was seen of a version on live searches: counters, and windows of the last ones. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

import numpy as np

from ragstone.types import Latency

WINDOW: Final = 500
"""The last searches that percentiles and failures are taken over."""


def _window() -> deque[Any]:
    return deque(maxlen=WINDOW)


class Kept:
    """Values that go into the catalog as JSON, and come back."""

    def as_json(self) -> dict[str, Any]:
        """Every field, windows as lists."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]
        return {name: list(value) if isinstance(value, deque) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse; what ``value`` lacks is as if nothing had been seen."""
        kept = cls()
        for one in fields(kept):  # type: ignore[arg-type]
            found = value.get(one.name, getattr(kept, one.name))
            setattr(kept, one.name, deque(found, WINDOW) if isinstance(found, list) else found)
        return kept


@dataclass(slots=True)
class ShadowSeen(Kept):
    """Of the searches that a version was asked beside the serving one."""

    mirrored: int = 0
    skipped: int = 0
    dropped: int = 0
    failed: int = 0
    rbo: float = 0.0
    """The sum over all mirrored searches, as ``overlap``."""
    overlap: float = 0.0
    own_ms: deque[float] = field(default_factory=_window)
    serving_ms: deque[float] = field(default_factory=_window)
    """Of the same searches."""

    def compared(self, *, rbo: float, overlap: float, own_ms: float, serving_ms: float) -> None:
        """Count a search that both versions answered."""
        self.mirrored += 1
        self.rbo += rbo
        self.overlap += overlap
        self.own_ms.append(own_ms)
        self.serving_ms.append(serving_ms)

    @property
    def mean_rbo(self) -> float | None:
        """None before the first search."""
        return self.rbo / self.mirrored if self.mirrored else None

    @property
    def mean_overlap(self) -> float | None:
        """None before the first search."""
        return self.overlap / self.mirrored if self.mirrored else None


@dataclass(slots=True)
class CanarySeen(Kept):
    """Of the searches that a version was to answer."""

    answered: int = 0
    failed: int = 0
    failures: deque[bool] = field(default_factory=_window)
    """Of the last searches, whether the serving version had to answer."""
    own_ms: deque[float] = field(default_factory=_window)
    serving_ms: deque[float] = field(default_factory=_window)
    """Of searches that the serving version answered in the same time: the next after each of the canary's."""
    paired: bool = True
    """Whether the last of ``own_ms`` has got its one in ``serving_ms``."""
    stopped: str = ""
    """Why its share was taken away."""

    def answer(self, ms: float) -> None:
        """Count a search that the version answered."""
        self.answered += 1
        self.failures.append(False)
        self.own_ms.append(ms)
        self.paired = False

    def failure(self) -> None:
        """Count a search that the serving version had to answer."""
        self.failed += 1
        self.failures.append(True)

    def served(self, ms: float) -> None:
        """Time a search of the serving version, if it is the next one after one of the canary's."""
        if not self.paired:
            self.serving_ms.append(ms)
            self.paired = True


def latency(own_ms: Sequence[float], serving_ms: Sequence[float]) -> Latency | None:
    """The percentiles of two windows; None before the first search."""
    if not own_ms:
        return None
    p50, p95 = _percentiles(own_ms)
    serving_p50, serving_p95 = _percentiles(serving_ms) if serving_ms else (None, None)
    return Latency(
        searches=len(own_ms),
        p50_ms=p50,
        p95_ms=p95,
        serving_p50_ms=serving_p50,
        serving_p95_ms=serving_p95,
    )


def _percentiles(window: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(window, (50, 95))
    return round(float(p50), 3), round(float(p95), 3)

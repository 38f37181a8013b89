"""Structured logs, and every name that a log, a metric or a response's timing uses."""

from __future__ import annotations

import logging
import sys
from time import perf_counter
from typing import Final

import structlog

STAGE_WAIT: Final = "wait"
STAGE_FILTER: Final = "filter"
STAGE_EMBED: Final = "embed"
STAGE_DENSE: Final = "dense"
STAGE_LEXICAL: Final = "lexical"
STAGE_FUSE: Final = "fuse"
STAGE_HYDRATE: Final = "hydrate"
STAGE_SEARCH: Final = "search"
STAGE_FIRST_DELTA: Final = "first_delta"
STAGE_TOTAL: Final = "total"


class Stopwatch:
    """Milliseconds of each stage of one request."""

    def __init__(self) -> None:
        self._start = perf_counter()
        self.timings_ms: dict[str, float] = {}

    def stage(self, name: str) -> _Stage:
        """Time the body of a ``with`` under ``name``, also when it raises."""
        return _Stage(self.timings_ms, name)

    def total(self) -> dict[str, float]:
        """All stages and the time since the stopwatch was made."""
        return {**self.timings_ms, STAGE_TOTAL: _ms_since(self._start)}


class _Stage:
    # A class: a generator takes half as long again, and every search has several stages.
    __slots__ = ("_name", "_start", "_timings_ms")

    def __init__(self, timings_ms: dict[str, float], name: str) -> None:
        self._timings_ms = timings_ms
        self._name = name

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *raised: object) -> None:
        self._timings_ms[self._name] = _ms_since(self._start)


def _ms_since(start: float) -> float:
    return round((perf_counter() - start) * 1e3, 3)


def configure_logging(level: str) -> None:
    """JSON lines on standard error; readable ones when it is a terminal."""
    renderer = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer(sort_keys=True)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )

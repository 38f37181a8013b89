"""Structured logs, metrics, and every name that a metric or a response's timing has."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ragstone.answers import Usage

STAGE_WAIT: Final = "wait"
STAGE_FILTER: Final = "filter"
STAGE_EMBED: Final = "embed"
STAGE_DENSE: Final = "dense"
STAGE_LEXICAL: Final = "lexical"
STAGE_FUSE: Final = "fuse"
STAGE_RERANK: Final = "rerank"
STAGE_HYDRATE: Final = "hydrate"
STAGE_CONDENSE: Final = "condense"
STAGE_SEARCH: Final = "search"
STAGE_FIRST_DELTA: Final = "first_delta"
STAGE_TOTAL: Final = "total"

SEARCH_STAGES: Final = (
    STAGE_WAIT,
    STAGE_FILTER,
    STAGE_EMBED,
    STAGE_DENSE,
    STAGE_LEXICAL,
    STAGE_FUSE,
    STAGE_RERANK,
    STAGE_HYDRATE,
    STAGE_TOTAL,
)
LEG_DENSE: Final = "dense"
LEG_LEXICAL: Final = "lexical"
INDEX_TOKENS: Final = "tokens"
"""No leg: it scores what the legs have found."""
LEG_RERANK: Final = "rerank"
"""No leg, but named beside them: in ``degraded``, and in what a hit's score is made of."""

REQUESTS: Final = "ragstone_requests_total"
REQUEST_DURATION: Final = "ragstone_request_duration_seconds"
REQUESTS_IN_FLIGHT: Final = "ragstone_requests_in_flight"
REQUESTS_WAITING: Final = "ragstone_requests_waiting"
REQUESTS_SHED: Final = "ragstone_requests_shed_total"
GENERATIONS: Final = "ragstone_generations_total"
GENERATED_TOKENS: Final = "ragstone_generation_tokens_total"
GENERATION_COST: Final = "ragstone_generation_cost_total"
FIRST_TOKEN_DURATION: Final = "ragstone_generation_first_token_seconds"
TOKEN_DURATION: Final = "ragstone_generation_token_seconds"
SEARCH_STAGE_DURATION: Final = "ragstone_search_stage_duration_seconds"
SEARCHES_DEGRADED: Final = "ragstone_searches_degraded_total"
QUERY_VECTORS: Final = "ragstone_query_vectors_total"

# Of versions that are tried on live searches.
CANARY_SEARCHES: Final = "ragstone_canary_searches_total"
CANARIES_STOPPED: Final = "ragstone_canaries_stopped_total"
SHADOW_SEARCHES: Final = "ragstone_shadow_searches_total"

# Of one index of one version.
INDEX_LIVE: Final = "ragstone_index_live_chunks"
INDEX_DELETED: Final = "ragstone_index_deleted_chunks"
INDEX_PENDING: Final = "ragstone_index_pending_chunks"
INDEX_SEGMENTS: Final = "ragstone_index_segments"
INDEX_SIZE: Final = "ragstone_index_size_bytes"
INDEX_LAG: Final = "ragstone_index_journal_lag"
INDEX_RECALL: Final = "ragstone_index_recall_ratio"
INDEX_RECALL_SAMPLES: Final = "ragstone_index_recall_samples"
INDEX_FAILING: Final = "ragstone_index_upkeep_failing"

# Of one version.
VERSION_BACKLOG: Final = "ragstone_version_backlog_chunks"
VERSION_PARKED_STEPS: Final = "ragstone_version_parked_steps"
VERSION_PARKED_CHUNKS: Final = "ragstone_version_parked_chunks"

UNKNOWN_METHOD: Final = "unknown"
"""One label for all: a caller can think up any number of names."""

_REQUEST_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE_BUCKETS_S: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    1.0,
    5.0,
)


class Metrics:
    """What a server counts and times as it works. Safe to use from any thread.

    What every call touches is bound to its labels once: finding it by them takes longer than counting.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = Counter(
            REQUESTS, "Calls that ended, by gRPC status code.", ("method", "code"), registry=registry
        )
        self._durations = Histogram(
            REQUEST_DURATION,
            "Duration of calls; a stream is one call.",
            ("method",),
            buckets=_REQUEST_BUCKETS_S,
            registry=registry,
        )
        self.unknown_methods = self._requests.labels(UNKNOWN_METHOD, "UNIMPLEMENTED")
        self.in_flight = Gauge(REQUESTS_IN_FLIGHT, "Admitted requests being worked on.", registry=registry)
        self.waiting = Gauge(REQUESTS_WAITING, "Requests waiting to be admitted.", registry=registry)
        self.shed = Counter(REQUESTS_SHED, "Requests that found the queue full.", registry=registry)
        stages = Histogram(
            SEARCH_STAGE_DURATION,
            "Duration of the stages of searches that were answered.",
            ("stage",),
            buckets=_STAGE_BUCKETS_S,
            registry=registry,
        )
        self._stages = {stage: stages.labels(stage) for stage in SEARCH_STAGES}
        self._degraded = Counter(
            SEARCHES_DEGRADED, "Searches answered without this leg or stage.", ("leg",), registry=registry
        )
        for leg in LEG_DENSE, LEG_LEXICAL, LEG_RERANK:
            self._degraded.labels(leg)
        lookups = Counter(
            QUERY_VECTORS,
            "Queries to embed, by whether their vectors were still there.",
            ("outcome",),
            registry=registry,
        )
        self._hits, self._misses = lookups.labels("hit"), lookups.labels("miss")
        self._canary = Counter(
            CANARY_SEARCHES,
            "Searches that went to a canary, by whether it answered them or the serving version had to.",
            ("collection", "outcome"),
            registry=registry,
        )
        self._stopped = Counter(
            CANARIES_STOPPED, "Canaries whose share was taken away.", ("collection",), registry=registry
        )
        self._shadow = Counter(
            SHADOW_SEARCHES,
            "Searches chosen to be asked beside of a version, by what came of it.",
            ("collection", "outcome"),
            registry=registry,
        )

        self._generations = Counter(
            GENERATIONS, "Answers that were generated.", ("generator", "tenant"), registry=registry
        )
        self._tokens = Counter(
            GENERATED_TOKENS,
            "Tokens of answers, by what they were: of the prompt, of those from the cache, of the answer.",
            ("generator", "tenant", "kind"),
            registry=registry,
        )
        self._cost = Counter(
            GENERATION_COST,
            "What answers cost by the price table.",
            ("generator", "tenant"),
            registry=registry,
        )
        self._ttft = Histogram(
            FIRST_TOKEN_DURATION,
            "From the request to a generator to the first piece of text.",
            ("generator",),
            buckets=_REQUEST_BUCKETS_S,
            registry=registry,
        )
        self._tpot = Histogram(
            TOKEN_DURATION,
            "From one token of an answer to the next, on average.",
            ("generator",),
            buckets=_STAGE_BUCKETS_S,
            registry=registry,
        )

    def generated(self, generator: str, tenant: str, usage: Usage, *, answers: int = 1) -> None:
        """Count an answer and its tokens; ``answers`` is 0 for what is only a part of one."""
        self._generations.labels(generator, tenant).inc(answers)
        kinds = {
            "prompt": usage.prompt_tokens,
            "cached": usage.cached_tokens,
            "completion": usage.completion_tokens,
        }
        for kind, tokens in kinds.items():
            self._tokens.labels(generator, tenant, kind).inc(tokens)
        if usage.cost is not None:
            self._cost.labels(generator, tenant).inc(usage.cost)
        if usage.ttft_ms and answers:
            self._ttft.labels(generator).observe(usage.ttft_ms / 1e3)
        if usage.tpot_ms and answers:
            self._tpot.labels(generator).observe(usage.tpot_ms / 1e3)

    def looked_up(self, *, hit: bool) -> None:
        """Count a query whose vector was still there, or was not."""
        (self._hits if hit else self._misses).inc()

    def calls(self, method: str) -> Calls:
        """The calls of one method. Ask once for each method that the server has, not for each call."""
        return Calls(method, self._requests, self._durations)

    def trials(self, collection: str) -> Trials:
        """Those of one collection. Ask once for each collection that tries a version."""
        return Trials(collection, self._canary, self._stopped, self._shadow)

    def searched(self, timings_ms: Mapping[str, float], degraded: Iterable[str]) -> None:
        """Count a search that was answered: its stages, and the legs that it had to do without."""
        for stage, ms in timings_ms.items():
            self._stages[stage].observe(ms / 1e3)
        for leg in degraded:
            self._degraded.labels(leg).inc()


class Trials:
    """What the versions of one collection that are tried on live searches made of them."""

    __slots__ = ("canary_answered", "canary_failed", "dropped", "failed", "mirrored", "skipped", "stopped")

    def __init__(self, collection: str, canary: Counter, stopped: Counter, shadow: Counter) -> None:
        self.canary_answered = canary.labels(collection, "answered")
        self.canary_failed = canary.labels(collection, "failed")
        self.stopped = stopped.labels(collection)
        self.mirrored = shadow.labels(collection, "mirrored")
        self.skipped = shadow.labels(collection, "skipped")
        self.dropped = shadow.labels(collection, "dropped")
        self.failed = shadow.labels(collection, "failed")


class Calls:
    """The calls of one method, counted by status code and timed."""

    __slots__ = ("_durations", "_ok", "_requests", "method")

    def __init__(self, method: str, requests: Counter, durations: Histogram) -> None:
        self.method = method
        self._requests = requests
        self._ok = requests.labels(method, "OK")
        self._durations = durations.labels(method)

    def answered(self, seconds: float) -> None:
        """Count a call that ended well."""
        self._ok.inc()
        self._durations.observe(seconds)

    def failed(self, code: str, seconds: float) -> None:
        """Count a call that ended with another gRPC status code, such as ``NOT_FOUND``."""
        self._requests.labels(self.method, code).inc()
        self._durations.observe(seconds)


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

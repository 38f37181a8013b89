"""What the open versions hold and how far they have come, read when Prometheus asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from indexes.base import IndexStats
from retrieval import telemetry
from retrieval.versions.applier import Applier
from retrieval.versions.collections import Collections
from retrieval.versions.parts import Index
from retrieval.versions.snapshots import Snapshot

T = TypeVar("T")
log = structlog.get_logger(__name__)

READ_S: Final = 5.0
"""How long a scrape waits for the event loop: half of what Prometheus waits for a scrape by default."""


class CollectionGauges(Collector):
    """Gauges of every open collection. ``collect`` is for threads other than the event loop's."""

    def __init__(self, collections: Collections, loop: asyncio.AbstractEventLoop) -> None:
        self._collections = collections
        self._loop = loop

    def collect(self) -> Sequence[GaugeMetricFamily]:
        """The gauges; none, and a warning in the log, while the event loop has no time to read them."""
        # Statistics belong to the event loop: on another thread they would be read while they change. A
        # copy kept ready for scrapes would cost every write something, and be stale; a scrape can wait.
        reading = asyncio.run_coroutine_threadsafe(self._read(), self._loop)
        try:
            return reading.result(READ_S)
        except TimeoutError:
            reading.cancel()
            log.warning("gauges_left_out", reason=f"the event loop had no time for them in {READ_S:g} s")
            return []

    async def _read(self) -> Sequence[GaugeMetricFamily]:
        labels = ("collection", "version")
        of_versions = [(gauge, gauge.family(*labels)) for gauge in _OF_VERSION]
        of_indexes = [(gauge, gauge.family(*labels, "leg")) for gauge in _OF_INDEX]
        for collection in self._collections.all():
            for follower in tuple(collection.followers.values()):
                snapshot = follower.snapshot
                version = (collection.row.name, snapshot.version.name)
                for gauge, family in of_versions:
                    gauge.add(family, version, snapshot.applier)
                for index in _indexes(snapshot):
                    for gauge_of_index, family in of_indexes:
                        gauge_of_index.add(family, (*version, index.leg), index)
            # Searches have a turn between two collections: statistics look at files.
            await asyncio.sleep(0)
        return [family for _, family in (*of_versions, *of_indexes)]


@dataclass(frozen=True, slots=True)
class _Index:
    """One index as it is now; ``lag`` is how many journal positions it is behind."""

    leg: str
    stats: IndexStats
    lag: int

    @property
    def live_recall(self) -> Mapping[str, Any]:
        """What is known of the recall of live queries; empty where nobody measures it."""
        recall: Mapping[str, Any] = self.stats.details.get("live_recall", {})
        return recall

    @property
    def failing(self) -> bool | None:
        """Whether the last upkeep failed; None where there is no upkeep."""
        error = self.stats.details.get("last_error")
        return None if error is None else bool(error)


def _indexes(snapshot: Snapshot) -> list[_Index]:
    head, parts = snapshot.applier.head, snapshot.parts
    legs: list[tuple[str, Index]] = [
        (telemetry.LEG_DENSE, parts.dense),
        (telemetry.LEG_LEXICAL, parts.lexical),
    ]
    if parts.tokens is not None:
        legs.append((telemetry.INDEX_TOKENS, parts.tokens))
    return [_Index(leg, index.stats(), max(0, head - index.applied_seq)) for leg, index in legs]


@dataclass(frozen=True, slots=True)
class _Gauge(Generic[T]):
    """A name, what it means, and where its value is; None is no value."""

    name: str
    meaning: str
    value: Callable[[T], float | None]

    def family(self, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.name, self.meaning, labels=labels)

    def add(self, family: GaugeMetricFamily, labels: Sequence[str], source: T) -> None:
        value = self.value(source)
        if value is not None:
            family.add_metric(labels, value)


_OF_VERSION: Final[Sequence[_Gauge[Applier]]] = (
    _Gauge(
        telemetry.VERSION_BACKLOG,
        "Chunks that are committed and not yet searchable.",
        lambda applier: applier.pending_chunks,
    ),
    _Gauge(
        telemetry.VERSION_PARKED_STEPS,
        "Writes that could not be indexed.",
        lambda applier: len(applier.progress.parked_steps),
    ),
    _Gauge(
        telemetry.VERSION_PARKED_CHUNKS,
        "Chunks that the embedder refused; only the lexical leg finds them.",
        lambda applier: len(applier.progress.parked_chunks),
    ),
)
_OF_INDEX: Final[Sequence[_Gauge[_Index]]] = (
    _Gauge(telemetry.INDEX_LIVE, "Chunks that searches find.", lambda index: index.stats.live),
    _Gauge(
        telemetry.INDEX_DELETED,
        "Chunks that were deleted and still take room.",
        lambda index: index.stats.deleted,
    ),
    _Gauge(
        telemetry.INDEX_PENDING,
        "Chunks that wait for a structure and are searched exactly until then.",
        lambda index: index.stats.pending,
    ),
    _Gauge(telemetry.INDEX_SEGMENTS, "Segments.", lambda index: index.stats.segments),
    _Gauge(telemetry.INDEX_SIZE, "Size on disk.", lambda index: index.stats.bytes_on_disk),
    _Gauge(
        telemetry.INDEX_LAG,
        "Journal positions between the collection's last write and what the index has applied.",
        lambda index: index.lag,
    ),
    _Gauge(
        telemetry.INDEX_RECALL,
        "Mean recall of the live queries that were compared with an exact search.",
        lambda index: index.live_recall.get("recall"),
    ),
    _Gauge(
        telemetry.INDEX_RECALL_SAMPLES,
        "How many live queries that mean is over.",
        lambda index: index.live_recall.get("samples"),
    ),
    _Gauge(
        telemetry.INDEX_FAILING,
        "1 while the last upkeep of the index failed.",
        lambda index: index.failing,
    ),
)

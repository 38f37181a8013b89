"""Where live searches go beside the serving version: a canary answers some, a shadow is compared on some."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from random import random
from typing import Final

from ragstone.types import Query, SearchResult, Traffic
from retrieval.config import TrafficSettings
from retrieval.store.values import TrafficRow, VersionRow
from retrieval.telemetry import STAGE_TOTAL, STAGE_WAIT, Trials
from retrieval.versions import canaries
from retrieval.versions.comparison import documents
from retrieval.versions.observations import CanarySeen, ShadowSeen, latency

_SHADOW: Final = "shadow"
_CANARY: Final = "canary"


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A search that the serving version has answered: the documents that it found, and how long it took."""

    query: Query
    documents: tuple[str, ...]
    ms: float


class VersionTraffic:
    """The live searches that one version gets, and what was seen of them. Belongs to the event loop."""

    def __init__(
        self,
        version: VersionRow,
        row: TrafficRow,
        *,
        collection: str,
        serving_space: str,
        settings: TrafficSettings,
        trials: Trials,
        when_stopped: Callable[[], None],
    ) -> None:
        self.version = version
        self.collection = collection
        self.shadow = row.shadow
        self.canary = row.canary
        self.shadow_seen = ShadowSeen.from_json(row.observed.get(_SHADOW, {}))
        self.canary_seen = CanarySeen.from_json(row.observed.get(_CANARY, {}))
        self.last_failure = str(row.observed.get("last_failure", ""))
        self.queue: asyncio.Queue[Mirrored] = asyncio.Queue(settings.shadow_queue)
        self.changed = False
        """Whether something was seen since ``observed`` was called."""
        self.stopped_by: dict[str, object] = {}
        """The numbers that took the canary's share away, until they are written down."""
        self._same_space = version.space == serving_space
        self._settings = settings
        self._trials = trials
        self._when_stopped = when_stopped

    # -- shares ----------------------------------------------------------------------------------------

    def share(self, *, shadow: float | None, canary: float | None) -> None:
        """Take other shares; None leaves one. What begins anew forgets what was seen of it before."""
        if shadow is not None:
            if shadow and not self.shadow:
                self.shadow_seen, self.last_failure = ShadowSeen(), ""
            if not shadow:
                self.queue = asyncio.Queue(self.queue.maxsize)
            self.shadow = shadow
        if canary is not None:
            if canary and not self.canary:
                self.canary_seen, self.last_failure = CanarySeen(), ""
            self.canary, self.stopped_by = canary, {}
        self.changed = True

    def observed(self) -> dict[str, object]:
        """What was seen, as the catalog keeps it."""
        self.changed = False
        return {
            _SHADOW: self.shadow_seen.as_json(),
            _CANARY: self.canary_seen.as_json(),
            "last_failure": self.last_failure,
        }

    def describe(self) -> Traffic:
        """What was seen, as clients see it."""
        shadow, canary = self.shadow_seen, self.canary_seen
        return Traffic(
            shadow=self.shadow,
            canary=self.canary,
            mirrored=shadow.mirrored,
            skipped=shadow.skipped,
            dropped=shadow.dropped,
            failed=shadow.failed,
            mean_rbo=shadow.mean_rbo,
            mean_overlap=shadow.mean_overlap,
            shadow_latency=latency(shadow.own_ms, shadow.serving_ms),
            canary_answered=canary.answered,
            canary_failed=canary.failed,
            canary_latency=latency(canary.own_ms, canary.serving_ms),
            stopped=canary.stopped,
            last_failure=self.last_failure,
        )

    # -- the canary ------------------------------------------------------------------------------------

    def takes(self, query: Query, tenant: str) -> bool:
        """Whether a query is of this version's share, and its vector, if it has one, of its space."""
        if _names_a_space(query) and not self._same_space:
            return False
        return canaries.takes(self.version.id, canaries.request_key(query, tenant), self.canary)

    def patience_s(self, deadline_s: float | None) -> float:
        """How long to wait for the canary, so that the serving version can still answer."""
        limit = self._settings.timeout_s
        return limit if deadline_s is None else min(limit, deadline_s / 2)

    def answered(self, result: SearchResult) -> None:
        """Count a search that the canary answered."""
        self.canary_seen.answer(_ms(result))
        self._trials.canary_answered.inc()
        self.changed = True

    def ran_late(self, patience_s: float, serving_s: float) -> None:
        """Count a search that took the canary longer than ``patience_s``, if that was long enough.

        It was not where the serving version itself needs so long that a canary within its limit is late too:
        the caller is in a hurry then.
        """
        if patience_s >= self._settings.max_slowdown * serving_s:
            self.gave_way(f"no answer in {patience_s:.3g} s")

    def gave_way(self, reason: str) -> None:
        """Count a search that the serving version answered in the canary's place; too many stop it."""
        self.canary_seen.failure()
        self._trials.canary_failed.inc()
        self.last_failure = reason
        self.changed = True
        self.check()

    def check(self) -> None:
        """Take the canary's share away when it does not hold what it is held to."""
        if not self.canary:
            return
        measured = canaries.gates(self.canary_seen, self.shadow_seen, self._settings)
        broken = [gate for gate in measured if not gate.passed]
        if broken:
            self.stopped_by = {"share": self.canary, **{gate.name: gate.value for gate in broken}}
            self.canary = 0.0
            self.canary_seen.stopped = canaries.told(broken)
            self._trials.stopped.inc()
            self._when_stopped()

    # -- the shadow ------------------------------------------------------------------------------------

    def mirror(self, query: Query, result: SearchResult) -> None:
        """Queue a search that was answered, to be asked of this version too. Never waits."""
        self.changed = True
        if query.page_token or result.degraded or (_names_a_space(query) and not self._same_space):
            self.shadow_seen.skipped += 1
            self._trials.skipped.inc()
            return
        try:
            self.queue.put_nowait(Mirrored(query, documents(result.hits), _ms(result)))
        except asyncio.QueueFull:
            self.shadow_seen.dropped += 1
            self._trials.dropped.inc()

    def compared(self, mirrored: Mirrored, result: SearchResult, *, rbo: float, overlap: float) -> None:
        """Count a mirrored search that this version answered."""
        self.shadow_seen.compared(rbo=rbo, overlap=overlap, own_ms=_ms(result), serving_ms=mirrored.ms)
        self._trials.mirrored.inc()
        self.changed = True

    def missed(self, reason: str) -> None:
        """Count a mirrored search that this version could not answer."""
        self.shadow_seen.failed += 1
        self._trials.failed.inc()
        self.last_failure = reason
        self.changed = True


@dataclass(slots=True)
class CollectionTraffic:
    """The versions of one collection that get live searches, while there are any."""

    versions: list[VersionTraffic]
    following: Container[int]
    """The ids of open versions: after a restart one may still be opening."""
    chance: Callable[[], float] = field(default=random)

    def canary(self, query: Query, tenant: str) -> VersionTraffic | None:
        """The version to ask instead of the serving one. Further pages belong to the version of the first."""
        if query.page_token:
            return None
        for version in self.versions:
            if version.canary and self._follows(version) and version.takes(query, tenant):
                return version
        return None

    def served(self, query: Query, result: SearchResult) -> None:
        """Learn from what the serving version has answered."""
        for version in self.versions:
            if version.canary and not query.page_token:
                version.canary_seen.served(_ms(result))
            if version.shadow and self._follows(version) and self.chance() < version.shadow:
                version.mirror(query, result)

    def _follows(self, version: VersionTraffic) -> bool:
        return version.version.id in self.following


def _ms(result: SearchResult) -> float:
    """How long a search took, without waiting for a write that it wanted to see."""
    return result.timings_ms[STAGE_TOTAL] - result.timings_ms.get(STAGE_WAIT, 0.0)


def _names_a_space(query: Query) -> bool:
    """A vector is of some space, whether it says so or not; a text where it says so."""
    return query.vector is not None or query.space is not None

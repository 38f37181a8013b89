"""How a search is answered: which rows are compared, and how much an index is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from pyroaring import BitMap64

from indexes.base import SearchParams
from indexes.dense.pgvector.building import lists_of
from indexes.dense.pgvector.options import HnswOptions, IvfflatOptions, PgvectorOptions

SPARE: Final = 8
"""Fetched beside what is wanted: what ties with the last one wanted has to be seen."""
_SCANNED: Final = 2_000
"""So few rows are compared in less time than a graph is walked."""
_PICKED: Final = 5_000
"""So few allowed rows are picked one by one and compared."""
_FEW: Final = 4
"""An index that is asked for more than this part of all rows is no help."""
_MOST_EF: Final = 1_000


@dataclass(frozen=True, slots=True)
class Plan:
    """``indexed``: by the index, else every row that counts is compared.

    ``among``: PostgreSQL is told which keys are allowed; else they are picked here, out of ``limit`` rows.
    ``onward``: an index that has looked ``effort`` wide, and found too few, goes on. Keeping track of where
    costs a search without a filter a fifth of its time.
    """

    k: int
    filtered: bool
    indexed: bool
    among: bool
    limit: int
    effort: int
    onward: bool = False

    def settings(self, options: PgvectorOptions) -> Mapping[str, str]:
        """The settings of a session for it."""
        knob = "ef_search" if options.method == "hnsw" else "probes"
        return {
            f"{options.method}.{knob}": str(self.effort),
            f"{options.method}.iterative_scan": "relaxed_order" if self.onward else "off",
        }

    def wider(self, live: int, *, found: int) -> Plan:
        """What to do next, when this has not sufficed and found so many rows.

        An index that gave less than it was asked for goes on, past rows that are deleted; if it did so
        already, or most rows are wanted, all are compared.
        """
        if found < self.limit and not self.onward:
            return replace(self, onward=True)
        limit = 2 * self.limit
        if found < self.limit or limit * _FEW >= live:
            return replace(self, indexed=False, among=self.filtered, limit=self.k)
        return replace(self, limit=limit, effort=min(_MOST_EF, max(self.effort, limit)))

    def explain(self, options: PgvectorOptions) -> str:
        """The plan in words."""
        filtered = ", among the allowed keys" if self.among else ""
        if not self.indexed:
            return f"scans the table{filtered}"
        knob = "ef_search" if options.method == "hnsw" else "probes"
        return f"{options.method} for {self.limit} rows{filtered}, {knob} = {self.effort}"


def plan(
    options: PgvectorOptions,
    k: int,
    *,
    live: int,
    indexed: bool,
    allow: BitMap64 | None,
    params: SearchParams,
) -> Plan:
    """For ``live`` rows, with or without an index over them."""
    filtered = allow is not None
    candidates = live if allow is None else min(live, len(allow))
    few = candidates <= (_SCANNED if allow is None else _PICKED)
    if params.exact or not indexed or few or k * _FEW >= candidates:
        return Plan(k, filtered, indexed=False, among=filtered, limit=k, effort=0)
    # Where most rows are allowed, it is cheaper to look at some too many than to send all their keys.
    among = allow is not None and 2 * candidates < live
    limit = k + SPARE if allow is None or among else math.ceil((k + SPARE) * live / candidates)
    effort = _effort(options, params.effort, limit, live)
    return Plan(k, filtered, indexed=True, among=among, limit=limit, effort=effort, onward=among)


def _effort(options: PgvectorOptions, wanted: int | None, limit: int, live: int) -> int:
    if isinstance(options, IvfflatOptions):
        lists = lists_of(options, live)
        return min(lists, wanted or options.probes or max(1, math.ceil(lists / 8)))
    assert isinstance(options, HnswOptions)
    return min(_MOST_EF, max(limit, wanted or options.ef_search))

"""Shadows: a version is asked what live searches asked, after they were answered, and compared."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import perf_counter

from retrieval.versions.applier import Rest
from retrieval.versions.asking import Ask
from retrieval.versions.comparison import documents, overlap, rank_biased_overlap
from retrieval.versions.routing import Mirrored, VersionTraffic
from retrieval.versions.snapshots import OpenCollection


async def follow_searches(
    collection: OpenCollection, traffic: VersionTraffic, ask: Ask, *, rest: Rest, timeout_s: float
) -> None:
    """Work a version's queue off, one search at a time, and rest after each. Never returns."""
    while True:
        mirrored = await traffic.queue.get()
        began = perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                await _compare(collection, traffic, mirrored, ask)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is what is to be found out here
            traffic.missed(f"{type(exc).__name__}: {exc}")
        await rest(perf_counter() - began)


async def _compare(collection: OpenCollection, traffic: VersionTraffic, mirrored: Mirrored, ask: Ask) -> None:
    # Not through the collection's own lease: that one counts as a live search.
    with collection.followers[traffic.version.id].lease() as snapshot:
        result = await ask(snapshot, replace(mirrored.query, explain=False))
    if result.degraded:
        traffic.missed(f"answered without {', '.join(result.degraded)}")
        return
    found = documents(result.hits)
    traffic.compared(
        mirrored,
        result,
        rbo=rank_biased_overlap(mirrored.documents, found),
        overlap=overlap(mirrored.documents, found),
    )

"""Canaries: which requests are theirs, and what takes their share away. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from ragstone.types import Gate, Query
from retrieval.config import TrafficSettings
from retrieval.versions.observations import CanarySeen, ShadowSeen, latency

_ALL: Final = 2**64


def request_key(query: Query, tenant: str) -> bytes:
    """Who asks, as well as the request tells: equal keys are answered by the same version."""
    if query.request_key:
        return query.request_key.encode()
    asked = query.text.encode() if query.text or query.vector is None else bytes(memoryview(query.vector))
    return tenant.encode() + b"\0" + asked


def takes(version_id: int, key: bytes, share: float) -> bool:
    """Whether a request key is in a version's ``share`` of all keys.

    Each key has its place in a version's order once and for all: a larger share has all of a smaller one's.
    """
    digest = hashlib.blake2b(key, digest_size=8, salt=version_id.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") < share * _ALL


def gates(canary: CanarySeen, shadow: ShadowSeen, limits: TrafficSettings) -> Sequence[Gate]:
    """What a canary is held to, measured. What was seen too seldom to be measured is left out."""
    found = [_failures(canary, limits)]
    if min(len(canary.own_ms), len(canary.serving_ms)) >= limits.min_searches:
        found.append(_slowdown(canary, limits))
    if limits.min_rbo and shadow.mean_rbo is not None and shadow.mirrored >= limits.min_searches:
        found.append(
            Gate(
                name="shadow_rbo",
                passed=shadow.mean_rbo >= limits.min_rbo,
                value=shadow.mean_rbo,
                limit=limits.min_rbo,
                detail=f"{shadow.mirrored} mirrored searches",
            )
        )
    return found


def told(failed: Sequence[Gate]) -> str:
    """Why a share was taken away, in one line."""
    return "; ".join(
        f"{gate.name} is {gate.value:.4g}, the limit {gate.limit:g} ({gate.detail})" for gate in failed
    )


def _failures(canary: CanarySeen, limits: TrafficSettings) -> Gate:
    # As if of ``min_searches`` from the first on: one failure of the first two is not half of all, and yet a
    # canary that answers nothing is stopped after a few.
    failed, of = sum(canary.failures), len(canary.failures)
    share = failed / max(of, limits.min_searches)
    return Gate(
        name="canary_failures",
        passed=share <= limits.max_failures,
        value=share,
        limit=limits.max_failures,
        detail=f"{failed} of the last {of} searches, counted as of {max(of, limits.min_searches)}",
    )


def _slowdown(canary: CanarySeen, limits: TrafficSettings) -> Gate:
    measured = latency(canary.own_ms, canary.serving_ms)
    assert measured is not None
    assert measured.serving_p95_ms is not None
    ratio = measured.p95_ms / max(measured.serving_p95_ms, 1e-3)
    return Gate(
        name="canary_p95_ratio",
        passed=ratio <= limits.max_slowdown,
        value=ratio,
        limit=limits.max_slowdown,
        detail=f"{measured.p95_ms:g} ms, the serving version {measured.serving_p95_ms:g} ms",
    )

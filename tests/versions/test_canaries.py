"""Which requests are a canary's, and what takes its share away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragstone.types import Query
from retrieval.config import TrafficSettings
from retrieval.versions.canaries import gates, request_key, takes, told
from retrieval.versions.observations import WINDOW, CanarySeen, ShadowSeen

shares = st.floats(0, 1)
keys = st.binary(max_size=20)
LIMITS = TrafficSettings(min_searches=100, max_failures=0.02, max_slowdown=2.0, min_rbo=0.8)


# -- which requests -------------------------------------------------------------------------------


@given(st.integers(1, 2**40), keys, shares, shares)
def test_a_larger_share_keeps_every_key_of_a_smaller_one(
    version: int, key: bytes, a: float, b: float
) -> None:
    smaller, larger = sorted((a, b))
    assert takes(version, key, larger) or not takes(version, key, smaller)


@given(st.integers(1, 2**40), keys)
def test_no_share_has_no_key_and_a_whole_one_has_all(version: int, key: bytes) -> None:
    assert not takes(version, key, 0.0)
    assert takes(version, key, 1.0)


def test_a_share_is_that_share_of_the_keys() -> None:
    taken = sum(takes(7, str(key).encode(), 0.3) for key in range(10_000))
    assert 2_800 < taken < 3_200


def test_the_keys_of_one_version_are_not_those_of_another() -> None:
    both = sum(takes(7, key, 0.3) and takes(8, key, 0.3) for key in (b"%d" % i for i in range(10_000)))
    assert 750 < both < 1_050


def test_a_request_key_is_all_that_counts_where_there_is_one() -> None:
    asked = [Query(text=text, request_key="user 7") for text in ("a", "b")]
    assert request_key(asked[0], "t") == request_key(asked[1], "u")


@pytest.mark.parametrize(
    ("other", "tenant"),
    [(Query(text="b"), "t"), (Query(text="a"), "u"), (Query(text="a", request_key="k"), "t")],
)
def test_tenant_and_text_take_its_place(other: Query, tenant: str) -> None:
    assert request_key(Query(text="a"), "t") == request_key(Query(text="a", k=3), "t")
    assert request_key(Query(text="a"), "t") != request_key(other, tenant)


def test_vectors_without_a_text_are_keys_of_their_own() -> None:
    a, b = (Query(vector=np.array(row, np.float32)) for row in ([0, 1], [1, 0]))
    assert request_key(a, "t") != request_key(b, "t")


# -- what takes the share away ----------------------------------------------------------------------


def canary(failures: int, answers: int, *, own_ms: float = 10.0, serving_ms: float = 10.0) -> CanarySeen:
    """A canary that failed, answered, and had the serving version beside it."""
    seen = CanarySeen()
    for _ in range(failures):
        seen.failure()
    for _ in range(answers):
        seen.answer(own_ms)
        seen.served(serving_ms)
    return seen


def shadow(rbo: float, searches: int) -> ShadowSeen:
    seen = ShadowSeen()
    for _ in range(searches):
        seen.compared(rbo=rbo, overlap=1.0, own_ms=1.0, serving_ms=1.0)
    return seen


def broken(
    seen: CanarySeen, beside: ShadowSeen | None = None, limits: TrafficSettings = LIMITS
) -> Sequence[str]:
    return [gate.name for gate in gates(seen, beside or ShadowSeen(), limits) if not gate.passed]


@pytest.mark.parametrize(
    ("seen", "names"),
    [
        (canary(0, 0), []),
        (canary(0, WINDOW), []),
        (canary(2, 0), []),
        (canary(3, 0), ["canary_failures"]),
        (canary(10, WINDOW - 10), []),
        (canary(11, WINDOW - 11), ["canary_failures"]),
        (canary(0, 99, own_ms=100.0), []),
        (canary(0, 100, own_ms=20.0), []),
        (canary(0, 100, own_ms=20.1), ["canary_p95_ratio"]),
        (canary(2, 100, own_ms=100.0), ["canary_p95_ratio"]),
        (canary(4, 100, own_ms=100.0), ["canary_failures", "canary_p95_ratio"]),
    ],
)
def test_a_canary_is_held_to_failures_and_latency(seen: CanarySeen, names: Sequence[str]) -> None:
    assert broken(seen) == names


@pytest.mark.parametrize(
    ("beside", "min_rbo", "names"),
    [
        (shadow(0.5, 99), 0.8, []),
        (shadow(0.5, 100), 0.8, ["shadow_rbo"]),
        (shadow(0.5, 100), 0.5, []),
        (shadow(0.0, 100), 0.0, []),
    ],
)
def test_a_canary_is_held_to_the_likeness_of_its_shadow_where_that_is_asked_for(
    beside: ShadowSeen, min_rbo: float, names: Sequence[str]
) -> None:
    limits = LIMITS.model_copy(update={"min_rbo": min_rbo})
    assert broken(canary(0, 0), beside, limits) == names


def test_old_failures_are_forgotten() -> None:
    assert broken(canary(50, WINDOW)) == []


def test_the_reason_has_the_numbers() -> None:
    failed = [gate for gate in gates(canary(3, 1), ShadowSeen(), LIMITS) if not gate.passed]
    reason = "canary_failures is 0.03, the limit 0.02 (3 of the last 4 searches, counted as of 100)"
    assert told(failed) == reason

"""What is seen of a version on live searches."""

from __future__ import annotations

import json
from typing import TypeVar

import pytest

from retrieval.versions.observations import WINDOW, CanarySeen, Kept, ShadowSeen, latency

K = TypeVar("K", bound=Kept)


def through_the_catalog(seen: K) -> K:
    return type(seen).from_json(json.loads(json.dumps(seen.as_json())))


def test_what_was_seen_survives_the_catalog() -> None:
    shadow = ShadowSeen(skipped=2, dropped=3, failed=4)
    shadow.compared(rbo=0.5, overlap=0.25, own_ms=2.0, serving_ms=1.0)
    canary = CanarySeen(stopped="too slow")
    canary.answer(1.5)
    canary.failure()
    assert through_the_catalog(shadow) == shadow
    assert through_the_catalog(canary) == canary


@pytest.mark.parametrize("kind", [ShadowSeen, CanarySeen])
def test_nothing_was_seen_where_nothing_was_kept(kind: type[Kept]) -> None:
    assert kind.from_json({"of a later version": 1}) == kind()


def test_windows_keep_the_last_searches_alone_also_after_the_catalog() -> None:
    canary = through_the_catalog(CanarySeen())
    for ms in range(WINDOW + 5):
        canary = through_the_catalog(canary) if ms == WINDOW else canary
        canary.answer(ms)
    assert (canary.answered, list(canary.own_ms)) == (WINDOW + 5, list(range(5, WINDOW + 5)))


def test_means_are_over_all_searches_and_nothing_before_the_first() -> None:
    shadow = ShadowSeen()
    assert (shadow.mean_rbo, shadow.mean_overlap) == (None, None)
    for rbo, overlap in ((0.5, 0.2), (1.0, 0.4)):
        shadow.compared(rbo=rbo, overlap=overlap, own_ms=1.0, serving_ms=1.0)
    assert shadow.mean_rbo == 0.75
    assert shadow.mean_overlap == pytest.approx(0.3)


def test_the_serving_version_is_timed_once_after_each_answer_of_the_canary() -> None:
    canary = CanarySeen()
    canary.served(1.0)
    canary.answer(10.0)
    for ms in (2.0, 3.0):
        canary.served(ms)
    canary.answer(10.0)
    canary.served(4.0)
    assert list(canary.serving_ms) == [2.0, 4.0]


def test_percentiles_of_both_versions() -> None:
    measured = latency(list(range(101)), [5.0])
    assert measured is not None
    assert (measured.searches, measured.p50_ms, measured.p95_ms) == (101, 50.0, 95.0)
    assert (measured.serving_p50_ms, measured.serving_p95_ms) == (5.0, 5.0)


def test_a_version_alone_has_percentiles_too() -> None:
    alone = latency([1.0], [])
    assert alone is not None
    assert (alone.p95_ms, alone.serving_p95_ms) == (1.0, None)
    assert latency([], [1.0]) is None

"""How a rebuild makes room for requests. The clock and the sleeps are the test's."""

from __future__ import annotations

import asyncio

import pytest

from retrieval.versions import pace
from retrieval.versions.pace import Pace


class Hours:
    """A clock that moves when somebody works, and when a pace rests."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rested: list[float] = []
        self.requests = 0

    async def sleep(self, seconds: float) -> None:
        self.rested.append(seconds)
        self.now += seconds


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    hours = Hours()
    monkeypatch.setattr(pace, "monotonic", lambda: hours.now)
    monkeypatch.setattr(asyncio, "sleep", hours.sleep)
    return hours


async def test_work_takes_its_share_of_the_time_beside_requests(hours: Hours) -> None:
    quarter = Pace(lambda: hours.requests, busy_share=0.25)
    hours.requests, hours.now = 1, 2.0
    await quarter.rest(since=0.0)
    assert hours.rested == [6.0]


async def test_a_piece_of_work_inside_another_is_rested_from_once(hours: Hours) -> None:
    half = Pace(lambda: hours.requests, busy_share=0.5)
    hours.requests, hours.now = 1, 0.25
    await half.rest(since=0.0)
    hours.now += 0.125
    await half.rest(since=0.0)
    assert hours.rested == [0.25, 0.125]


async def test_few_texts_at_once_beside_requests_and_all_of_them_without(hours: Hours) -> None:
    half = Pace(lambda: hours.requests, busy_share=0.5)
    hours.now = 10.0
    assert half.texts(256) == 256
    hours.requests = 1
    assert half.texts(256) < 10
    hours.now = 20.0
    assert half.texts(256) == 256
    await half.rest(since=0.0)
    assert hours.rested == [0]

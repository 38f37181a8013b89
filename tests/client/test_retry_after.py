"""How a server of HTTP says when to come back."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ragstone.errors import parse_retry_after


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("1.5", 1.5), ("-3", 0.0)])
def test_seconds(header: str, seconds: float) -> None:
    assert parse_retry_after(header) == seconds


def test_a_date_is_so_far_from_now() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    found = parse_retry_after(later)
    assert found is not None
    assert 0 < found <= 600


def test_a_date_that_has_passed_is_now() -> None:
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@pytest.mark.parametrize("header", ["", "soon", "nan", "inf", "Wed, 99 Oct 2015"])
def test_anything_else_says_nothing(header: str) -> None:
    assert parse_retry_after(header) is None

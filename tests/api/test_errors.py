"""What the application raises arrives at the caller as itself."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from ragstone import errors
from ragstone.errors import ERRORS, FieldViolation, RagstoneError
from ragstone.types import Query


@pytest.mark.parametrize("kind", ERRORS.values(), ids=lambda kind: kind.__name__)
async def test_every_error_crosses_the_wire(either: Any, app: Any, kind: type[RagstoneError]) -> None:
    # The retry policy tries UNAVAILABLE again, so there is one for every attempt.
    error = kind(
        "what happened",
        violations=(FieldViolation("query.text", "why"),),
        retry_after_s=1.5,
        metadata={"column": "7"},
    )
    app.errors += [error] * 4
    with pytest.raises(RagstoneError) as caught:
        await either.search("docs", "question")
    back = caught.value
    assert type(back) is kind
    assert (back.message, back.violations) == (error.message, error.violations)
    assert (back.retry_after_s, back.metadata) == (1.5, {"column": "7"})


async def test_a_stream_that_fails_raises_after_what_it_gave(either: Any) -> None:
    with pytest.raises(errors.NotFound, match="it is gone"):
        [event async for event in either.answer("docs", "fail")]


async def test_a_bug_is_told_by_an_id_that_the_log_explains(either: Any, app: Any) -> None:
    app.errors.append(ZeroDivisionError("secret detail"))
    with capture_logs() as logs, pytest.raises(errors.Internal) as caught:
        await either.search("docs", "question")
    assert "secret" not in caught.value.message
    [entry] = [entry for entry in logs if entry["event"] == "call_failed"]
    assert entry["incident"] == caught.value.metadata["incident"]
    assert entry["incident"] in caught.value.message
    assert isinstance(entry["exc_info"], ZeroDivisionError)


async def test_an_error_of_one_of_several_concurrent_parts_is_that_error(either: Any, app: Any) -> None:
    app.errors.append(errors.SpaceMismatch("two spaces"))
    with pytest.raises(errors.SpaceMismatch):
        await either.batch_search("docs", [Query(text="a"), Query(text="b")])


async def test_unavailable_is_tried_again_and_nothing_else_is(either: Any, app: Any) -> None:
    app.errors.append(errors.BackendUnavailable("one moment"))
    await either.search("docs", "question")
    app.errors.append(errors.Overloaded("full"))
    with pytest.raises(errors.Overloaded):
        await either.search("docs", "question")
    assert len(app.calls) == 3

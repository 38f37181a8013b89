"""Every error becomes one status, and comes back from it as itself."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from ragstone import errors
from ragstone.errors import ERRORS, FieldViolation, RagstoneError
from ragstone.status import MAX_VIOLATIONS, TRAILER, from_call, from_status, to_status

TARGET = "127.0.0.1:1"
text = st.text(st.characters(codec="utf-8"), max_size=100)


def subclasses(cls: type[RagstoneError]) -> set[type[RagstoneError]]:
    return {cls, *(found for sub in cls.__subclasses__() for found in subclasses(sub))}


def test_the_table_has_each_class_once_and_no_pair_twice() -> None:
    assert set(ERRORS.values()) == subclasses(RagstoneError) - {RagstoneError}
    assert len(ERRORS) == len(set(ERRORS.values()))
    assert all(pair == (cls.status, cls.reason) for pair, cls in ERRORS.items())


def test_every_status_is_one_of_grpc_s() -> None:
    assert {status for status, _ in ERRORS} <= {code.name for code in grpc.StatusCode}


@given(
    cls=st.sampled_from(list(ERRORS.values())),
    message=text,
    violations=st.lists(st.builds(FieldViolation, text, text), max_size=3).map(tuple),
    retry_after_s=st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
    metadata=st.dictionaries(text, text, max_size=3),
)
def test_an_error_comes_back_as_itself(
    cls: type[RagstoneError],
    message: str,
    violations: tuple[FieldViolation, ...],
    retry_after_s: float | None,
    metadata: dict[str, str],
) -> None:
    error = cls(message, violations=violations, retry_after_s=retry_after_s, metadata=metadata)
    back = from_status(Status.FromString(to_status(error).SerializeToString()))
    assert type(back) is cls
    assert (back.message, back.violations, back.metadata) == (message, violations, metadata)
    assert back.retry_after_s == retry_after_s


def test_every_status_carries_error_info_of_ragstone_s_domain() -> None:
    for cls in ERRORS.values():
        info = ErrorInfo()
        assert to_status(cls("x")).details[0].Unpack(info)
        assert (info.domain, info.reason) == ("ragstone", cls.reason)


def test_a_status_with_endless_details_still_fits_a_trailer() -> None:
    violations = tuple(FieldViolation(f"documents[{i}].text" * 50, "ü" * 5000) for i in range(1000))
    status = to_status(errors.InvalidArgument("ü" * 10_000, violations=violations))
    assert len(from_status(status).violations) == MAX_VIOLATIONS
    assert len(status.SerializeToString()) < 12_000


def test_text_that_is_not_unicode_does_not_break_the_error_about_it() -> None:
    assert to_status(errors.NotFound("\ud800")).message == "?"


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        ("UNAVAILABLE", "connection refused", errors.BackendUnavailable),
        ("DEADLINE_EXCEEDED", "", errors.DeadlineExceeded),
        ("CANCELLED", "", errors.Cancelled),
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (2 vs. 1)", errors.InvalidArgument),
        ("RESOURCE_EXHAUSTED", "quota", errors.Overloaded),
        ("UNIMPLEMENTED", "Method not found!", errors.FailedPrecondition),
        ("NOT_FOUND", "", errors.NotFound),
        ("INVALID_ARGUMENT", "", errors.InvalidArgument),
        ("UNKNOWN", "", errors.Internal),
        ("INTERNAL", "", errors.Internal),
    ],
)
def test_a_status_that_grpc_made_itself_becomes_the_nearest_error(
    code: str, details: str, expected: type[RagstoneError]
) -> None:
    assert type(from_call(code, details, None, target=TARGET)) is expected


def test_a_reason_of_a_newer_server_becomes_the_base_of_its_status() -> None:
    status = to_status(errors.SpaceMismatch("x"))
    info = ErrorInfo(reason="SOMETHING_NEW", domain="ragstone")
    status.details[0].Pack(info)
    assert type(from_status(status)) is errors.FailedPrecondition


def test_a_server_that_does_not_answer_is_named_with_what_starts_one() -> None:
    error = from_call("UNAVAILABLE", "connection refused", None, target=TARGET)
    assert TARGET in error.message
    assert "ragstone serve" in error.message


def test_a_trailer_that_is_damaged_is_passed_over() -> None:
    error = from_call("NOT_FOUND", "gone", [(TRAILER, b"\xff\xff")], target=TARGET)
    assert type(error) is errors.NotFound

"""What an import has sent, and what of it is acknowledged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragstone import Document, WriteResult
from ragstone.errors import InvalidArgument
from ragstone.importing import ATTEMPTS, BATCH_BYTES, WINDOW, Import
from ragstone.v1 import documents_pb2


def importing(batch: int = 2, **options: Any) -> Import:
    given: dict[str, Any] = {"wait": "committed", "on_progress": None, **options}
    return Import("docs", batch=batch, **given)


def ack(request: Any, seq: int = 1) -> Any:
    result = {"seq": seq, "documents": len(request.documents)}
    return documents_pb2.ImportDocumentsResponse(index=request.index, ack=result)


def documents(*ids: str) -> Any:
    return iter([Document(id=id_, text="text") for id_ in ids])


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), max_size=30), st.integers(1, 5))
def test_requests_hold_every_document_in_order_and_no_id_twice(ids: list[str], batch: int) -> None:
    requests: list[Any] = list(importing(batch).requests(documents(*ids)))
    sent = [[document.id for document in request.documents] for request in requests]
    assert [id_ for request in sent for id_ in request] == ids
    assert all(len(request) == len(set(request)) <= batch for request in sent)
    assert [request.index for request in requests] == list(range(len(requests)))


def test_large_documents_make_small_requests() -> None:
    text = "x" * (BATCH_BYTES // 2 + 1)
    given = iter([Document(id=str(i), text=text) for i in range(3)])
    assert [len(r.documents) for r in importing(100).requests(given)] == [1, 1, 1]  # type: ignore[attr-defined]


def test_a_connection_begins_with_one_request_and_opens_up_once_it_is_taken() -> None:
    state = importing(1)
    requests = state.requests(documents(*"abcdefgh"))
    state.connect()
    first = next(requests)
    assert not state.has_room
    state.receive(ack(first))
    sent = 0
    while state.has_room:
        next(requests)
        sent += 1
    assert sent == WINDOW


def test_a_new_connection_repeats_what_was_not_acknowledged_in_order() -> None:
    state = importing(1)
    first, second, third = state.requests(documents("a", "b", "c"))
    state.receive(ack(first))
    state.connect()
    assert [state.resend(), state.resend(), state.resend()] == [second, third, None]


def test_a_plea_to_wait_acknowledges_nothing() -> None:
    state = importing(1)
    [request] = state.requests(documents("a"))
    state.receive(documents_pb2.ImportDocumentsResponse(index=0, back_off={}))
    assert state.pending
    state.receive(ack(request, seq=7))
    assert not state.pending
    assert state.result == WriteResult(seq=7, documents=1)


def test_it_gives_up_after_failures_without_an_acknowledgement_between_them() -> None:
    state = importing(1)
    [request] = state.requests(documents("a"))
    delays = [state.next_delay_s() for _ in range(ATTEMPTS - 1)]
    assert None not in delays
    assert delays == sorted(delays)  # type: ignore[type-var]
    state.receive(ack(request))
    assert [state.next_delay_s() is None for _ in range(ATTEMPTS)] == [False] * (ATTEMPTS - 1) + [True]


@pytest.mark.parametrize("batch", [0, 1001])
def test_a_batch_that_no_request_can_hold(batch: int) -> None:
    with pytest.raises(InvalidArgument, match="batch"):
        importing(batch)

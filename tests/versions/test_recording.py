"""What is kept of what clients ask."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ragstone.types import Query
from retrieval.versions.recording import Recording


def texts(recording: Recording) -> list[str]:
    return [query.text for query in recording.queries()]


@given(st.lists(st.sampled_from("abcdef"), max_size=30), st.integers(1, 4))
def test_the_last_different_queries_are_kept(asked: list[str], kept: int) -> None:
    recording = Recording(kept=kept, pause_s=0)
    for text in asked:
        recording.heard(Query(text=text))
    assert texts(recording) == list(dict.fromkeys(reversed(asked)))[:kept][::-1]


def test_at_high_rates_one_in_a_while_is_kept_once_there_are_enough() -> None:
    now = 0.0
    recording = Recording(kept=2, pause_s=1.0, clock=lambda: now)
    for quarter in range(10):
        now = quarter / 4
        recording.heard(Query(text=str(quarter)))
    assert texts(recording) == ["5", "9"]


def test_a_further_page_is_no_query_of_its_own() -> None:
    recording = Recording(pause_s=0)
    recording.heard(Query(text="a", page_token="more"))
    assert recording.queries() == ()


def test_what_belongs_to_one_request_is_not_kept() -> None:
    recording = Recording(pause_s=0)
    recording.heard(Query(text="a", request_key="ann", min_seq=7, explain=True))
    assert recording.queries() == (Query(text="a"),)


def test_vectors_tell_queries_apart() -> None:
    recording = Recording(pause_s=0)
    for number in (1, 2, 1):
        recording.heard(Query(vector=np.full(3, number, np.float32)))
    assert len(recording.queries()) == 2

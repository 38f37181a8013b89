"""Page tokens: bound to their query, opaque, safe to show to anybody."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from ragstone.errors import InvalidPageToken
from ragstone.types import Mode, Query
from retrieval.query.pages import (
    MAX_SEEN,
    decode_page,
    decode_position,
    encode_page,
    encode_position,
)

QUERY = Query(text="what is a journal", mode=Mode.HYBRID)


@given(st.sets(st.integers(0, 2**40), max_size=300))
def test_a_token_brings_back_what_was_seen(keys: set[int]) -> None:
    seen = BitMap64(keys)
    assert decode_page(replace(QUERY, page_token=encode_page(QUERY, 1, seen)), 1) == seen


def test_without_a_token_nothing_has_been_seen() -> None:
    assert not decode_page(QUERY, 1)


@pytest.mark.parametrize(
    "other",
    [
        replace(QUERY, text="another question"),
        replace(QUERY, mode=Mode.DENSE),
        replace(QUERY, filter="year = 2020"),
        replace(QUERY, version="v2"),
        replace(QUERY, vector=np.ones(4, np.float32)),
    ],
)
def test_a_token_of_another_query_is_refused(other: Query) -> None:
    token = encode_page(QUERY, 1, BitMap64([1]))
    with pytest.raises(InvalidPageToken) as caught:
        decode_page(replace(other, page_token=token), 1)
    assert caught.value.violations[0].field == "page_token"


def test_a_token_of_another_version_is_refused() -> None:
    token = encode_page(QUERY, 1, BitMap64([1]))
    with pytest.raises(InvalidPageToken):
        decode_page(replace(QUERY, page_token=token), 2)


@given(st.text(min_size=1, max_size=80))
def test_any_other_text_is_refused(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        decode_page(replace(QUERY, page_token=token), 1)


def test_a_page_of_another_size_may_follow() -> None:
    token = encode_page(QUERY, 1, BitMap64([1]))
    assert decode_page(replace(QUERY, page_token=token, k=50), 1) == BitMap64([1])


def test_reading_on_ends_when_a_token_holds_no_more() -> None:
    assert encode_page(QUERY, 1, BitMap64(range(MAX_SEEN))) == ""


@given(st.text(min_size=1))
def test_a_listing_goes_on_after_the_last_id(document_id: str) -> None:
    assert decode_position(encode_position(document_id)) == document_id


@pytest.mark.parametrize("token", ["?", "a", "ÿ", "_w=="])
def test_a_damaged_listing_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        decode_position(token)

"""Stored metadata: canonical text that gives back what was put in, and plain refusals."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.metadata import MAX_BYTES, MAX_KEY_LENGTH, MAX_KEYS, decode_metadata, encode_metadata
from ragstone.errors import InvalidArgument
from ragstone.types import Metadata

encodable = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
scalars = (
    encodable
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.dates()
    | st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=-7))))
)
keys = encodable.filter(lambda key: key not in ("", "document_id"))
metadatas = st.dictionaries(keys, scalars | st.lists(scalars, max_size=3), max_size=4)


@given(metadatas)
def test_decoding_gives_back_what_was_encoded(metadata: Metadata) -> None:
    decoded = decode_metadata(encode_metadata(metadata))
    assert decoded == metadata
    assert [type(decoded[key]) for key in metadata] == [type(value) for value in metadata.values()]


@given(metadatas)
def test_equal_metadata_is_equal_text_in_any_order(metadata: Metadata) -> None:
    backwards = dict(reversed(list(metadata.items())))
    assert encode_metadata(backwards) == encode_metadata(metadata)


def test_the_text_is_canonical_json_with_tagged_dates() -> None:
    metadata: Metadata = {
        "b": ["ä", 1, 2.0, True],
        "at": datetime(2024, 1, 31, 10),
        "a": date(2024, 1, 31),
    }
    assert encode_metadata(metadata) == (
        '{"a":{"$date":"2024-01-31"},"at":{"$date":"2024-01-31T10:00:00+00:00"},"b":["ä",1,2.0,true]}'
    )


def test_values_that_only_subclass_a_plain_type_are_stored_plain() -> None:
    class Language(StrEnum):
        ENGLISH = "en"

    assert encode_metadata({"lang": Language.ENGLISH, "tags": ("x", "y")}) == '{"lang":"en","tags":["x","y"]}'


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        (None, "metadata.k", "null; leave the key out"),
        ({"a": 1}, "metadata.k", "a map"),
        ([["a"]], "metadata.k[0]", "a list"),
        (["a", None], "metadata.k[1]", "null"),
        (float("nan"), "metadata.k", "nan"),
        (float("-inf"), "metadata.k", "-inf"),
        (2**63, "metadata.k", "more than 64 bits"),
        (b"x", "metadata.k", "a bytes"),
        ({"x"}, "metadata.k", "a set"),
        ("\ud800", "metadata.k", "lone surrogates"),
    ],
)
def test_other_values_are_refused_with_their_path(value: Any, path: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        encode_metadata({"k": value})
    assert [violation.field for violation in refused.value.violations] == [path]
    assert says in refused.value.message


@pytest.mark.parametrize("key", ["", "document_id", "k" * (MAX_KEY_LENGTH + 1), "\udfff", 1])
def test_other_keys_are_refused(key: Any) -> None:
    with pytest.raises(InvalidArgument):
        encode_metadata({key: 1})


def test_a_document_has_at_most_so_many_keys() -> None:
    encode_metadata({f"k{n}": n for n in range(MAX_KEYS)})
    with pytest.raises(InvalidArgument, match="257 keys"):
        encode_metadata({f"k{n}": n for n in range(MAX_KEYS + 1)})


def test_too_much_metadata_is_refused_by_the_name_of_its_largest_key() -> None:
    with pytest.raises(InvalidArgument, match=r"metadata\.long"):
        encode_metadata({"short": 1, "long": "x" * MAX_BYTES})

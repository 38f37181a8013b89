"""The metadata follower answers every filter as ``matches`` defines it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from indexes.filters import Comparison, Filter, Not, Op, Present, all_of, any_of, matches, parse
from indexes.metadata import MetadataIndex
from ragstone.types import Metadata

TEXTS = ["", "en", "de", "2024-01-31", "2024-01-31T10:00:00Z", "true", "1"]
DATES = [date(2024, 1, 31), datetime(2024, 1, 31), datetime(2024, 1, 31, 10, tzinfo=UTC), date(2020, 2, 29)]
scalars = st.sampled_from([*TEXTS, *DATES, True, False, 0, 1, 1.0, 2, 2.5, -3])
names = st.sampled_from(["a", "b", "c"])
metadatas = st.dictionaries(names, scalars | st.lists(scalars, max_size=3), max_size=3)
literals = st.sampled_from([*TEXTS, True, False, 0, 1, 1.5, 2, "2024-01-31T12:00:00+02:00"])
comparisons = st.builds(
    Comparison, names | st.just("document_id"), st.sampled_from(Op), literals | st.sampled_from(["d0", "d1"])
) | st.builds(Present, names)
filters = st.recursive(
    comparisons,
    lambda smaller: (
        st.builds(Not, smaller)
        | st.lists(smaller, min_size=2, max_size=3).map(all_of)
        | st.lists(smaller, min_size=2, max_size=3).map(any_of)
    ),
    max_leaves=6,
)


def passes(text: str, /, **metadata: object) -> bool:
    return matches(parse(text), "doc", metadata)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "tags = b",
        "tags:b",
        "NOT tags = x",
        "tags != x",
        "missing != 2020",
        "NOT missing:x",
        "year >= 2020 AND year < 2020.5",
        "ok = true",
        "on = 2024-01-31",
        'on < "2024-02-01"',
        "at = 2024-01-31T10:00:00Z",
        "at = 2024-01-31T12:00:00+02:00",
        "at > 2024-01-31",
        "text = 2024-01-31",
        "text < 2024-02",
        "document_id = doc",
        "tags:*",
    ],
)
def test_a_document_passes(text: str) -> None:
    assert passes(
        text,
        tags=["a", "b"],
        year=2020,
        ok=True,
        on=date(2024, 1, 31),
        at=datetime(2024, 1, 31, 10),
        text="2024-01-31",
    )


@pytest.mark.parametrize(
    "text",
    [
        "tags != a",
        "missing = 1",
        "missing:*",
        "empty:*",
        "year = 1",
        'year = "2020"',
        "ok = 1",
        "ok > false",
        "s = EN",
    ],
)
def test_a_document_does_not_pass(text: str) -> None:
    assert not passes(text, tags=["a", "b"], year=2020, ok=True, s="en", empty=[])


@given(st.lists(metadatas, max_size=12), filters, st.sets(st.integers(0, 11)))
def test_the_index_selects_what_the_definition_matches(
    rows: list[Metadata], node: Filter, deleted: set[int]
) -> None:
    index = MetadataIndex()
    index.apply([(key, f"d{key // 3}", metadata) for key, metadata in enumerate(rows)], [])
    index.apply([], sorted(deleted))
    expected = {
        key
        for key, metadata in enumerate(rows)
        if key not in deleted and matches(node, f"d{key // 3}", metadata)
    }
    assert set(index.select(node)) == expected


def test_no_filter_selects_every_live_key() -> None:
    index = MetadataIndex()
    index.apply([(1, "a", {}), (2, "b", {})], [1])
    assert set(index.select(None)) == {2}
    assert len(index) == 1


def test_what_a_caller_does_to_a_selection_does_not_reach_the_index() -> None:
    index = MetadataIndex()
    index.apply([(1, "a", {"x": 1}), (2, "b", {"x": 1})], [])
    for text in ("", "x = 1", "x:*", "NOT x = 2"):
        index.select(parse(text)).clear()
        assert set(index.select(parse(text))) == {1, 2}


def test_applying_a_batch_twice_changes_nothing() -> None:
    index = MetadataIndex()
    for _ in range(2):
        index.apply([(1, "a", {"x": [1, 1]}), (2, "a", {"x": 1})], [])
    assert set(index.select(parse("x = 1"))) == {1, 2}
    assert len(index) == 2


def test_equal_moments_of_two_time_zones_are_one_value() -> None:
    index = MetadataIndex()
    east = datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    index.apply([(1, "a", {"at": east}), (2, "b", {"at": date(2024, 1, 1)})], [])
    assert set(index.select(parse("at = 2024-01-01T00:00:00Z"))) == {1, 2}


class MetadataIndexUnderChange(RuleBasedStateMachine):
    """Batches of additions and deletions, so many that deleted keys are swept out in between."""

    def __init__(self) -> None:
        super().__init__()
        self.index = MetadataIndex()
        self.rows: dict[int, Metadata] = {}
        self.next_key = 0

    @rule(metadata=metadatas, copies=st.sampled_from([1, 2, 900]), deleted=st.sampled_from([0, 1, 2000]))
    def apply(self, metadata: Metadata, copies: int, deleted: int) -> None:
        added = [(key, f"d{key % 2}", metadata) for key in range(self.next_key, self.next_key + copies)]
        self.next_key += copies
        gone = list(self.rows)[:deleted]
        self.index.apply(added, gone)
        self.rows.update({key: metadata for key, _, _ in added})
        for key in gone:
            del self.rows[key]

    @rule(node=filters)
    def select(self, node: Filter) -> None:
        expected = [key for key, metadata in self.rows.items() if matches(node, f"d{key % 2}", metadata)]
        assert list(self.index.select(node)) == sorted(expected)

    @invariant()
    def counts_the_live_keys(self) -> None:
        assert len(self.index) == len(self.rows)


TestMetadataIndexUnderChange = MetadataIndexUnderChange.TestCase
TestMetadataIndexUnderChange.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)

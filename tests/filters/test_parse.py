"""Filter text: what it means, and how it is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexes.filters import (
    MAX_DEPTH,
    MAX_LENGTH,
    And,
    Comparison,
    Filter,
    Not,
    Op,
    Or,
    Present,
    all_of,
    any_of,
    parse,
)
from ragstone.errors import InvalidFilter

EN = Comparison("lang", Op.EQ, "en")
NEW = Comparison("year", Op.GE, 2020)
DRAFT = Comparison("tags", Op.HAS, "draft")

literals = (
    st.text(max_size=12)
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.dates().map(str)
)
names = st.text(max_size=8) | st.sampled_from(["year", "author.name", "AND", "NOT", "x-y"])
comparisons = st.builds(Comparison, names, st.sampled_from(Op), literals) | st.builds(Present, names)


def _larger(smaller: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(smaller, min_size=2, max_size=4)
    return st.builds(Not, smaller) | several.map(all_of) | several.map(any_of)


filters = st.recursive(comparisons, _larger, max_leaves=12)


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_blank_text_is_no_filter(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ('lang = "en"', EN),
        ("lang='en'", EN),
        ("lang = en", EN),
        ('lang = "en" AND year >= 2020 AND NOT tags:"draft"', And((EN, NEW, Not(DRAFT)))),
        ("lang = en year >= 2020 -tags:draft", And((EN, NEW, Not(DRAFT)))),
        ("lang = en OR year >= 2020 AND tags:draft", And((Or((EN, NEW)), DRAFT))),
        ("lang = en (year >= 2020 OR tags:draft)", And((EN, Or((NEW, DRAFT))))),
        ("NOT (lang = en AND year >= 2020)", Not(And((EN, NEW)))),
        ("(lang = en AND (year >= 2020 AND tags:draft))", And((EN, NEW, DRAFT))),
        ("tags:*", Present("tags")),
        ('tags:"*"', Comparison("tags", Op.HAS, "*")),
        ('"my key" != true', Comparison("my key", Op.NE, True)),
        ("a.b-c < -1.5e3", Comparison("a.b-c", Op.LT, -1500.0)),
        ("at > 2024-01-31T10:00:00.5+02:00", Comparison("at", Op.GT, "2024-01-31T10:00:00.5+02:00")),
        (r'q = "say \"hi\" \\ \n"', Comparison("q", Op.EQ, 'say "hi" \\ \n')),
        ("größe = 1", Comparison("größe", Op.EQ, 1)),
    ],
)
def test_text_means_this_tree(text: str, tree: Filter) -> None:
    assert parse(text) == tree


def test_a_number_with_a_point_is_a_float_and_one_without_is_an_int() -> None:
    assert [type(parse(text).value) for text in ("a = 1", "a = 1.0")] == [int, float]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("year", 5, 'after "year", found the end'),
        ("year >=", 8, "expected a value"),
        ("year = 1 AND", 13, "expected a field name"),
        ("AND year = 1", 1, "expected a field name"),
        ("(year = 1", 1, "never closed"),
        ("year = 1)", 9, 'no "(" opens'),
        ('lang = "en', 8, "never closed"),
        (r'lang = "\x"', 10, "after a backslash"),
        ("year == 1", 6, "write ="),
        ("a = 1 and b = 2", 7, "write AND"),
        ("a = 1 || b = 2", 7, "write OR"),
        ("!a = 1", 1, "write NOT"),
        ("lang = (en OR de)", 8, "a value is no group"),
        ("lang = e*", 8, "wildcards"),
        ("tags = *", 8, 'written "tags:*"'),
        ("at < 2024-02-31", 6, "no date of the calendar"),
        ("n = 9223372036854775808", 5, "64 bits"),
        ("n = 1e999", 5, "doubles"),
        ("n = " + "9" * 8000, 5, "64 bits"),
        ("2020 = year", 1, 'expected a field name, such as year in "year >= 2020", found "2020"'),
    ],
)
def test_an_error_names_the_column_and_what_would_be_right(text: str, column: int, says: str) -> None:
    with pytest.raises(InvalidFilter) as refused:
        parse(text)
    assert refused.value.column == column
    assert says in refused.value.message
    assert [violation.field for violation in refused.value.violations] == ["filter"]


def test_parentheses_nest_to_the_limit_and_no_deeper() -> None:
    assert parse("(" * MAX_DEPTH + "a = 1" + ")" * MAX_DEPTH) == Comparison("a", Op.EQ, 1)
    with pytest.raises(InvalidFilter, match="deeper than 64"):
        parse("(" * (MAX_DEPTH + 1) + "a = 1" + ")" * (MAX_DEPTH + 1))


def test_a_filter_is_read_to_the_length_limit_and_no_further() -> None:
    assert parse("a = 1".ljust(MAX_LENGTH)) is not None
    with pytest.raises(InvalidFilter, match="8193 characters"):
        parse("a = 1".ljust(MAX_LENGTH + 1))


@given(filters)
@example(Comparison("a", Op.EQ, 1e16))
def test_canonical_text_parses_to_the_same_tree(tree: Filter) -> None:
    text = str(tree)
    assert parse(text) == tree
    assert str(parse(text)) == text  # 1, 1.0 and True are equal trees, but not equal texts


def column_of_refusal(text: str) -> int | None:
    try:
        parse(text)
    except InvalidFilter as refused:
        return refused.column
    return None


@given(st.text(st.sampled_from("ab1 \"'\\()=<>!:*-.,ANDORT\n2024-01"), max_size=60))
def test_any_text_parses_or_is_refused_within_it(text: str) -> None:
    assert column_of_refusal(text) in (None, *range(1, len(text) + 2))

"""Citations in a stream: marks in any pieces, what they mean, and what they rest on."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from generator.base import Delta, Passage, Quote
from generator.citations import CitationParser
from generator.overlap import supported

PASSAGES = (
    Passage(chunk_id="a#0", document_id="a", text="Bees store honey. The lamp is lit at dusk. Whales sing."),
    Passage(chunk_id="b#0", document_id="b", text="The keeper notes the hour in the book."),
    Passage(chunk_id="c#0", document_id="c", text="灯台は夜に船を導く。蜂は蜜を集める。"),
)
MARKS = {1: 1, 2: 0, 3: 2}
"""The model's [1] is the second hit."""


def read(*pieces: str) -> tuple[str, list[Quote], CitationParser]:
    parser = CitationParser(PASSAGES, MARKS)
    items = [item for piece in pieces for item in parser.feed(piece)] + parser.finish()
    text = "".join(item.text for item in items if isinstance(item, Delta))
    return text, [item for item in items if isinstance(item, Quote)], parser


def quoted(quote: Quote) -> str:
    return PASSAGES[quote.passage].text[quote.start : quote.end]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("It is lit [2].", "It is lit [1]."),
        ("It is lit. [2]", "It is lit. [1]"),
        ("It is lit [1][2].", "It is lit [2][1]."),
        ("It is lit [1, 2].", "It is lit [2][1]."),
        ("It is lit [ 2 ; 1 ].", "It is lit [1][2]."),
        ("It is lit【2】.", "It is lit[1]."),
        ("It is lit[2].", "It is lit[1]."),
        ("It is lit [2, 77].", "It is lit [1]."),
        ("It is lit [77].", "It is lit."),
        ("It is lit [2][2].", "It is lit [1][1]."),
        ("It is lit ［2］.", "It is lit [1]."),
        ("It is lit [77] [2].", "It is lit [1]."),
        ("It is lit[77].", "It is lit."),
        ("It is lit [0].", "It is lit."),
        ("It is lit.\n\n[77] More.", "It is lit.\n\n More."),
        ("[see [2]]", "[see [1]]"),
        ("The `lamp` is lit [2].", "The `lamp` is lit [1]."),
        ("```lamp``` is lit [2].", "```lamp``` is lit [1]."),
        ("```\nlamp\n```\nIt is lit [2].", "```\nlamp\n```\nIt is lit [1]."),
        ("A ` is a tick.\nIt is lit [2].", "A ` is a tick.\nIt is lit [1]."),
    ],
)
def test_marks_become_the_places_of_hits(written: str, shown: str) -> None:
    assert read(written)[0] == shown


@pytest.mark.parametrize(
    "text",
    [
        "x[77] = y[i]",
        "[note] and [12:30]",
        "in [2019] and [1234]",
        "a [b] c",
        "[",
        "]",
        "[]",
        "[1",
        "1]",
        "a[1] and my_list[2][1]",
        "[1-3]",
        "[1893, 1894]",
        "`a [2]` or ``b ` [1]``",
        "- [ ] to do",
        "[1,]",
        "[1】",
        "```python\nx = [1]\ny = [2, 3]\n```\n",
        "[1 [2]]",
        "[" + "1," * 99 + "1]",
    ],
)
def test_what_is_no_mark_stays(text: str) -> None:
    assert read(text)[0] == text


def test_marks_that_point_nowhere_are_counted() -> None:
    assert read("A [9], b [8, 1].")[2].removed_marks == 2


def test_a_quote_is_the_sentence_before_the_mark_and_its_like_in_the_passage() -> None:
    text, [quote], _ = read("Nothing else. The lamp is lit at dusk [2]. More.")
    assert text[quote.answer_start : quote.answer_end] == "The lamp is lit at dusk"
    assert quoted(quote) == "The lamp is lit at dusk."


def test_a_mark_behind_the_full_stop_means_the_sentence_before_it() -> None:
    text, [quote], _ = read("The lamp is lit at dusk. [2] More.")
    assert text[quote.answer_start : quote.answer_end] == "The lamp is lit at dusk."


def test_a_passage_without_a_like_sentence_is_quoted_whole() -> None:
    _, [quote], _ = read("Zebras graze [1].")
    assert quoted(quote) == PASSAGES[1].text


def test_text_without_spaces_between_words_finds_its_sentence() -> None:
    _, [quote], _ = read("灯台は船を導きます[3]。")
    assert quoted(quote) == "灯台は夜に船を導く。"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("It is lit at dusk [2], and hours are noted [1].",
         [("It is lit at dusk", "The lamp is lit at dusk."),
          ("It is lit at dusk [1], and hours are noted", PASSAGES[1].text)]),
        ("The lamp is lit. [2] The hour is noted. [1]",
         [("The lamp is lit.", "The lamp is lit at dusk."), ("The hour is noted.", PASSAGES[1].text)]),
        ("灯台は船を導く。[3]蜂は蜜を[3]",
         [("灯台は船を導く。", "灯台は夜に船を導く。"), ("蜂は蜜を", "蜂は蜜を集める。")]),
        ("[2] The lamp", [("[1]", PASSAGES[0].text)]),
        ("Sources:\n[2][1]", [("[1]", PASSAGES[0].text), ("[2]", PASSAGES[1].text)]),
    ],
)  # fmt: skip
def test_a_quote_is_of_the_sentence_so_far_without_marks_around_it(
    answer: str, found: list[tuple[str, str]]
) -> None:
    text, quotes, _ = read(answer)
    assert [(text[q.answer_start : q.answer_end], quoted(q)) for q in quotes] == found


def test_a_quote_comes_right_behind_its_mark() -> None:
    parser = CitationParser(PASSAGES, MARKS)
    items = [*parser.feed("It is lit [2][1] late."), *parser.finish()]
    shown = [item.text if isinstance(item, Delta) else item.passage for item in items]
    assert shown == ["It is lit ", "[1]", 0, "[2]", 1, " late."]


def test_only_what_was_sent_of_a_passage_is_quoted() -> None:
    parser = CitationParser(PASSAGES, {1: 0}, kept={0: len("Bees store honey.")})
    [quote] = [item for item in parser.feed("The lamp is lit at dusk [1]") if isinstance(item, Quote)]
    assert quoted(quote) == "Bees store honey."


def test_a_passage_without_text_cannot_be_cited() -> None:
    parser = CitationParser([Passage(chunk_id="a#0", document_id="a", text=" ")], {1: 0})
    assert parser.feed("It is lit [1].") == [Delta(text="It is lit.")]
    assert parser.removed_marks == 1


def test_text_comes_as_soon_as_it_can_be_no_mark() -> None:
    parser = CitationParser(PASSAGES, MARKS)
    assert parser.feed("The lamp") == [Delta(text="The lamp")]
    assert parser.feed(" [no") == [Delta(text=" [no")]
    assert parser.feed(" [1") == []


ANSWERS = st.lists(
    st.sampled_from(
        [
            "The lamp is lit",
            ". ",
            " ",
            "[1]",
            "[2]",
            "[1, 3]",
            "[99]",
            "【3】",
            "[",
            "]",
            "x[2]",
            "\n",
            "12",
            ",",
            "`",
            "```",
            "\n\n",
            " " * 20,
            "1, " * 20,
            "[1 [77]]",
            "蜂。",
        ]
    )
    | st.text(max_size=8),
    max_size=20,
).map("".join)


@example("It is lit" + " " * 30 + "[99].", [9, 30])
@example("It is lit [" + "1, " * 40 + "1].", list(range(200)))
@given(ANSWERS, st.lists(st.integers(0, 200), max_size=10))
def test_it_does_not_matter_in_which_pieces_a_text_comes(text: str, cuts: list[int]) -> None:
    borders = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    whole, parts = read(text), read(*(text[a:b] for a, b in pairwise(borders)))
    assert parts[0] == whole[0]
    assert parts[1] == whole[1]
    assert parts[2].removed_marks == whole[2].removed_marks


@given(ANSWERS)
def test_every_quote_lies_within_what_it_is_of(text: str) -> None:
    shown, quotes, _ = read(text)
    for quote in quotes:
        assert 0 <= quote.start < quote.end <= len(PASSAGES[quote.passage].text)
        assert 0 <= quote.answer_start < quote.answer_end <= len(shown)


@given(ANSWERS)
def test_all_but_marks_comes_through(text: str) -> None:
    other = re.compile(r"[\s\[\]【】［］\d,;]")
    assert other.sub("", read(text)[0]) == other.sub("", text)


@given(ANSWERS)
def test_no_more_is_held_back_than_a_mark_and_its_space(text: str) -> None:
    parser, held = CitationParser([], {}), 0
    for character in re.sub("[]】］]", "", text):
        held += 1 - sum(len(item.text) for item in parser.feed(character) if isinstance(item, Delta))
        assert held <= 65


@given(st.text(alphabet=st.characters(exclude_characters="[【［")))
def test_text_without_brackets_comes_through_unchanged(text: str) -> None:
    assert read(text)[0] == text


@pytest.mark.parametrize(
    ("sentence", "passage", "least", "most"),
    [
        ("The lamp is lit at dusk [1].", PASSAGES[0].text, 1.0, 1.0),
        ("Lamps were lighted at dusk.", PASSAGES[0].text, 0.2, 0.5),
        ("Zebras graze on mountains.", PASSAGES[0].text, 0.0, 0.0),
        ("", PASSAGES[0].text, 0.0, 0.0),
        ("It froze in 1893.", "The harbour froze in 1893.", 1.0, 1.0),
        ("It froze in 1894.", "The harbour froze in 1893.", 0.5, 0.5),
    ],
)
def test_support_is_the_share_of_words_that_the_passage_has(
    sentence: str, passage: str, least: float, most: float
) -> None:
    assert least <= supported(sentence, [passage]) <= most

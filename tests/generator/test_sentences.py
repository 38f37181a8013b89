"""Where sentences begin and end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.sentences import sentences


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It froze. It thawed! Did it? Yes.", ["It froze.", "It thawed!", "Did it?", "Yes."]),
        ("Dr. Berg met J. R. Holm. They left.", ["Dr. Berg met J. R. Holm.", "They left."]),
        ("It is 3.5 m deep. Ships pass.", ["It is 3.5 m deep.", "Ships pass."]),
        ("The U.S. fleet came. It stayed.", ["The U.S. fleet came.", "It stayed."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("灯台は海岸に立つ。船を導く！", ["灯台は海岸に立つ。", "船を導く！"]),
        ("यह पुल है। वह नदी है।", ["यह पुल है।", "वह नदी है।"]),
        ("هل وصلت السفينة؟ نعم.", ["هل وصلت السفينة؟", "نعم."]),
        ("สะพานอยู่ที่นี่ แม่น้ำอยู่ที่นั่น", ["สะพานอยู่ที่นี่", "แม่น้ำอยู่ที่นั่น"]),
        ("A heading\n\nIts text.", ["A heading", "Its text."]),
        ("One line\nand its rest.", ["One line\nand its rest."]),
        ("  spaces around.  ", ["spaces around."]),
        ("Cited.[3] More.", ["Cited.[3]", "More."]),
        (" \n ", []),
    ],
)
def test_sentences_are_split_as_a_reader_would(text: str, parts: list[str]) -> None:
    assert split(text) == parts


@given(st.text(alphabet=st.sampled_from("aB. !?。\n\"'1)ก।é"), max_size=60))
def test_nothing_but_white_space_is_lost(text: str) -> None:
    assert "".join("".join(split(text)).split()) == "".join(text.split())


@given(st.text(max_size=80))
def test_spans_are_in_order_and_apart(text: str) -> None:
    edges = [edge for span in sentences(text) for edge in span]
    assert edges == sorted(edges)

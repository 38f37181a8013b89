"""Questions that lean on a conversation."""

import pytest

from ragstone.answers import Role, Turn
from retrieval.query.conversation import standalone

FERRIES = (
    Turn(role=Role.USER, text="When do ferries run to Lindholm?"),
    Turn(role=Role.ASSISTANT, text="Every two hours. [1]"),
)


def test_a_question_without_a_conversation_is_searched_as_it_is() -> None:
    assert standalone("and in winter?", ()) == "and in winter?"


def test_a_short_question_is_searched_behind_the_one_before_it() -> None:
    assert standalone("and in winter?", FERRIES) == "When do ferries run to Lindholm? and in winter?"


@pytest.mark.parametrize(
    "question",
    [
        "Which harbours of the northern coast freeze in January or February?",
        "Welche Häfen an der nördlichen Küste frieren im Januar oder Februar zu?",
    ],
)
def test_a_long_question_stands_alone(question: str) -> None:
    assert standalone(question, FERRIES) == question


def test_what_the_assistant_said_is_not_searched_for() -> None:
    assert standalone("why?", FERRIES[1:]) == "why?"

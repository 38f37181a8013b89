"""Questions that lean on a conversation, made to stand alone for the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import regex

from ragstone.answers import Role, Turn

_SHORT_WORDS: Final = 8
"""A question of more words has enough of its own to be searched by."""
_WORD: Final = regex.compile(r"\p{L}[\p{L}\p{M}\p{N}'’-]*|\p{N}+")


def standalone(question: str, history: Sequence[Turn]) -> str:
    """What to search for: a short question behind the last one of the user's, any other as it is.

    A rule for any language: "and in winter?" finds nothing, "When do ferries run? and in winter?" does.
    """
    asked = [turn.text for turn in history if turn.role is Role.USER]
    if not asked or len(_WORD.findall(question)) > _SHORT_WORDS:
        return question
    return f"{asked[-1]} {question}"

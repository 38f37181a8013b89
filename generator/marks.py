"""What a citation looks like in an answer: ``[1]``, ``[1, 2]``, ``[1; 2]``, ``【1】``, ``［1］``.

A mark has numbers of one to three digits. ``[2019]`` is a year: so many passages are never sent. Neither
``[note]`` nor ``[12:30]`` is a mark, nor is a bracket that indexes something: directly behind a single small
letter (``a[1]``) or an identifier with an underscore (``my_list[1]``). A bracket inside an unclosed one that
could have become a mark is none either (``[1[2]]``), so that taking a mark out never makes another one.
"""

from __future__ import annotations

import re
from typing import Final

PAIRS: Final = {"[": "]", "【": "】", "［": "］"}
MAX_CHARS: Final = 64
"""No mark is longer."""
MARK: Final = re.compile(r"[\[【［] ?\d{1,3}(?: ?[,;] ?\d{1,3})* ?[\]】］]")
_NUMBER: Final = re.compile(r"\d+")
_BEGINNING: Final = r"[\[【［] ?(?:\d{1,3} ?[,;] ?)*(?:\d{1,3} ?)?"
_BEGUN: Final = re.compile(_BEGINNING)
_INDEXED: Final = re.compile(r"(?:(?<!\w)[a-z]|\w*_\w*)(?:\[\d*\])*\Z", re.ASCII)
_UNCLOSED: Final = re.compile(rf"{_BEGINNING}\Z")


def is_indexed(before: str) -> bool:
    """Whether a bracket behind ``before``, of which the last ``MAX_CHARS`` characters matter, is an index."""
    return _INDEXED.search(before[-MAX_CHARS:]) is not None


def may_begin(before: str) -> bool:
    """Whether a mark may stand behind ``before``, of which the last ``MAX_CHARS`` characters matter."""
    return not is_indexed(before) and _UNCLOSED.search(before[-MAX_CHARS:]) is None


def may_become(beginning: str) -> bool:
    """Whether more text can make a mark of ``beginning``."""
    return len(beginning) < MAX_CHARS and _BEGUN.fullmatch(beginning) is not None


def numbers(bracket: str) -> tuple[int, ...]:
    """The numbers of a mark, each once, in order; none where ``bracket`` is no mark."""
    if len(bracket) > MAX_CHARS or not MARK.fullmatch(bracket) or PAIRS[bracket[0]] != bracket[-1]:
        return ()
    return tuple(dict.fromkeys(map(int, _NUMBER.findall(bracket))))

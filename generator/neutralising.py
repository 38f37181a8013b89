"""Makes text harmless for a prompt: what could pass for the prompt's own structure becomes a look-alike.

Every change replaces one character by one other, so offsets into the text stay true:

- ``<`` that opens something like a tag (``<s>``, ``</passage>``, ``<|im_start|>``, ``<<SYS>>``) becomes
  ``‹``;
- ``[`` and ``]`` of what looks like a citation (``[3]``) become ``⁅`` and ``⁆``, and so does the ``[`` of
  control words (``[INST]``, ``[TOOL_CALLS]``);
- ``#`` before a role at the beginning of a line (``### System``) becomes ``♯``;
- ``:`` behind a role at the beginning of a line (``Assistant:``) becomes ``꞉``;
- the first backtick or tilde of a code fence becomes ``ˋ``;
- characters that carry hidden text or reverse it (tags, variation selectors, bidirectional overrides)
  become the word joiner, which shows as nothing; control characters become spaces, other line ends
  ``\\n``, halves of surrogate pairs the replacement character.

What is looked for is found behind compatibility forms (``＜``), zero-width characters and Cyrillic or Greek
look-alikes, too (after Unicode Technical Standard 39, with a small table). What a passage *says* is left as
it is: that its orders are not followed is a matter of the instructions, and of the model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

from generator.marks import MARK, MAX_CHARS, PAIRS, is_indexed

_JOINER: Final = "\u2060"


def _characters(*ranges: tuple[int, int]) -> Iterator[str]:
    for first, last in ranges:
        yield from map(chr, range(first, last + 1))


_CARRIERS: Final = frozenset(
    _characters((0x202A, 0x202E), (0x2061, 0x206F), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0xE0000, 0xE01EF))
)
_LINE_ENDS: Final = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_CLEAN: Final = {
    **{ord(c): " " for c in _characters((0x00, 0x1F), (0x7F, 0x9F)) if c not in "\t\n"},
    **{ord(c): _JOINER for c in _CARRIERS},
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
    **{ord(c): "\n" for c in _LINE_ENDS},
}
# Joiners, soft hyphens and the like belong into many texts and stay; they only hide nothing.
_INVISIBLE: Final = frozenset("\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2060").union(
    _characters((0x180B, 0x180F), (0x200B, 0x200F), (0xFE00, 0xFE0F))
)
_HIDDEN: Final = re.compile(f"[{''.join(sorted(_INVISIBLE))}]")
_LETTERS: Final = str.maketrans(
    "аеорсухіѕјһԁԛԝкмтАВЕКМНОРСТУХІЅЈοαρυιντΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxisjhdqwkmtABEKMHOPCTYXISJoapuivtABEZHIKMNOPTYX",
)
_FORMS: Final = ((0xA0, 0xFF), (0x2000, 0x206F), (0xFE10, 0xFE6F), (0xFF01, 0xFF5E), (0x1D400, 0x1D7FF))
_COMPATIBLE: Final = {
    ord(c): folded
    for c in _characters(*_FORMS)
    if len(folded := unicodedata.normalize("NFKC", c)) == 1 and folded != c
}
_FOLD: Final[dict[int, str | int]] = {**_COMPATIBLE, **_LETTERS}
# Whether a text has any of them is asked of its set of characters: that is much faster than to translate.
_UNCLEAN: Final = frozenset(map(chr, _CLEAN))
_FOLDABLE: Final = frozenset(map(chr, _FOLD))

_ROLES: Final = (
    r"system|developer|user|assistant|human|ai|bot|tool|instructions?|question|answer|passages?|turn"
)
_TAG: Final = re.compile(
    # Any name in angle brackets: each family of models has its own, and tokenisers find them in plain text.
    r"(?P<x><)(?:(?=[^\s>]{1,64}>|[/!?a-z]|[ \t]{0,4}\|)"
    # Behind white space only what the prompt and the conversations of models use: ``a < b`` stays.
    rf"|(?=\s{{0,4}}/?\s{{0,4}}(?:{_ROLES}|functions?|tools|documents?|context|history|thinking|think)\b))",
    re.IGNORECASE,
)
_CONTROL_WORD: Final = re.compile(
    rf"(?P<x>\[)(?=\s{{0,4}}/?\s{{0,4}}(?:[A-Z][A-Z_]{{1,31}}|(?i:inst|sys|[gs]mask|{_ROLES}))\s{{0,4}}\])"
)
_LEAD: Final = r"^(?:[^\w\n]|_){0,16}?"
"""What may stand before a line's first word: indents, bullets, quote marks, emphasis, comment signs."""
_NUMBERED_LINE: Final = re.compile(rf"{_LEAD}(?P<x>[\[【])(?= ?\d)", re.MULTILINE)
_HEADING: Final = re.compile(
    rf"{_LEAD}(?P<x>#(?:[^\w\n]|_){{0,15}}?)(?=(?:{_ROLES})\b)", re.MULTILINE | re.IGNORECASE
)
_PREFIX: Final = re.compile(
    rf"{_LEAD}(?:{_ROLES})(?:[ \t]{{1,4}}(?:prompt|message|note|override))?(?:[^\w\n:]|_){{0,8}}"
    # Those that follow, too: they would stand behind the role once the first one is no colon.
    r"(?P<x>:(?:[^\w\n]|_){0,8})",
    re.MULTILINE | re.IGNORECASE,
)
_FENCE: Final = re.compile(r"^[ \t]*(?P<x>[`~])(?=``|~~)", re.MULTILINE)
_RULES: Final = (
    (_TAG, "<", "‹"),
    (_CONTROL_WORD, "[", "⁅"),
    (_NUMBERED_LINE, "[【", "⁅"),
    (_HEADING, "#", "♯"),
    (_PREFIX, ":", "꞉"),
    (_FENCE, "`~", "ˋ"),
)
"""What to find, the characters without which it is not there, and what those of its ``x`` shall become."""
_NEEDED: Final = re.compile(
    f"[{re.escape(''.join({*PAIRS, *(character for _, needed, _ in _RULES for character in needed)}))}]"
)
"""Most text has few of them, and one look for all takes a fraction of what the patterns take."""
_IN_ATTRIBUTE: Final = str.maketrans('<>"\n\t', "‹›”  ")


def neutral(text: str) -> str:
    """``text``, of the same length, without what could end its quotation or pass for another's words."""
    clean = text if _UNCLEAN.isdisjoint(set(text)) else text.replace("\r\n", " \n").translate(_CLEAN)
    view, places = _view(clean)
    changes: dict[int, str] = {}
    for at, new in _changes(view):
        changes.setdefault(places[at], new)
    if not changes:
        return clean
    characters = list(clean)
    for at, new in changes.items():
        characters[at] = new
    return "".join(characters)


def neutral_attribute(text: str) -> str:
    """``text`` for one line between double quotes."""
    return neutral(text).translate(_IN_ATTRIBUTE)


def _view(text: str) -> tuple[str, Sequence[int]]:
    """``text`` as it looks, in plain characters, and where each of them stands in ``text``."""
    if text.isascii():
        return text, range(len(text))
    folded = text if _FOLDABLE.isdisjoint(set(text)) else text.translate(_FOLD)
    if _INVISIBLE.isdisjoint(set(folded)):
        return folded, range(len(text))
    places: list[int] = []
    begin = 0
    for hidden in _HIDDEN.finditer(folded):
        places.extend(range(begin, hidden.start()))
        begin = hidden.end()
    places.extend(range(begin, len(text)))
    return _HIDDEN.sub("", folded), places


def _changes(view: str) -> Iterator[tuple[int, str]]:
    """Offsets into ``view`` and the characters that shall stand there."""
    there = frozenset(_NEEDED.findall(view))
    for pattern, needed, new in _RULES:
        if there.isdisjoint(needed):
            continue
        for match in pattern.finditer(view):
            for at in range(*match.span("x")):
                if view[at] in needed:
                    yield at, new
    if there.isdisjoint(PAIRS):
        return
    for match in MARK.finditer(view):
        if not is_indexed(view[max(0, match.start() - MAX_CHARS) : match.start()]):
            yield match.start(), "⁅"
            yield match.end() - 1, "⁆"

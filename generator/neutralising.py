"""Text of others, made unable to pass for a part of the prompt.

Every replacement is one character for one, so offsets into the text stay what they were. What is replaced is
what a template, a chat format or a citation is made of; other text, code and formulas, stays as it is.
"""

from __future__ import annotations

from typing import Final

import regex

_HIDDEN: Final = regex.compile(
    r"[\p{Cc}\p{Zl}\p{Zp}\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff--\n\t]", regex.V1
)
"""Controls, and marks that hide or turn text; joiners stay, which some scripts are written with."""
_TAG: Final = regex.compile(r"<(?=\s*[/|!?\p{L}<\uff5c])")
"""``<passage``, ``</turn``, ``<|system|>``, ``<s>``, ``<<SYS>>``; but not ``a < 3``."""
_TAG_END: Final = regex.compile(r"(?<=[|\uff5c]\s*)>")
_BRACKET: Final = regex.compile(r"[\[\u3010](?=\s*(?:\d{1,3}\s*[,;\]\u3011]|/?\s*\p{Lu}{3,}[\p{Lu}_ ]*\]))")
"""``[1]``, which would be a citation; ``[INST]``, ``[/SYSTEM]``."""
_ROLE: Final = regex.compile(
    r"(?im)^([\s>*_\"']*(?:system|assistant|user|human|developer|tool|ai|instructions?|question|answer)[\s*_]*):"
)
_HEADING: Final = regex.compile(
    r"(?im)^(\s*)#(?=#*\s*(?:system|assistant|user|human|instruction|response|question))"
)
_FENCE: Final = regex.compile(r"(?m)^(\s*)[`~](?=(?:``|~~))")


_IN_ATTRIBUTE: Final = str.maketrans('<>"\n', "\u2039\u203a\u201d ")


def neutral(text: str) -> str:
    """``text``, of the same length, without what could end its quotation or pass for another's words."""
    text = _HIDDEN.sub(" ", text)
    text = _TAG.sub("\u2039", text)
    text = _TAG_END.sub("\u203a", text)
    text = _BRACKET.sub("\uff3b", text)
    text = _ROLE.sub("\\1\uff1a", text)
    text = _HEADING.sub("\\1\uff03", text)
    return _FENCE.sub("\\1\u02cb", text)


def neutral_attribute(text: str) -> str:
    """``text`` for one line between double quotes."""
    return neutral(text).translate(_IN_ATTRIBUTE)

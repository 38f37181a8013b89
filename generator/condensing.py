"""A question that leans on a conversation, made to stand alone by a model: what is asked, what is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Template

from generator.base import Limits, Prompt
from generator.neutralising import neutral
from generator.prompt import ENVIRONMENT, Message
from ragstone.answers import Turn

LIMITS: Final = Limits(max_tokens=128)
_TURNS: Final = 6
"""What a question refers to was said lately."""
_CHARS: Final = 1_000
"""Of each turn, its beginning."""
_LONGEST: Final = 300
"""Characters of a question: a good half of what ``LIMITS`` lets a model write."""
_THOUGHTS: Final = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_QUOTES: Final = "\"'“”„‘’«» "


def condensing_messages(prompt: Prompt) -> Sequence[Message]:
    """What a model is asked about the question of ``prompt`` and its ``history``; passages play no part."""
    history = [Turn(role=turn.role, text=neutral(turn.text[:_CHARS])) for turn in prompt.history[-_TURNS:]]
    return (
        Message(role="system", content=_block("system")),
        Message(role="user", content=_block("closing", history=history, question=neutral(prompt.question))),
    )


def may_be_condensed(question: str) -> bool:
    """Whether a model could write it anew on one line, within ``LIMITS``; a longer one says enough itself."""
    return len(question) <= _LONGEST and len(question.splitlines()) == 1


def condensed(answer: str) -> str:
    """The question in what a model wrote; empty where there is none.

    That is the first line that says something, behind what a model thinks aloud and what announces it.
    """
    said = _THOUGHTS.sub("", answer)
    lines = (line.strip(_QUOTES) for line in said.splitlines())
    return next((line for line in lines if any(map(str.isalnum, line)) and not line.endswith(":")), "")


def _block(name: str, **values: Any) -> str:
    template = _template()
    return "".join(template.blocks[name](template.new_context(values)))


@cache
def _template() -> Template:
    source = files("generator").joinpath("templates/condense.jinja").read_text(encoding="utf-8")
    return ENVIRONMENT.from_string(source)

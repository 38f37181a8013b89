"""A question that leans on a conversation, made to stand alone by a model: what is asked, what is taken."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from generator.base import Limits, Prompt
from generator.neutralising import neutral
from generator.prompt import Message
from ragstone.answers import Turn

LIMITS: Final = Limits(max_tokens=128)
_TURNS: Final = 6
"""What a question refers to was said lately."""
_CHARS: Final = 1_000
"""Of each turn, its beginning."""
_QUOTES: Final = "\"'“”„‘’«» "


def condensing_messages(prompt: Prompt) -> Sequence[Message]:
    """What a model is asked about the question of ``prompt`` and its ``history``; passages play no part."""
    history = [Turn(role=turn.role, text=neutral(turn.text[:_CHARS])) for turn in prompt.history[-_TURNS:]]
    template = _template()
    system, closing = (
        "".join(template.blocks[block](template.new_context(values)))
        for block, values in (
            ("system", {}),
            ("closing", {"history": history, "question": neutral(prompt.question)}),
        )
    )
    return Message(role="system", content=system), Message(role="user", content=closing)


def condensed(answer: str) -> str:
    """The question in what a model wrote: its first line that says something; empty where there is none."""
    lines = (line.strip(_QUOTES) for line in answer.splitlines())
    return next((line for line in lines if any(char.isalnum() for char in line)), "")


@cache
def _template() -> Template:
    source = files("generator").joinpath("templates/condense.jinja").read_text(encoding="utf-8")
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False).from_string(source)

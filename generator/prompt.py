"""The prompt: instructions, passages, conversation, question, within a budget of the model's own tokens.

What is the same for all requests comes first, then the passages, then the conversation, which only grows at
its end, and the question: so a prefix cache can reuse as much as there is in common. Text of others, that of
passages above all, is made neutral (``neutralising``), and is data to the template, never a template.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Literal

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from generator.base import Passage, Prompt
from generator.duplicates import distinct
from generator.neutralising import neutral, neutral_attribute
from generator.sentences import sentences
from ragstone.answers import Turn
from ragstone.errors import Internal, InvalidArgument

Count = Callable[[Sequence[str]], Awaitable[Sequence[int]]]
"""The tokens of each text, in the model's own."""
Order = Callable[[Sequence[int]], Sequence[int]]
"""Passages, best first, to the order in which they shall stand."""

REFUSAL: Final = "The passages do not answer this."
"""What a model is asked to write when there is no answer."""
ENVIRONMENT: Final = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
"""Of all templates of prompts, which are no HTML."""
_BLOCKS: Final = ("system", "passage", "closing")
_SLACK_TOKENS: Final = 3
"""A block's line break, and one more digit of its number than when it was counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One of a chat."""

    role: Literal["system", "user"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A prompt as it is sent."""

    messages: Sequence[Message]
    sent: Sequence[int]
    """The passages in it, in the order in which they stand: indexes into the prompt's. First is ``[1]``."""
    kept: Mapping[int, int]
    """How many characters of each of them."""
    dropped: Sequence[int]
    """Those that repeat a better one, and those that did not fit."""
    template: str
    """The template's digest."""


class PromptBuilder:
    """Builds prompts by one template: a Jinja file with the blocks ``system``, ``passage`` and ``closing``.

    ``passage`` is given ``number``, ``title`` and ``text``; ``closing`` is given ``question`` and
    ``history``; ``system`` is given ``refusal``. Raises InvalidArgument for a template that does not parse,
    lacks a block, or leaves out a passage or the question.
    """

    def __init__(self, source: str | None = None) -> None:
        own = files("generator").joinpath("templates/answer.jinja").read_text(encoding="utf-8")
        source = own if source is None else source
        self._template = _parse(source)
        self._digest = hashlib.sha256(source.encode()).hexdigest()[:16]
        self._system = self._block("system", refusal=REFUSAL)
        self._check()

    async def build(
        self, prompt: Prompt, *, budget_tokens: int, count: Count, order: Order = lambda chosen: chosen
    ) -> Rendered:
        """A prompt of ``budget_tokens`` at most: the best passages that fit, the last one cut if need be.

        A passage of which no sentence fits is left out for the next that fits whole. ``count`` is asked
        twice at most, and not at all where everything fits by its bytes. Raises InvalidArgument for a
        question that leaves no room.
        """
        closing = self._closing(prompt)
        unique = _without_repeats(prompt.passages)
        texts = {index: neutral(prompt.passages[index].text) for index in unique}
        blocks = {
            (n, i): self._passage(n, prompt.passages[i], texts[i]) for n, i in enumerate(unique, start=1)
        }
        fixed, *sizes = await _sizes(count, [self._system, closing], [*blocks.values()], budget_tokens)
        left = budget_tokens - fixed
        if left <= 0:
            raise InvalidArgument.at(
                "query.text",
                f"question and conversation have {fixed} tokens; {budget_tokens} are left for a prompt",
            )
        kept: dict[int, int] = {}
        tried = False
        for index, size in zip(unique, sizes, strict=True):
            if size <= left:
                kept[index] = len(texts[index])
                left -= size
            elif not tried:
                tried = True
                kept |= await self._cut(index, prompt.passages[index], texts[index], left, count)
                if index in kept:
                    break
        if unique and not kept:
            raise InvalidArgument.at(
                "query.text",
                f"question and conversation leave {left} of {budget_tokens} tokens: no passage fits",
            )
        sent = list(order(list(kept)))
        if sorted(sent) != sorted(kept):
            raise Internal(f"passages {list(kept)} were put into the order {sent}")
        shown = [
            blocks[number, index]
            if (number, index) in blocks and kept[index] == len(texts[index])
            else self._passage(number, prompt.passages[index], texts[index][: kept[index]])
            for number, index in enumerate(sent, start=1)
        ]
        return Rendered(
            messages=(
                Message(role="system", content=self._system),
                Message(role="user", content="\n".join([*shown, closing])),
            ),
            sent=sent,
            kept=kept,
            dropped=[index for index in range(len(prompt.passages)) if index not in kept],
            template=self._digest,
        )

    async def _cut(self, index: int, passage: Passage, text: str, left: int, count: Count) -> dict[int, int]:
        """As many whole sentences as fit, at least one; nothing where none does."""
        spans = list(sentences(text))
        # Each with what stands before it, so that they add up to the whole.
        begins = [0, *(span.end for span in spans[:-1])]
        pieces = [text[begin : span.end] for begin, span in zip(begins, spans, strict=True)]
        frame, *lengths = await count([self._passage(100, passage, ""), *pieces])
        used, end = frame + _SLACK_TOKENS, 0
        for span, length in zip(spans, lengths, strict=True):
            # A piece alone may be a token longer than as a part of the whole.
            used += length + 1
            if used > left:
                break
            end = span.end
        return {index: end} if end else {}

    def _closing(self, prompt: Prompt) -> str:
        history = [Turn(role=turn.role, text=neutral(turn.text)) for turn in prompt.history]
        return self._block("closing", question=neutral(prompt.question), history=history)

    def _passage(self, number: int, passage: Passage, text: str) -> str:
        return self._block("passage", number=number, title=neutral_attribute(passage.title), text=text)

    def _block(self, name: str, **values: Any) -> str:
        try:
            context = self._template.new_context(values)
            return "".join(self._template.blocks[name](context))
        except TemplateError as exc:
            raise _wrong(f"block '{name}' fails: {exc}") from exc

    def _check(self) -> None:
        passage = self._block("passage", number=61_943, title="", text="some text")
        closing = self._block("closing", question="some question", history=[])
        if "61943" not in passage or "some text" not in passage:
            raise _wrong("block 'passage' must have the passage's number and text")
        if "some question" not in closing:
            raise _wrong("block 'closing' must have the question")


async def _sizes(count: Count, fixed: Sequence[str], blocks: Sequence[str], budget: int) -> list[int]:
    """What ``fixed`` takes in all, then each of ``blocks``: tokens, or bytes where these fit already.

    No token is shorter than a byte, and to count is the longest step of a prompt.
    """
    texts = [*fixed, *blocks]
    parts = len(fixed)

    def with_slack(sizes: Sequence[int]) -> list[int]:
        return [sum(sizes[:parts]) + parts, *(size + _SLACK_TOKENS for size in sizes[parts:])]

    by_bytes = with_slack([len(text.encode("utf-8", "replace")) for text in texts])
    return by_bytes if sum(by_bytes) <= budget else with_slack(await count(texts))


def _without_repeats(passages: Sequence[Passage]) -> list[int]:
    filled = [index for index, passage in enumerate(passages) if passage.text.strip()]
    return [filled[at] for at in distinct([passages[index].text for index in filled])]


def _parse(source: str) -> Template:
    try:
        template = ENVIRONMENT.from_string(source)
    except TemplateError as exc:
        raise _wrong(f"does not parse: {exc}") from exc
    missing = [name for name in _BLOCKS if name not in template.blocks]
    if missing:
        raise _wrong(f"lacks the block {', '.join(missing)}; it must have {', '.join(_BLOCKS)}")
    return template


def _wrong(description: str) -> InvalidArgument:
    return InvalidArgument.at("options.template", description)

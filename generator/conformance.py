"""What every generator must do: one function a promise, for any opener of a fresh generator."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

from generator.base import Delta, End, Generated, Generator, Limits, Passage, Prompt, Quote
from ragstone.answers import FinishReason
from ragstone.errors import DeadlineExceeded

Opener: TypeAlias = Callable[[], Awaitable[Generator]]
Check: TypeAlias = Callable[[Opener], Awaitable[None]]

PROMPT: Final = Prompt(
    question="When did the harbour of Lindholm freeze?",
    passages=(
        Passage(
            chunk_id="a#0",
            document_id="a",
            text="Lindholm has a harbour. \U0001f6a2 The harbour of Lindholm froze\n in January 1893. \n"
            "It thawed late.",
        ),
        Passage(chunk_id="b#0", document_id="b", text="Bees store honey in combs of wax."),
        Passage(chunk_id="c#0", document_id="c", text=""),
    ),
)


@contextlib.asynccontextmanager
async def _opened(opener: Opener) -> AsyncIterator[Generator]:
    generator = await opener()
    try:
        yield generator
    finally:
        await generator.close()


async def _items(generator: Generator, prompt: Prompt, limits: Limits | None = None) -> list[Generated]:
    return [item async for item in generator.stream(prompt, limits or Limits())]


async def a_stream_ends_with_its_only_end(opener: Opener) -> None:
    """Exactly one ``End``, and nothing after it."""
    async with _opened(opener) as generator:
        items = await _items(generator, PROMPT)
        assert [isinstance(item, End) for item in items].index(True) == len(items) - 1


async def quotes_point_at_streamed_text_and_at_a_passage(opener: Opener) -> None:
    """A quote lies within the text streamed before it and within its passage."""
    async with _opened(opener) as generator:
        text = ""
        for item in await _items(generator, PROMPT):
            if isinstance(item, Delta):
                text += item.text
            elif isinstance(item, Quote):
                passage = PROMPT.passages[item.passage].text
                assert 0 <= item.start < item.end <= len(passage)
                assert 0 <= item.answer_start < item.answer_end <= len(text)


async def usage_counts_the_prompt_and_the_answer(opener: Opener) -> None:
    """Tokens are counted, cached ones as a part of the prompt's."""
    async with _opened(opener) as generator:
        items = await _items(generator, PROMPT)
        end = items[-1]
        assert isinstance(end, End)
        assert end.usage.prompt_tokens > 0
        assert 0 <= end.usage.cached_tokens <= end.usage.prompt_tokens
        assert (end.usage.completion_tokens > 0) == any(isinstance(item, Delta) for item in items)


async def max_tokens_bounds_the_answer(opener: Opener) -> None:
    """An answer that was cut says so."""
    async with _opened(opener) as generator:
        end = (await _items(generator, PROMPT, Limits(max_tokens=3)))[-1]
        assert isinstance(end, End)
        assert end.usage.completion_tokens <= 3
        assert end.finish_reason is FinishReason.LENGTH


async def no_passages_is_a_valid_prompt(opener: Opener) -> None:
    """Without passages the stream still ends properly, and quotes nothing."""
    async with _opened(opener) as generator:
        items = await _items(generator, Prompt(question="Anything?", passages=()))
        assert isinstance(items[-1], End)
        assert not any(isinstance(item, Quote) for item in items)


async def a_closed_stream_leaves_it_usable(opener: Opener) -> None:
    """A client that goes away after the first item does not hurt the next."""
    async with _opened(opener) as generator:
        stream = generator.stream(PROMPT, Limits())
        await anext(stream)
        await stream.aclose()
        assert isinstance((await _items(generator, PROMPT))[-1], End)


async def a_deadline_that_has_passed_is_an_error(opener: Opener) -> None:
    """No time left gives DeadlineExceeded, not an empty answer."""
    async with _opened(opener) as generator:
        try:
            await anext(generator.stream(PROMPT, Limits(), deadline_s=0.0))
        except DeadlineExceeded:
            return
        raise AssertionError("an answer after its deadline")


async def closing_twice_is_harmless(opener: Opener) -> None:
    """``close`` may come from two owners."""
    generator = await opener()
    await generator.close()
    await generator.close()


GENERATOR_CHECKS: Final[tuple[Check, ...]] = (
    a_stream_ends_with_its_only_end,
    quotes_point_at_streamed_text_and_at_a_passage,
    usage_counts_the_prompt_and_the_answer,
    max_tokens_bounds_the_answer,
    no_passages_is_a_valid_prompt,
    a_closed_stream_leaves_it_usable,
    a_deadline_that_has_passed_is_an_error,
    closing_twice_is_harmless,
)

"""Checks of the generator ``vllm_engine``, run by vLLM's own interpreter: an engine loads once, in seconds.

Prints a JSON object on the last line: each check's name, with what went wrong or an empty string.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from generator.base import Delta, End, Generator, Limits, Prompt
from generator.conformance import GENERATOR_CHECKS, PROMPT, closing_twice_is_harmless
from generator.registry import open_generator
from ragstone.answers import FinishReason
from ragstone.errors import BackendUnavailable, InvalidArgument, RagstoneError

ENGINE: Final = {
    "max_model_len": 2_048,
    "kv_cache_memory_bytes": 64 << 20,
    "block_size": 32,
    "max_num_seqs": 8,
    "enforce_eager": True,
    "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
}
SHORT: Final = Limits(max_tokens=8)


class Shared:
    """The engine under test, which whoever closes it leaves open for the next."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def stream(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """As the engine does."""
        return self._generator.stream(*args, **kwargs)

    async def close(self) -> None:
        """Nothing."""


async def _answer(
    generator: Generator, limits: Limits, prompt: Prompt = PROMPT, salt: str = ""
) -> tuple[str, End]:
    items = [item async for item in generator.stream(prompt, limits, cache_salt=salt)]
    assert isinstance(items[-1], End)
    return "".join(item.text for item in items if isinstance(item, Delta)), items[-1]


async def a_tenants_repeats_are_cached_and_no_other_tenant_sees_them(generator: Generator) -> None:
    cached = [(await _answer(generator, SHORT, salt=salt))[1].usage.cached_tokens for salt in "aab"]
    assert [count > 0 for count in cached] == [False, True, False], cached


async def an_answer_in_a_schema_is_json_that_fits(generator: Generator) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"enum": ["x", "y"]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    text, end = await _answer(generator, Limits(max_tokens=64, json_schema=schema))
    assert end.finish_reason is FinishReason.COMPLETE
    assert json.loads(text)["n"] in {"x", "y"}, text


async def it_says_how_likely_each_token_was(generator: Generator) -> None:
    _, end = await _answer(generator, replace(SHORT, logprobs=True))
    assert len(end.logprobs) == end.usage.completion_tokens == 8
    assert all(one.logprob <= 0 for one in end.logprobs)


async def a_seed_makes_chance_repeatable(generator: Generator) -> None:
    by_chance = Limits(max_tokens=8, temperature=1.0, seed=7)
    assert (await _answer(generator, by_chance))[0] == (await _answer(generator, by_chance))[0]


async def a_text_at_which_it_ends_is_no_part_of_the_answer(generator: Generator) -> None:
    text, _ = await _answer(generator, SHORT)
    cut, end = await _answer(generator, replace(SHORT, stop=(text[3:6],)))
    assert (cut, end.finish_reason) == (text[:3], FinishReason.COMPLETE), text


async def a_question_beyond_the_context_is_a_typed_error(generator: Generator) -> None:
    error = await _failure(_answer(generator, SHORT, replace(PROMPT, question="why " * 3_000)))
    assert isinstance(error, InvalidArgument), error


async def a_wrong_engine_argument_is_named(_: Generator) -> None:
    wrong = {"model": sys.argv[1], "engine": {"max_modl_len": 9}}
    error = await _failure(open_generator("vllm_engine", wrong))
    assert isinstance(error, InvalidArgument), error
    assert "max_modl_len" in error.message, error


async def a_schema_that_is_none_is_refused_with_vllms_words(generator: Generator) -> None:
    error = await _failure(_answer(generator, replace(SHORT, json_schema={"type": "no such type"})))
    assert isinstance(error, InvalidArgument), error
    assert "no such type" in error.message, error


async def a_caller_that_leaves_ends_the_generation_in_the_engine(generator: Generator) -> None:
    engine = _engine_of(generator)
    stream = generator.stream(PROMPT, Limits(max_tokens=1_000))
    await anext(stream)
    assert engine.output_processor.get_num_unfinished_requests() == 1
    await stream.aclose()
    assert engine.output_processor.get_num_unfinished_requests() == 0


async def wrong_sampling_parameters_are_named(_: Generator) -> None:
    error = await _failure(open_generator("vllm_engine", {"model": sys.argv[1], "extra": {"top_q": 1}}))
    assert isinstance(error, InvalidArgument), error
    assert "top_q" in error.message, error


CONFORMANCE: Final = tuple(check for check in GENERATOR_CHECKS if check is not closing_twice_is_harmless)
"""Without the one that closes it."""
OWN: Final = (
    a_tenants_repeats_are_cached_and_no_other_tenant_sees_them,
    an_answer_in_a_schema_is_json_that_fits,
    it_says_how_likely_each_token_was,
    a_seed_makes_chance_repeatable,
    a_text_at_which_it_ends_is_no_part_of_the_answer,
    a_question_beyond_the_context_is_a_typed_error,
    a_schema_that_is_none_is_refused_with_vllms_words,
    a_caller_that_leaves_ends_the_generation_in_the_engine,
    a_wrong_engine_argument_is_named,
    wrong_sampling_parameters_are_named,
)
CLOSED: Final = "a_closed_engine_answers_nothing"


async def main() -> None:
    """Run all, the one that closes the engine last."""
    generator = await open_generator("vllm_engine", {"model": sys.argv[1], "engine": ENGINE})
    shared = Shared(generator)

    async def opener() -> Generator:
        return shared

    outcomes = {check.__name__: await _outcome(check, opener) for check in CONFORMANCE}
    outcomes |= {own.__name__: await _outcome(own, generator) for own in OWN}
    outcomes[CLOSED] = await _outcome(_closed, generator)
    sys.stdout.write(json.dumps(outcomes))


async def _closed(generator: Generator) -> None:
    await generator.close()
    await generator.close()
    error = await _failure(_answer(generator, SHORT))
    assert isinstance(error, BackendUnavailable), error


def _engine_of(generator: Any) -> Any:
    """vLLM's own object."""
    [model] = generator._models.values()
    return model._engine


async def _failure(work: Awaitable[object]) -> RagstoneError | None:
    try:
        await work
    except RagstoneError as exc:
        return exc
    return None


async def _outcome(check: Callable[[Any], Awaitable[None]], given: Any) -> str:
    try:
        await check(given)
    except Exception as exc:  # noqa: BLE001 - it is the outcome
        return f"{type(exc).__name__}: {exc}"
    return ""


if __name__ == "__main__":
    asyncio.run(main())

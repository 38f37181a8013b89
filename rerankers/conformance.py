"""What every reranker must do: one function a promise, for any opener of a fresh reranker.

The texts are such that any model can do it: no check asks for good judgement.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

import numpy as np

from ragstone.errors import DeadlineExceeded
from rerankers.base import Reranker

Opener: TypeAlias = Callable[[], Awaitable[Reranker]]
Check: TypeAlias = Callable[[Opener], Awaitable[None]]

QUERY: Final = "when did the harbour freeze?"
TEXTS: Final = (
    "The harbour froze in January.",
    "",
    "bridge",
    "Der Hafen fror im Januar zu. " * 20,
    "灯台は海岸に立つ。",
    " \n\t ",
    "a\u0301 zero\u200bwidth and \U0001f30a",
    "word " * 900,
)
_NEAR: Final = 1e-3
_ENOUGH_S: Final = 60.0


@contextlib.asynccontextmanager
async def _opened(opener: Opener) -> AsyncIterator[Reranker]:
    reranker = await opener()
    try:
        yield reranker
    finally:
        await reranker.close()


async def every_text_has_a_finite_score(opener: Opener) -> None:
    """Float32 ``(n,)``, with a deadline that suffices and without one."""
    async with _opened(opener) as reranker:
        for deadline_s in (None, _ENOUGH_S):
            scores = await reranker.score(QUERY, TEXTS, deadline_s=deadline_s)
            assert scores.shape == (len(TEXTS),)
            assert scores.dtype == np.float32
            assert np.isfinite(scores).all()


async def no_texts_give_no_scores(opener: Opener) -> None:
    """An empty list is a valid request, whatever the deadline."""
    async with _opened(opener) as reranker:
        for deadline_s in (None, 0.0):
            assert (await reranker.score(QUERY, [], deadline_s=deadline_s)).shape == (0,)


async def a_score_does_not_depend_on_the_other_texts(opener: Opener) -> None:
    """Alone or in company, in any order."""
    async with _opened(opener) as reranker:
        together = await reranker.score(QUERY, TEXTS, deadline_s=None)
        reverse = await reranker.score(QUERY, TEXTS[::-1], deadline_s=None)
        alone = [await reranker.score(QUERY, [text], deadline_s=None) for text in TEXTS]
        np.testing.assert_allclose(reverse[::-1], together, atol=_NEAR)
        np.testing.assert_allclose(np.concatenate(alone), together, atol=_NEAR)


async def any_query_is_scored(opener: Opener) -> None:
    """The empty one and one that is too long for the model too."""
    async with _opened(opener) as reranker:
        for query in ("", " ", "word " * 2_000, "灯台"):
            scores = await reranker.score(query, TEXTS[:3], deadline_s=None)
            assert scores.shape == (3,)
            assert np.isfinite(scores).all()


async def concurrent_calls_get_their_own_scores(opener: Opener) -> None:
    """Calls that share a model do not mix their results up."""
    async with _opened(opener) as reranker:
        queries = [f"ship number {i} " + "sails on " * (i % 7) for i in range(12)]
        wanted = [await reranker.score(query, TEXTS, deadline_s=None) for query in queries]
        got = await asyncio.gather(*(reranker.score(query, TEXTS, deadline_s=None) for query in queries))
        np.testing.assert_allclose(np.stack(got), np.stack(wanted), atol=_NEAR)


async def a_deadline_that_has_passed_is_an_error(opener: Opener) -> None:
    """Not even the first text can be scored in no time."""
    async with _opened(opener) as reranker:
        try:
            await reranker.score(QUERY, TEXTS, deadline_s=0.0)
        except DeadlineExceeded:
            return
        raise AssertionError("a deadline of 0 s was kept")


async def a_short_deadline_leaves_the_first_texts(opener: Opener) -> None:
    """Whatever is done in time is a prefix, with the scores that all would have."""
    async with _opened(opener) as reranker:
        texts = TEXTS * 8
        whole = await reranker.score(QUERY, texts, deadline_s=None)
        for deadline_s in (0.003, 0.01, 0.03, 0.1):
            with contextlib.suppress(DeadlineExceeded):
                part = await reranker.score(QUERY, texts, deadline_s=deadline_s)
                assert 1 <= len(part) <= len(texts)
                np.testing.assert_allclose(part, whole[: len(part)], atol=_NEAR)


async def a_cancelled_call_leaves_it_usable(opener: Opener) -> None:
    """Cancelling one call does not hurt the next."""
    async with _opened(opener) as reranker:
        tasks = [asyncio.ensure_future(reranker.score(QUERY, TEXTS * 4, deadline_s=None)) for _ in range(4)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await reranker.score(QUERY, TEXTS[:1], deadline_s=None)).shape == (1,)


async def closing_twice_is_harmless(opener: Opener) -> None:
    """``close`` may come from two owners."""
    reranker = await opener()
    await reranker.close()
    await reranker.close()


RERANKER_CHECKS: Final[tuple[Check, ...]] = (
    every_text_has_a_finite_score,
    no_texts_give_no_scores,
    a_score_does_not_depend_on_the_other_texts,
    any_query_is_scored,
    concurrent_calls_get_their_own_scores,
    a_deadline_that_has_passed_is_an_error,
    a_short_deadline_leaves_the_first_texts,
    a_cancelled_call_leaves_it_usable,
    closing_twice_is_harmless,
)

"""What every embedder must do: one function a promise, for any opener of a fresh embedder.

``precomputed`` is no row of this suite: it embeds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import numpy as np

from embedders.base import Embedder, Encoded, TokenEncoder, Vectors

Opener: TypeAlias = Callable[[], Awaitable[Embedder]]
Check: TypeAlias = Callable[[Opener], Awaitable[None]]

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
_SAME: Final = 0.9999
_SAME_TOKEN: Final = 0.999
"""A token has no mean over its text to even out what bfloat16 rounds off."""


@contextlib.asynccontextmanager
async def _opened(opener: Opener) -> AsyncIterator[Embedder]:
    embedder = await opener()
    try:
        yield embedder
    finally:
        await embedder.close()


def _cosines(a: Vectors, b: Vectors) -> Vectors:
    cosines: Vectors = (a * b).sum(axis=1)
    return cosines


async def _both(embedder: Embedder, texts: Sequence[str]) -> list[Vectors]:
    return [await embedder.embed_queries(texts), await embedder.embed_passages(texts)]


async def vectors_have_the_shape_of_the_space(opener: Opener) -> None:
    """Float32 ``(n, dim)`` for queries and passages."""
    async with _opened(opener) as embedder:
        for vectors in await _both(embedder, TEXTS):
            assert vectors.shape == (len(TEXTS), embedder.space.dim)
            assert vectors.dtype == np.float32


async def rows_are_finite_and_of_length_one(opener: Opener) -> None:
    """Any text has a direction, the empty one too."""
    async with _opened(opener) as embedder:
        for vectors in await _both(embedder, TEXTS):
            assert np.isfinite(vectors).all()
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


async def no_texts_give_no_rows(opener: Opener) -> None:
    """An empty list is a valid request."""
    async with _opened(opener) as embedder:
        for vectors in await _both(embedder, []):
            assert vectors.shape == (0, embedder.space.dim)


async def a_row_does_not_depend_on_its_batch(opener: Opener) -> None:
    """Alone or in company, and in the order of the texts: cosine at least 0.9999."""
    async with _opened(opener) as embedder:
        for embed in (embedder.embed_queries, embedder.embed_passages):
            together = await embed(TEXTS)
            alone = np.concatenate([await embed([text]) for text in TEXTS])
            assert _cosines(together, alone).min() >= _SAME


async def different_texts_have_different_rows(opener: Opener) -> None:
    """Two sentences are not the same point."""
    async with _opened(opener) as embedder:
        rows = await embedder.embed_passages(["The harbour froze in January.", "Bees store honey in combs."])
        assert float(rows[0] @ rows[1]) < _SAME


async def concurrent_calls_get_their_own_rows(opener: Opener) -> None:
    """Calls that share batches do not mix their results up."""
    async with _opened(opener) as embedder:
        texts = [f"ship number {i} " + "sails on " * (i % 7) for i in range(24)]
        wanted = await embedder.embed_passages(texts)
        calls = [
            (embedder.embed_queries if i % 3 else embedder.embed_passages)([text])
            for i, text in enumerate(texts)
        ]
        got = np.concatenate(await asyncio.gather(*calls))
        asymmetric = embedder.space.query_prompt != embedder.space.passage_prompt
        compared = slice(0, None, 3) if asymmetric else slice(None)
        assert _cosines(wanted[compared], got[compared]).min() >= _SAME


async def a_cancelled_call_leaves_it_usable(opener: Opener) -> None:
    """Cancelling one call does not hurt the next."""
    async with _opened(opener) as embedder:
        tasks = [asyncio.ensure_future(embedder.embed_passages(list(TEXTS) * 4)) for _ in range(4)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await embedder.embed_queries(["still here"])).shape == (1, embedder.space.dim)


async def two_instances_share_one_space(opener: Opener) -> None:
    """Equal options give an equal space and equal vectors."""
    async with _opened(opener) as first, _opened(opener) as second:
        assert first.space.id == second.space.id
        assert _cosines(await first.embed_queries(TEXTS), await second.embed_queries(TEXTS)).min() >= _SAME


async def closing_twice_is_harmless(opener: Opener) -> None:
    """``close`` may come from two owners."""
    embedder = await opener()
    await embedder.close()
    await embedder.close()


async def one_pass_gives_the_same_vectors(opener: Opener) -> None:
    """A text's vector is the same with its tokens as without: cosine at least 0.9999."""
    async with _opened(opener) as embedder:
        queries, passages = await _both(embedder, TEXTS)
        encoded = await _encoded(embedder, TEXTS)
        for vectors, rows in zip((queries, passages), encoded, strict=True):
            assert _cosines(np.stack([row.vector for row in rows]), vectors).min() >= _SAME


async def every_text_has_tokens_of_length_one(opener: Opener) -> None:
    """Float32 ``(length, token_dim)``, one row at least; a longer text has more."""
    async with _opened(opener) as embedder:
        for rows in await _encoded(embedder, TEXTS):
            for row in rows:
                assert row.tokens.dtype == np.float32
                assert row.ids.dtype == np.int64
                assert row.ids.shape == (len(row.tokens),)
                assert row.tokens.shape[1] == token_encoder(embedder).token_dim
                np.testing.assert_allclose(np.linalg.norm(row.tokens, axis=1), 1, atol=1e-4)
            short, long = rows[TEXTS.index("bridge")], rows[TEXTS.index("word " * 900)]
            assert 1 <= len(short.tokens) < len(long.tokens)


async def tokens_do_not_depend_on_their_batch(opener: Opener) -> None:
    """Alone or in company: cosine at least 0.999 for each."""
    async with _opened(opener) as embedder:
        together = await token_encoder(embedder).encode_passages(TEXTS)
        for text, row in zip(TEXTS, together, strict=True):
            (alone,) = await token_encoder(embedder).encode_passages([text])
            assert _cosines(alone.tokens, row.tokens).min() >= _SAME_TOKEN


def token_encoder(embedder: Embedder) -> TokenEncoder:
    """The embedder as what it must be to be checked by ``TOKEN_ENCODER_CHECKS``."""
    assert isinstance(embedder, TokenEncoder)
    return embedder


async def _encoded(embedder: Embedder, texts: Sequence[str]) -> list[list[Encoded]]:
    encoder = token_encoder(embedder)
    return [await encoder.encode_queries(texts), await encoder.encode_passages(texts)]


TOKEN_ENCODER_CHECKS: Final[tuple[Check, ...]] = (
    one_pass_gives_the_same_vectors,
    every_text_has_tokens_of_length_one,
    tokens_do_not_depend_on_their_batch,
)
"""For those embedders that are a ``TokenEncoder`` too."""

EMBEDDER_CHECKS: Final[tuple[Check, ...]] = (
    vectors_have_the_shape_of_the_space,
    rows_are_finite_and_of_length_one,
    no_texts_give_no_rows,
    a_row_does_not_depend_on_its_batch,
    different_texts_have_different_rows,
    concurrent_calls_get_their_own_rows,
    a_cancelled_call_leaves_it_usable,
    two_instances_share_one_space,
    closing_twice_is_harmless,
)

"""Texts that a model refuses are found and set aside, so that they hold no others up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedders.base import Vectors
from ragstone.errors import BackendUnavailable, Internal, Overloaded, RagstoneError

Embed: TypeAlias = Callable[[Sequence[str]], Awaitable[Vectors]]
Outcome: TypeAlias = NDArray[np.float32] | str
"""A text's vector ``(dim,)``, or why there is none."""


async def embed_or_refuse(embed: Embed, texts: Sequence[str]) -> list[Outcome]:
    """What became of each text; a batch that fails is halved until the text is found that makes it fail.

    Raises Internal when no vector of a batch is finite (then the model is broken, not a text), and what
    ``embed`` raises of BackendUnavailable and Overloaded: no text is to blame for those.
    """
    try:
        vectors = await embed(texts)
    except (BackendUnavailable, Overloaded):
        raise
    except RagstoneError as exc:
        if len(texts) == 1:
            return [exc.message]
        half = len(texts) // 2
        return [*await embed_or_refuse(embed, texts[:half]), *await embed_or_refuse(embed, texts[half:])]
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
    if len(texts) > 1 and not finite.any():
        raise Internal("the embedder gives vectors that are not finite")
    return [
        vector if good else "its vector is not finite" for vector, good in zip(vectors, finite, strict=True)
    ]

"""Late interaction on the fly: texts are encoded when they are asked about, and compared token by token.

Khattab and Zaharia 2020, "ColBERT", SIGIR: a passage's score is the mean, over the query's tokens, of the
best cosine with any of its tokens. A version that keeps token vectors compares those instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ragstone.errors import BackendUnavailable, DeadlineExceeded
from rerankers.base import Scores

_AT_ONCE: Final = 8
"""Passages between two looks at the clock."""


class Encoded(Protocol):
    """A text's tokens: ``embedders.base.Encoded`` is one."""

    @property
    def tokens(self) -> NDArray[np.float32]:
        """Float32 ``(length, dim)``, rows of length 1."""
        ...


class Encoder(Protocol):
    """What makes tokens of texts: ``embedders.base.TokenEncoder`` is one."""

    async def encode_queries(self, texts: Sequence[str]) -> Sequence[Encoded]:
        """One a text."""
        ...

    async def encode_passages(self, texts: Sequence[str]) -> Sequence[Encoded]:
        """One a text."""
        ...


class LateInteractionReranker:
    """A ``Reranker`` by the tokens of an encoder, which belongs to somebody else."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._closed = False

    async def score(self, query: str, texts: Sequence[str], *, deadline_s: float | None) -> Scores:
        """Float32 ``(m,)``, from -1 to 1. Raises DeadlineExceeded, BackendUnavailable."""
        if self._closed:
            raise BackendUnavailable("the reranker is closed")
        end = float("inf") if deadline_s is None else monotonic() + deadline_s
        if not texts:
            return np.empty(0, np.float32)
        [asked] = await self._encoder.encode_queries([query])
        scores: list[float] = []
        slowest_s = 0.0
        for start in range(0, len(texts), _AT_ONCE):
            began = monotonic()
            if began + slowest_s > end:
                break
            some = await self._encoder.encode_passages(texts[start : start + _AT_ONCE])
            scores += [max_sim(asked.tokens, one.tokens) for one in some]
            slowest_s = max(slowest_s, monotonic() - began)
        if not scores:
            raise DeadlineExceeded("no passage could be encoded before the deadline")
        return np.array(scores, np.float32)

    async def close(self) -> None:
        """The encoder is not closed: it is not ours."""
        self._closed = True


def max_sim(query: NDArray[np.float32], passage: NDArray[np.float32]) -> float:
    """The mean, over the rows of ``query`` ``(t, dim)``, of the best product with a row of ``passage``."""
    best: Any = (query @ passage.T).max(axis=1)
    return float(best.mean())

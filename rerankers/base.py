"""The protocol of the rerankers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Scores: TypeAlias = NDArray[np.float32]


class Reranker(Protocol):
    """Scores passages against a query; a higher score is the better one.

    A passage's score does not depend on the passages beside it.
    """

    async def score(self, query: str, texts: Sequence[str], *, deadline_s: float | None) -> Scores:
        """Float32 ``(m,)``, finite: the scores of the first ``m`` of ``texts``.

        All of them, or as many as ``deadline_s`` seconds allow; None is no deadline. Raises DeadlineExceeded
        when not even the first is done by then, BackendUnavailable when the model does not answer.
        """
        ...

    async def close(self) -> None:
        """Release the model and its threads. Calls that still run end with BackendUnavailable."""
        ...

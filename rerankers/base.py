"""The protocol of the rerankers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Reranker(Protocol):
    """Scores passages against a query; a higher score is the better one."""

    async def score(
        self, query: str, texts: Sequence[str], *, deadline_s: float | None
    ) -> NDArray[np.float32]:
        """Float32 ``(len(texts),)``, finite.

        Raises DeadlineExceeded when ``deadline_s`` seconds do not suffice, BackendUnavailable when the model
        does not answer.
        """
        ...

    async def close(self) -> None:
        """Release the model."""
        ...

"""A sample of what clients ask, for those who want to know what another version would answer.

It is in memory alone: what people ask is theirs, and a restart forgets it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Final

import numpy as np

from ragstone.types import Query

_KEPT: Final = 256
_PAUSE_S: Final = 0.02
"""Between two that are kept once there are enough: at high rates recording costs nothing, and the sample
reaches further back."""


class Recording:
    """The last different queries of one collection. Belongs to one event loop."""

    def __init__(
        self, *, kept: int = _KEPT, pause_s: float = _PAUSE_S, clock: Callable[[], float] = monotonic
    ) -> None:
        self._kept = kept
        self._pause_s = pause_s
        self._clock = clock
        self._next = 0.0
        self._queries: dict[Hashable, Query] = {}

    def heard(self, query: Query) -> None:
        """A client has asked ``query``, and it was answered. A further page is no query of its own."""
        now = self._clock()
        if query.page_token or (now < self._next and len(self._queries) == self._kept):
            return
        self._next = now + self._pause_s
        key = _key(query)
        self._queries.pop(key, None)
        # A text is asked of each version in the version's own space.
        space = None if query.vector is None else query.space
        self._queries[key] = replace(query, explain=False, min_seq=None, request_key="", space=space)
        if len(self._queries) > self._kept:
            del self._queries[next(iter(self._queries))]

    def queries(self) -> Sequence[Query]:
        """Those that are kept, the oldest first."""
        return tuple(self._queries.values())


def _key(query: Query) -> Hashable:
    vector = None if query.vector is None else np.asarray(query.vector, np.float32).tobytes()
    return (query.text, query.filter, query.mode, query.k, query.language, query.space, query.fusion, vector)

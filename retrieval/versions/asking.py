"""How versions are asked by those below the query path: whoever measures them is handed the search."""

from __future__ import annotations

from typing import Protocol

from ragstone.types import Query, SearchResult
from retrieval.versions.snapshots import Snapshot


class Ask(Protocol):
    """A whole search of one version, as clients get it. ``retrieval.query.search.Searcher.on`` is the one."""

    async def __call__(self, snapshot: Snapshot, query: Query) -> SearchResult:
        """What ``snapshot`` answers. Raises what a search raises."""
        ...

"""A model that is new, and how it asks an index that was built with another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from embedders.base import Embedder, Vectors
from ragstone.errors import SpaceMismatch
from ragstone.types import QueryAdapter
from retrieval.versions.adapters.adapter import Adapter

EmbedQuery = Callable[[Embedder, str], Awaitable[Vectors]]
"""A query's vector ``(1, dim)``, float32. Raises what the embedder raises."""


@dataclass(frozen=True, slots=True)
class NewModel:
    """How a model that is new asks the serving version: by its embedder, then by the adapter.

    ``adapter`` is None where it was not learned, or did not pass: ``told`` says why.
    """

    embedder: Embedder
    adapter: Adapter | None
    told: QueryAdapter

    async def embed(self, text: str, embed: EmbedQuery, *, into: str) -> Vectors:
        """A query's vector ``(1, dim)`` by this model, in the space ``into``. Raises SpaceMismatch."""
        self._require(into)
        return self.into(await embed(self.embedder, text), into)

    def into(self, vectors: Vectors, serving_space: str) -> Vectors:
        """Vectors of the model's space in the serving one's. Raises SpaceMismatch where that cannot be."""
        self._require(serving_space)
        assert self.adapter is not None
        return self.adapter.apply(vectors)

    def _require(self, serving_space: str) -> None:
        told = self.told
        if self.adapter is None or told.into_space != serving_space:
            why = told.reason or f"recall@10 is {told.recall:.3f} through it, the limit {told.limit:g}"
            if self.adapter is not None:
                why = f"the one there is maps into {told.into_space!r}"
            raise SpaceMismatch(
                f"the query is of the space {told.from_space!r}, the serving version of {serving_space!r}, "
                f"and no adapter may be used between them: {why}",
                metadata={"query_space": told.from_space, "serving_space": serving_space},
            )

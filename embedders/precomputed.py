"""The space of vectors that clients bring themselves. Nothing is embedded here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from embedders.base import Embedder, Space, Vectors
from embedders.options import parse_options
from ragstone.errors import FailedPrecondition

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Options(BaseModel, frozen=True, extra="forbid"):
    """The recipe's ``embedder`` options."""

    space: str = Field(min_length=1, max_length=200)
    """What the clients call their space; vectors of another name are refused."""
    dim: int = Field(ge=8, le=4096)


async def open_embedder(options: Mapping[str, Any]) -> Embedder:
    """The clients' space. Raises InvalidArgument for wrong options."""
    parsed = parse_options(Options, options)
    return PrecomputedEmbedder(space=parsed.space, dim=parsed.dim)


class PrecomputedEmbedder:
    """An ``Embedder`` that has a space and no model."""

    def __init__(self, *, space: str, dim: int) -> None:
        # Whether rows have length 1 is the clients' affair, and the index's metric says how they compare.
        self._space = Space(name=space, dim=dim, normalised=False)

    @property
    def space(self) -> Space:
        """The space that the recipe names."""
        return self._space

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None: words are counted."""
        return None

    async def embed_queries(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        """Raises FailedPrecondition."""
        raise self._refusal("queries")

    async def embed_passages(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        """Raises FailedPrecondition."""
        raise self._refusal("documents")

    async def close(self) -> None:
        """Nothing is held."""

    def _refusal(self, what: str) -> FailedPrecondition:
        return FailedPrecondition(
            f"this collection's clients bring their own vectors: send {what} with a vector "
            f"of {self._space.dim} numbers in the space {self._space.name!r}"
        )

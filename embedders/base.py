"""The protocol of the embedders, and the identity of an embedding space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Everything that changes a vector. Two spaces never meet.

    ``name`` is what people call it (a model id); ``digest`` identifies the weights, wherever they came
    from ("" where there are none).
    """

    name: str
    dim: int
    digest: str = ""
    pooling: str = ""
    normalised: bool = True
    query_prompt: str = ""
    passage_prompt: str = ""
    max_tokens: int = 0

    @property
    def id(self) -> str:
        """``name@fingerprint``: the space as it stands on vectors, cache keys, indexes and responses."""
        canonical = json.dumps(asdict(self), sort_keys=True).encode()
        return f"{self.name}@{hashlib.sha256(canonical).hexdigest()[:12]}"


class Embedder(Protocol):
    """Text to unit vectors of one space. A text's vector does not depend on its batch (cosine >= 0.9999)."""

    @property
    def space(self) -> Space:
        """The space of every vector that this embedder makes."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's own tokenizer, by which the chunker counts; None where words are counted."""
        ...

    async def embed_queries(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        """Float32 ``(len(texts), dim)``, finite, rows of length 1. Interactive: goes before passages.

        ``tenant`` is whom the work is for: where several wait, they take turns. Raises Overloaded when the
        queue is full, BackendUnavailable when the model does not answer, InvalidArgument naming the
        ``texts[i]`` that are too long for an embedder that does not cut them.
        """
        ...

    async def embed_passages(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        """Float32 ``(len(texts), dim)``, finite, rows of length 1. Bulk: yields to queries.

        Raises the errors of ``embed_queries``.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted, then release the model and its threads."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded:
    """A text out of one pass of the model: its vector, and one for each of its tokens.

    ``vector`` is float32 ``(dim,)``, as the ``Embedder`` gives it; ``tokens`` is float32
    ``(length, token_dim)``, rows of length 1, in the order of the text; ``ids`` int64 ``(length,)`` tell
    which tokens they are.
    """

    vector: Vectors
    tokens: Vectors
    ids: NDArray[np.int64]


@runtime_checkable
class TokenEncoder(Protocol):
    """An embedder whose pass gives token vectors too, for late interaction.

    Late interaction: Khattab and Zaharia 2020, "ColBERT", SIGIR.
    """

    @property
    def token_dim(self) -> int:
        """How many numbers a token's vector has."""
        ...

    async def encode_queries(self, texts: Sequence[str], *, tenant: str = "") -> list[Encoded]:
        """As ``embed_queries``, with the tokens. Raises what it raises."""
        ...

    async def encode_passages(self, texts: Sequence[str], *, tenant: str = "") -> list[Encoded]:
        """As ``embed_passages``, with the tokens. Raises what it raises."""
        ...

"""Feature hashing: text to vectors without a model, for tests, demos and machines that have none.

The signed hashing trick (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning") over
words and character 3-grams. Texts with words in common are near each other; meaning is not understood.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import sqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import BaseModel, Field

from embedders.base import Embedder, Encoded, Space, Vectors
from embedders.options import parse_options
from ragstone.errors import BackendUnavailable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_WORD: Final = re.compile(r"\w+")
_NGRAM: Final = 3
_VOCABULARY: Final = 1 << 16
_NGRAM_WEIGHT: Final = 0.3
_FORMAT: Final = "words+3grams/1"
"""Changes whenever the same text would get another vector."""


class Options(BaseModel, frozen=True, extra="forbid"):
    """The recipe's ``embedder`` options."""

    dim: int = Field(256, ge=8, le=4096)


async def open_embedder(options: Mapping[str, Any]) -> Embedder:
    """A hashing embedder. Raises InvalidArgument for wrong options."""
    return HashingEmbedder(dim=parse_options(Options, options).dim)


class HashingEmbedder:
    """An ``Embedder`` that hashes words and character 3-grams into ``dim`` signed buckets.

    As a ``TokenEncoder`` its tokens are the words.
    """

    def __init__(self, *, dim: int = 256) -> None:
        self._space = Space(name="hashing", dim=dim, pooling=_FORMAT)
        self._closed = False

    @property
    def space(self) -> Space:
        """``hashing``, by dimension."""
        return self._space

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None: words are counted."""
        return None

    async def embed_queries(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        """Float32 ``(len(texts), dim)``. Raises BackendUnavailable after ``close``."""
        return self._embed(texts)

    async def embed_passages(self, texts: Sequence[str], *, tenant: str = "") -> Vectors:
        """Float32 ``(len(texts), dim)``. Raises BackendUnavailable after ``close``."""
        return self._embed(texts)

    @property
    def token_dim(self) -> int:
        """That of the texts' vectors."""
        return self._space.dim

    async def encode_queries(self, texts: Sequence[str], *, tenant: str = "") -> list[Encoded]:
        """Vectors of the texts and of their words. Raises BackendUnavailable after ``close``."""
        return self._encode(texts)

    async def encode_passages(self, texts: Sequence[str], *, tenant: str = "") -> list[Encoded]:
        """Vectors of the texts and of their words. Raises BackendUnavailable after ``close``."""
        return self._encode(texts)

    async def close(self) -> None:
        """Nothing is held."""
        self._closed = True

    def _embed(self, texts: Sequence[str]) -> Vectors:
        if self._closed:
            raise BackendUnavailable("the embedder is closed")
        vectors = np.zeros((len(texts), self._space.dim), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            _fill(row, text)
        return vectors

    def _encode(self, texts: Sequence[str]) -> list[Encoded]:
        return [
            Encoded(vector=vector, tokens=self._embed(words), ids=np.array([_bucket(w) for w in words]))
            for text, vector in zip(texts, self._embed(texts), strict=True)
            if (words := _WORD.findall(text.casefold()) or [text])
        ]


def _bucket(word: str) -> int:
    """A number that stands for a word, and for some others."""
    return _hash(word) % _VOCABULARY


def _fill(row: Vectors, text: str) -> None:
    for feature, weight in _features(text):
        value = _hash(feature)
        row[(value >> 1) % len(row)] += weight if value & 1 else -weight
    length = float(np.linalg.norm(row))
    if length:
        row /= length
    else:
        row[0] = 1.0  # no features, or they cancel out


def _features(text: str) -> Iterator[tuple[str, float]]:
    """Words and their 3-grams with damped counts, so that a repeated word does not drown the others."""
    for word, count in Counter(_WORD.findall(text.casefold())).items():
        weight = sqrt(count)
        yield word, weight
        marked = f"^{word}$"
        for start in range(len(marked) - _NGRAM + 1):
            yield "#" + marked[start : start + _NGRAM], weight * _NGRAM_WEIGHT


@lru_cache(maxsize=1 << 16)
def _hash(feature: str) -> int:
    """64 bits that are the same in every process, unlike ``hash``."""
    return int.from_bytes(
        hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )

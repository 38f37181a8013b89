"""The protocols of the indexes, and the values that cross them.

An index holds *keys*: int64, given by the catalog, one for each chunk ever written and never used
again. A key's text and vector never change; replacing a document deletes keys and adds new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64

from indexes.directory import Directory

Keys = NDArray[np.int64]
Vectors = NDArray[np.float32]


class Metric(StrEnum):
    """How two vectors are compared. A higher score is always the better one."""

    COSINE = "cosine"
    INNER_PRODUCT = "ip"
    L2 = "l2"
    """Scores are negated squared distances."""


@dataclass(frozen=True, slots=True)
class VectorBatch:
    """One step of a dense follower: ``deleted`` leave, ``keys`` with their ``vectors`` enter.

    ``keys`` int64 ``(n,)``, ``vectors`` float32 ``(n, dim)``, ``deleted`` int64 ``(m,)``.
    """

    keys: Keys
    vectors: Vectors
    deleted: Keys


@dataclass(frozen=True, slots=True)
class TextBatch:
    """One step of a lexical follower. ``languages`` are ISO 639-1 codes, "" where unknown."""

    keys: Keys
    texts: Sequence[str]
    languages: Sequence[str]
    deleted: Keys


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """One step of a token follower: ``deleted`` leave, ``keys`` enter.

    Of each key ``tokens`` is float32 ``(length, dim)``, rows of length 1, and ``ids`` int64 ``(length,)``
    tell which tokens they are.
    """

    keys: Keys
    tokens: Sequence[Vectors]
    ids: Sequence[Keys]
    deleted: Keys


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Search results, best first, ties by ascending key; one row a query.

    ``keys`` int64 ``(n, k)``, padded with -1; ``scores`` float32 ``(n, k)``, padded with -inf.
    """

    keys: Keys
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParams:
    """Knobs of one search; ``None`` leaves the choice to the index."""

    effort: int | None = None
    """How thoroughly an approximate index looks: ``efSearch`` of a graph, ``nprobe`` of an inverted file."""
    exact: bool = False
    """Compare with every vector: slow, and the truth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStats:
    """What an index holds now. ``pending`` keys are searched exactly until they are frozen."""

    live: int
    deleted: int = 0
    pending: int = 0
    segments: int = 0
    bytes_on_disk: int = 0
    damage: str = ""
    """What is wrong with its files: it has to be built again. Empty while nothing is known."""
    details: Mapping[str, Any] = field(default_factory=dict)


class VectorIndex(Protocol):
    """A dense follower of the journal. Safe to search during ``apply``."""

    @property
    def applied_seq(self) -> int:
        """The last journal position that a search sees."""
        ...

    async def apply(self, batch: VectorBatch, *, seq: int) -> None:
        """Make ``batch`` visible. Does nothing when ``seq <= applied_seq``.

        Raises InvalidArgument for a wrong dimension or a vector that is not finite; then nothing of the
        batch is visible.
        """
        ...

    async def search(
        self,
        queries: Vectors,
        k: int,
        *,
        allow: BitMap64 | None = None,
        params: SearchParams | None = None,
    ) -> Neighbours:
        """The best ``k`` keys for each row of ``queries`` ``(n, dim)``, among ``allow`` when given."""
        ...

    async def checkpoint(self) -> int:
        """Make all that is applied durable; the ``seq`` from which a reopened index needs the journal."""
        ...

    def stats(self) -> IndexStats:
        """What the index holds now."""
        ...

    async def close(self) -> None:
        """Release files and threads. Does not checkpoint."""
        ...


class LexicalIndex(Protocol):
    """A BM25 follower of the journal. Safe to search during ``apply``."""

    @property
    def applied_seq(self) -> int:
        """The last journal position that a search sees."""
        ...

    async def apply(self, batch: TextBatch, *, seq: int) -> None:
        """Make ``batch`` visible. Does nothing when ``seq <= applied_seq``."""
        ...

    async def search(
        self, query: str, k: int, *, allow: BitMap64 | None = None, language: str | None = None
    ) -> Neighbours:
        """The best ``k`` keys for one query: arrays of shape ``(1, k)``. Any text is a valid query."""
        ...

    async def checkpoint(self) -> int:
        """Make all that is applied durable; the ``seq`` from which a reopened index needs the journal."""
        ...

    def stats(self) -> IndexStats:
        """What the index holds now."""
        ...

    async def close(self) -> None:
        """Release files and threads. Does not checkpoint."""
        ...


class TokenIndex(Protocol):
    """A follower of the journal that keeps passages' token vectors. Safe to ask during ``apply``."""

    @property
    def applied_seq(self) -> int:
        """The last journal position whose passages have scores."""
        ...

    async def apply(self, batch: TokenBatch, *, seq: int) -> None:
        """Make ``batch`` visible. Does nothing when ``seq <= applied_seq``.

        Raises InvalidArgument for a wrong dimension or a vector that is not finite; then nothing of the
        batch is visible.
        """
        ...

    async def max_sim(self, query: Vectors, ids: Keys, keys: Sequence[int]) -> NDArray[np.float32]:
        """Late interaction: for each key the mean, over the query's tokens, of the best cosine with any of
        its tokens: float32 ``(len(keys),)``, NaN for a key that is not there.

        ``query`` is float32 ``(length, dim)``, rows of length 1, and ``ids`` tell which tokens they are: one
        that few passages have weighs more (by its inverse document frequency, as in BM25). Raises
        InvalidArgument for another shape, CorruptIndex where stored vectors are damaged.
        """
        ...

    async def checkpoint(self) -> int:
        """Make all that is applied durable; the ``seq`` from which a reopened index needs the journal."""
        ...

    def stats(self) -> IndexStats:
        """What the index holds now."""
        ...

    async def close(self) -> None:
        """Release files and threads. Does not checkpoint."""
        ...


@runtime_checkable
class Compactable(Protocol):
    """An index made of pieces that can be merged on demand."""

    async def compact(self) -> None:
        """Merge everything that is applied now into as few pieces as the index likes, and wait for it."""
        ...


@runtime_checkable
class Multilingual(Protocol):
    """A lexical index that knows in which languages its texts are."""

    def language_of(self, query: str, language: str | None) -> str:
        """The language that ``query`` is most likely in, as ISO 639-1; "" where nobody can tell.

        ``language`` is the caller's own word, None where it does not say.
        """
        ...


@runtime_checkable
class Copyable(Protocol):
    """An index that another one can begin with."""

    async def copy_to(self, directory: Directory) -> None:
        """Make all that is applied now durable, here and in ``directory``, which is empty.

        An index that is opened there has applied what this one has. A copy that was broken off leaves
        nothing that an index would take for one. Raises BackendUnavailable when the disk fails.
        """
        ...


@runtime_checkable
class Explainable(Protocol):
    """A dense index that can tell how it looks for neighbours."""

    def explain(self, k: int, *, allow: BitMap64 | None = None, params: SearchParams | None = None) -> str:
        """How a search with these arguments is answered now, in words."""
        ...

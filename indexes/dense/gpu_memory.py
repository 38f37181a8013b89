"""What an index takes of a GPU's memory: planned before it is allocated, rather too much than too little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SCRATCH_BYTES: Final = 128 * 2**20
"""What FAISS keeps for its intermediate results, for each index that is on the GPU."""
_RESERVED_SHARE: Final = 0.1
"""Left to others, an embedding model for one, and to searches that need more than the scratch memory."""
_LEAST_RESERVED: Final = 512 * 2**20
_FLOAT: Final = 4
_ID: Final = 8
_ROW_ALIGNMENT: Final = 16
_LIST_OVERHEAD: Final = 1_024
"""Every inverted list has two allocations of its own, which are rounded up."""
_CODEWORDS: Final = 256
_GRAPHS_WHILE_BUILDING: Final = 3
"""Neighbours with their distances, the same reversed, and the graph that is pruned from both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """The memory of a GPU, in bytes."""

    free: int
    total: int

    def fits(self, needed: int) -> bool:
        """Whether an index of ``needed`` bytes leaves the reserve free."""
        reserved = max(_LEAST_RESERVED, int(_RESERVED_SHARE * self.total))
        return needed + SCRATCH_BYTES + reserved <= self.free


def flat_bytes(rows: int, dim: int) -> int:
    """Whole vectors and their norms."""
    return rows * (dim + 1) * _FLOAT


def ivf_bytes(rows: int, dim: int, *, lists: int, code_bytes: int) -> int:
    """Codes and ids in lists, the centroids, and the words of product codes."""
    centroids = lists * dim * _FLOAT
    words = _CODEWORDS * dim * _FLOAT
    return rows * (code_bytes + _ID) + centroids + words + lists * _LIST_OVERHEAD


def graph_bytes(rows: int, dim: int, *, degree: int) -> int:
    """Aligned vectors and ``degree`` neighbours of each."""
    aligned = -(-dim * _FLOAT // _ROW_ALIGNMENT) * _ROW_ALIGNMENT
    return rows * (aligned + degree * _FLOAT)


def graph_build_bytes(rows: int, dim: int, *, degree: int) -> int:
    """A graph while it is built from twice the neighbours, with vectors in half precision as well."""
    halves = rows * dim * _FLOAT // 2
    graphs = _GRAPHS_WHILE_BUILDING * rows * 2 * degree * 2 * _FLOAT
    return graph_bytes(rows, dim, degree=degree) + halves + graphs

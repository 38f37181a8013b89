"""Real vectors with unseen queries, and as many more like them as a benchmark wants.

There are real vectors for 50,000 rows. A row beyond them is a real vector moved by a real step: the
normalised ``x + y - z``, where ``x`` and ``z`` are any two real vectors and ``y`` is one of the 16 nearest of
``z``. So it lies as far from ``x`` as texts lie from texts like them, in a direction in which texts differ,
and keeps to the clusters of the real ones. Around unseen queries the intrinsic dimension (a
maximum-likelihood estimate from 20 neighbours) is 23 with the real 50,000 and 29 with a million; with blends
of neighbours, ``a x + (1 - a) y`` and noise, it was 42: the blends of one pair crowd together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.texts import CACHE, DIM, POOL, PROGRESS, embeddings, sentences

Vectors = NDArray[np.float32]

QUERIES: Final = 1_000
BLOCK: Final = 10_000
_NEIGHBOURS: Final = 16
_BLOCK_BYTES: Final = BLOCK * DIM * 4


def real(rows: int) -> tuple[Vectors, Vectors]:
    """The first ``rows`` real vectors ``(rows, 384)``, and those of ``QUERIES`` other texts; all unit."""
    texts, rows = sentences(POOL), min(rows, POOL - QUERIES)
    whole_blocks = -(-rows // QUERIES) * QUERIES
    return embeddings(texts[:whole_blocks])[:rows], embeddings(texts[-QUERIES:])


def many(rows: int) -> Path:
    """A file of at least ``rows`` unit vectors, float32 ``(rows, 384)``: the real ones, then more like them.

    It is kept for later runs, and grows; its first rows are the same on every machine with the same texts.
    """
    path = CACHE / "steps-1.f32"
    first = path.stat().st_size // _BLOCK_BYTES if path.exists() else 0
    if first * BLOCK < rows:
        _extend(path, first, -(-rows // BLOCK))
    return path


def read(path: Path, rows: int) -> Iterator[tuple[int, Vectors]]:
    """The first ``rows`` of a file, as blocks with their first row's number.

    Read, not mapped: pages of a mapping would count as the memory of whoever looks at them.
    """
    with path.open("rb") as file:
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            yield start, np.fromfile(file, dtype=np.float32, count=count * DIM).reshape(count, DIM)


def _extend(path: Path, first: int, last: int) -> None:
    """Append blocks ``first`` to ``last``; each depends on its number alone. Memory: the real vectors."""
    vectors, _ = real(POOL - QUERIES)
    faiss.omp_set_num_threads(1)
    _, near = faiss.knn(vectors, vectors, 1 + _NEIGHBOURS, metric=faiss.METRIC_INNER_PRODUCT)
    CACHE.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(first * _BLOCK_BYTES)  # a run that was broken off may have left a part of a block
        for number in track(range(first, last), description="Making vectors", console=PROGRESS):
            start = number * BLOCK
            block = vectors[start : start + BLOCK] if start < len(vectors) else _steps(vectors, near, number)
            block.tofile(file)


def _steps(vectors: Vectors, near: NDArray[np.int64], number: int) -> Vectors:
    chance = np.random.default_rng((1, number))
    start, origin = chance.integers(len(vectors), size=(2, BLOCK))
    target = near[origin, chance.integers(1, 1 + _NEIGHBOURS, size=BLOCK)]
    moved = vectors[start] + vectors[target] - vectors[origin]
    normal: Vectors = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return normal

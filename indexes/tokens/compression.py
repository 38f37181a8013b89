"""Token vectors to a few bytes each: tokens that say the same joined, fewer numbers, 8 bits a number. Pure.

Joining: Clavie, Chaffin and Adams 2024, "Reducing the Footprint of Multi-Vector Retrieval with Minimal
Performance Impact via Token Pooling", arXiv:2409.14683. Fewer numbers: a principal component analysis without
centring, since what has to survive are dot products. 8 bits: each vector with a scale of its own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from indexes.base import Vectors
from ragstone.errors import CorruptIndex

Codes = NDArray[np.int8]
Scales = NDArray[np.float32]

_HEADER: Final = struct.Struct("<IHH")
"""CRC-32 of what follows it, numbers a vector, vectors."""
_CRC_BYTES: Final = 4
_STEPS: Final = 127.0


class Packed(NamedTuple):
    """Some vectors as they are stored: ``codes`` int8 ``(n, width)``, each row times its float32 scale."""

    codes: Codes
    scales: Scales

    @property
    def width(self) -> int:
        """Numbers a vector."""
        return int(self.codes.shape[1])


def join(tokens: Vectors, share: float) -> Vectors:
    """At most ``share`` as many vectors of length 1: those most alike become their mean (Ward's method).

    ``tokens`` is float32 ``(n, dim)``, with n above 0.
    """
    wanted = max(1, round(len(tokens) * share))
    if wanted >= len(tokens):
        return tokens
    labels = fcluster(linkage(_distances(tokens), method="ward"), wanted, criterion="maxclust") - 1
    member = np.zeros((int(labels.max()) + 1, len(tokens)), np.float32)
    member[labels, np.arange(len(tokens))] = 1
    return unit(member @ tokens)


def _distances(tokens: Vectors) -> NDArray[np.float64]:
    """Of each pair, as ``linkage`` wants them; by products, which let other threads go on."""
    products = tokens @ tokens.T
    squares = np.diag(products)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0))
    pairs: NDArray[np.float64] = squareform(distances.astype(np.float64), checks=False)
    return pairs


def fit_projection(products: Vectors, width: int) -> Vectors:
    """Directions float32 ``(dim, width)`` that keep most of the dot products of some tokens ``(n, dim)``.

    ``products`` is ``tokens.T @ tokens``.
    """
    _, directions = np.linalg.eigh(products.astype(np.float64))
    # Ascending: the last ones carry most.
    projection: Vectors = np.ascontiguousarray(directions[:, : -width - 1 : -1], dtype=np.float32)
    return projection


def narrow(data: bytes, projection: Vectors) -> bytes:
    """What ``pack`` has packed, in the directions of ``projection`` ``(dim, width)`` alone, of length 1."""
    codes, scales = unpack(data)
    vectors: Vectors = np.multiply(codes, scales[:, None], dtype=np.float32)
    return pack(unit(vectors @ projection))


def pack(tokens: Vectors) -> bytes:
    """``tokens`` float32 ``(n, width)``, finite, as bytes that ``unpack`` reads."""
    scales = np.abs(tokens).max(axis=1) / _STEPS
    codes = np.rint(tokens / np.maximum(scales, np.finfo(np.float32).tiny)[:, None]).astype(np.int8)
    header = _HEADER.pack(0, tokens.shape[1], len(tokens))
    body: bytes = header[_CRC_BYTES:] + scales.astype("<f4").tobytes() + codes.tobytes()
    return struct.pack("<I", zlib.crc32(body)) + body


def unpack(data: bytes) -> Packed:
    """What ``pack`` has packed. Raises CorruptIndex where it is damaged."""
    if len(data) < _HEADER.size or zlib.crc32(data[_CRC_BYTES:]) != _HEADER.unpack_from(data)[0]:
        raise CorruptIndex("the token vectors of a passage fail their checksum")
    _, width, count = _HEADER.unpack_from(data)
    scales = np.frombuffer(data, "<f4", count, _HEADER.size).astype(np.float32, copy=False)
    codes = np.frombuffer(data, np.int8, count * width, _HEADER.size + 4 * count)
    return Packed(codes.reshape(count, width), scales)


def max_sim(query: Vectors, weights: Scales, passages: Sequence[Packed]) -> NDArray[np.float32]:
    """The weighted mean, over the rows of ``query``, of the best dot product with any vector of each passage.

    ``query`` is float32 ``(t, width)`` of the passages' ``width``, ``weights`` ``(t,)`` with a sum of 1; the
    result float32 ``(len(passages),)``.
    """
    if not passages:
        return np.empty(0, np.float32)
    counts = np.array([len(passage.scales) for passage in passages])
    codes = np.concatenate([passage.codes for passage in passages]).astype(np.float32)
    likeness = query @ codes.T
    likeness *= np.concatenate([passage.scales for passage in passages])
    best = np.maximum.reduceat(likeness, np.cumsum(counts) - counts, axis=1)
    scores: NDArray[np.float32] = weights @ best
    return scores


def unit(vectors: Vectors) -> Vectors:
    """``vectors`` with rows of length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normal: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return normal

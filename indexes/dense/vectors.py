"""Vectors on their way into an index: checked, then brought into the form that the metric wants."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexes.base import Keys, Metric, VectorBatch, Vectors
from ragstone.errors import InvalidArgument

_LARGEST_NORM: Final = 1e18
"""So that no inner product and no squared distance of two accepted vectors overflows float32."""


def prepare_queries(queries: Vectors, *, dim: int, metric: Metric) -> Vectors:
    """Queries ``(n, dim)`` as an index compares them: float32, contiguous, of unit length for cosine.

    Raises InvalidArgument naming the first wrong row as ``queries[i]``.
    """
    return _prepare(queries, dim=dim, metric=metric, field="queries")


def prepare_batch(batch: VectorBatch, *, dim: int, metric: Metric) -> VectorBatch:
    """A batch as an index stores it; ``deleted`` may repeat, ``keys`` may not.

    Raises InvalidArgument for a wrong shape, a negative or repeated key, or a vector that is not finite.
    """
    keys = _prepare_keys(batch.keys, "keys")
    deleted = _prepare_keys(batch.deleted, "deleted")
    vectors = _prepare(batch.vectors, dim=dim, metric=metric, field="vectors")
    if len(vectors) != len(keys):
        raise InvalidArgument.at("vectors", f"{len(vectors)} vectors for {len(keys)} keys")
    if len(np.unique(keys)) != len(keys):
        raise InvalidArgument.at("keys", "a key stands twice in one batch")
    return VectorBatch(keys, vectors, deleted)


def _prepare_keys(keys: Keys, field: str) -> Keys:
    array = np.ascontiguousarray(keys)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidArgument.at(field, "keys are a row of integers")
    array = array.astype(np.int64, copy=False)
    if array.size and int(array.min()) < 0:
        raise InvalidArgument.at(field, "a key is negative")
    return array


def _prepare(vectors: Vectors, *, dim: int, metric: Metric, field: str) -> Vectors:
    array: Vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.size == 0 and array.shape[:1] in ((), (0,)):
        return np.empty((0, dim), dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dim:
        raise InvalidArgument.at(field, f"shape {array.shape}, but the index has dimension {dim}")
    norms: NDArray[np.float64] = np.sqrt(np.einsum("nd,nd->n", array, array, dtype=np.float64))
    # A NaN anywhere makes its norm NaN, and no comparison with NaN holds.
    _require(norms <= _LARGEST_NORM, field, "the vector is not finite, or too long")
    if metric is Metric.COSINE:
        _require(norms > 0, field, "the vector is zero, so it has no cosine")
        array = (array / norms[:, None]).astype(np.float32)
    return array


def _require(right: NDArray[np.bool_], field: str, description: str) -> None:
    if not right.all():
        raise InvalidArgument.at(f"{field}[{int(np.argmin(right))}]", description)

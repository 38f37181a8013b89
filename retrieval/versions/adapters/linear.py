"""Linear adapters, in closed form.

Sources: Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem"; Schönemann and
Carroll 1970 for the centred one; Izenman 1975, "Reduced-rank regression for the multivariate linear model";
Allen 1974 for the left-out error (PRESS). Drift-Adapter (EMNLP 2025) is where the first and the low-rank
affine map were proposed for this.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from embedders.base import Space, Vectors
from retrieval.versions.adapters.adapter import Adapter, linear

Matrix = NDArray[np.float64]

RANK: Final = 256
_PENALTIES: Final = np.logspace(-5, 0, 11)
"""Ridge penalties that are tried, as shares of the largest squared singular value."""


def procrustes(new: Vectors, old: Vectors, new_space: Space, old_space: Space) -> Adapter:
    """The rotation (and scale) nearest to taking ``new`` to ``old``; between dimensions, a rotation into or
    onto the smaller one's.

    It keeps the new space's own geometry, so that common directions of the old space, which say nothing
    about a text, are not learned.
    """
    zero = np.zeros(new_space.dim)
    return _rotated("procrustes", new.astype(np.float64), old.astype(np.float64), zero, new_space, old_space)


def centred_procrustes(new: Vectors, old: Vectors, new_space: Space, old_space: Space) -> Adapter:
    """``procrustes`` of what sets texts apart: both sides less their means."""
    x, y = new.astype(np.float64), old.astype(np.float64)
    return _rotated("centred_procrustes", x, y, x.mean(axis=0), new_space, old_space)


def _rotated(kind: str, x: Matrix, y: Matrix, shift: Matrix, new_space: Space, old_space: Space) -> Adapter:
    centre = y.mean(axis=0) if shift.any() else np.zeros(old_space.dim)
    x, y = x - shift, y - centre
    left, strengths, right = np.linalg.svd(x.T @ y, full_matrices=False)
    scale = strengths.sum() / max(float(np.vdot(x, x)), np.finfo(np.float64).tiny)
    # In unit vectors the old mean is left out: added to every query, it would only favour the passages
    # that lie near the mean. Elsewhere distances need it.
    offset = np.zeros(old_space.dim) if old_space.normalised else centre
    return linear(
        kind, left * scale, right, shift=shift, offset=offset, new_space=new_space, old_space=old_space
    )


def low_rank_affine(
    new: Vectors, old: Vectors, new_space: Space, old_space: Space, *, rank: int = RANK
) -> Adapter:
    """The affine map of least squared error, with a ridge penalty, through at most ``rank`` dimensions.

    The penalty is the one with the least error on rows left out one at a time, which has a closed form.
    """
    x, y = new.astype(np.float64), old.astype(np.float64)
    shift, offset = x.mean(axis=0), y.mean(axis=0)
    basis, sizes, directions = np.linalg.svd(x - shift, full_matrices=False)
    keep = sizes > sizes[0] * np.finfo(np.float32).eps
    basis, sizes, directions = basis[:, keep], sizes[keep], directions[keep]
    targets = basis.T @ (y - offset)
    shrink = _shrinkage(basis, sizes, targets, y - offset)
    fitted = shrink[:, None] * targets
    # ``basis`` is orthonormal, so the fitted rows and ``fitted`` have the same right singular vectors.
    axes = np.linalg.svd(fitted, full_matrices=False)[2][:rank]
    left = directions.T @ (fitted / sizes[:, None]) @ axes.T
    return linear(
        "low_rank_affine", left, axes, shift=shift, offset=offset, new_space=new_space, old_space=old_space
    )


def _shrinkage(basis: Matrix, sizes: Matrix, targets: Matrix, y: Matrix) -> Matrix:
    """How much of each direction ``(rank,)`` is kept, under the penalty with the least left-out error."""
    candidates = [sizes**2 / (sizes**2 + share * sizes[0] ** 2) for share in _PENALTIES]
    return min(candidates, key=lambda shrink: _left_out_error(basis, shrink, targets, y))


def _left_out_error(basis: Matrix, shrink: Matrix, targets: Matrix, y: Matrix) -> float:
    residual = y - basis @ (shrink[:, None] * targets)
    # The mean was estimated too, from the same rows: 1 / n.
    leverage = basis**2 @ shrink + 1 / len(basis)
    return float(np.mean((residual / np.maximum(1 - leverage, 1e-6)[:, None]) ** 2))

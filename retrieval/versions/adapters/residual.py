"""The residual adapter: a rotation, and a small network that corrects it (Drift-Adapter, EMNLP 2025)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embedders.base import Space, Vectors
from retrieval.versions.adapters.adapter import Adapter, unit
from retrieval.versions.adapters.linear import procrustes

Rows = NDArray[np.int64]
Weights = dict[str, Vectors]
"""``hidden``, ``bias``, ``out`` and ``offset``, as in an ``Adapter``."""

WIDTH: Final = 256
_EPOCHS: Final = 60
_PATIENCE: Final = 8
_BATCH: Final = 256
_RATE: Final = 1e-3
_DECAY: Final = 1e-2
_MOMENTS: Final = (0.9, 0.999)
_STOPPING: Final = 8
"""One row in so many is not learned from, and says when to stop."""


def residual_mlp(new: Vectors, old: Vectors, new_space: Space, old_space: Space, *, seed: int = 0) -> Adapter:
    """``procrustes`` plus ``WIDTH`` hidden units that learn the old vectors' directions, by Adam.

    The same ``seed`` gives the same adapter.
    """
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(new))
    stop, learn = np.split(order, [len(order) // _STOPPING])
    start = procrustes(new[learn], old[learn], new_space, old_space)
    sample = _Sample(new, np.dot(new @ start.left, start.right), unit(old))
    weights = {
        "hidden": chance.normal(0, new_space.dim**-0.5, (new_space.dim, WIDTH)).astype(np.float32),
        "bias": np.zeros(WIDTH, np.float32),
        # Zeros: learning begins at the rotation, and can end no worse on the rows that stop it.
        "out": np.zeros((WIDTH, old_space.dim), np.float32),
        "offset": np.zeros(old_space.dim, np.float32),
    }
    learned: Any = _train(sample, weights, learn, stop, chance)
    return replace(start, kind="residual_mlp", **learned)


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """The texts in both spaces, and how far given weights miss them."""

    new: Vectors
    rotated: Vectors
    old: Vectors
    """Unit rows."""

    def loss(self, weights: Weights, rows: Rows) -> float:
        """The mean of 1 - cosine."""
        _, _, mapped = self._forward(weights, rows)
        return float(1 - (mapped * self.old[rows]).sum(axis=1).mean())

    def gradients(self, weights: Weights, rows: Rows) -> Weights:
        """Those of ``loss``."""
        active, lengths, mapped = self._forward(weights, rows)
        wanted = self.old[rows]
        # Only what is across a row's direction turns it: the gradient through its scaling to length 1.
        along = (mapped * wanted).sum(axis=1, keepdims=True) * mapped
        to_mapped = (along - wanted) / (lengths * len(rows))
        to_hidden = (to_mapped @ weights["out"].T) * (1 - active**2)
        return {
            "hidden": self.new[rows].T @ to_hidden,
            "bias": to_hidden.sum(axis=0),
            "out": active.T @ to_mapped,
            "offset": to_mapped.sum(axis=0),
        }

    def _forward(self, weights: Weights, rows: Rows) -> tuple[Vectors, Vectors, Vectors]:
        active = np.tanh(self.new[rows] @ weights["hidden"] + weights["bias"])
        mapped = self.rotated[rows] + active @ weights["out"] + weights["offset"]
        lengths = np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), 1e-9)
        return active, lengths, mapped / lengths


def _train(
    sample: _Sample, weights: Weights, learn: Rows, stop: Rows, chance: np.random.Generator
) -> Weights:
    """The weights with the least loss on ``stop``, of those at the start and after each epoch."""
    adam = _Adam(weights)
    best, least, waited = weights, sample.loss(weights, stop), 0
    for _ in range(_EPOCHS):
        for rows in _batches(chance.permutation(learn)):
            weights = adam.step(weights, sample.gradients(weights, rows))
        loss = sample.loss(weights, stop)
        best, least, waited = (weights, loss, 0) if loss < least else (best, least, waited + 1)
        if waited == _PATIENCE:
            break
    return best


def _batches(order: Rows) -> list[Rows]:
    """Parts of about ``_BATCH`` rows, all of nearly the same size."""
    return np.array_split(order, max(1, round(len(order) / _BATCH)))


class _Adam:
    """Adam (Kingma and Ba 2015) with decoupled decay (Loshchilov and Hutter 2019)."""

    def __init__(self, weights: Weights) -> None:
        self._mean = {name: np.zeros_like(array) for name, array in weights.items()}
        self._square = {name: np.zeros_like(array) for name, array in weights.items()}
        self._steps = 0

    def step(self, weights: Weights, gradients: Weights) -> Weights:
        """The weights after one step down ``gradients``."""
        self._steps += 1
        return {name: self._moved(name, weights[name], gradient) for name, gradient in gradients.items()}

    def _moved(self, name: str, array: Vectors, gradient: Vectors) -> Vectors:
        first, second = _MOMENTS
        self._mean[name] = first * self._mean[name] + (1 - first) * gradient
        self._square[name] = second * self._square[name] + (1 - second) * gradient**2
        mean = self._mean[name] / (1 - first**self._steps)
        root = np.sqrt(self._square[name] / (1 - second**self._steps))
        moved: Vectors = array * (1 - _RATE * _DECAY) - _RATE * mean / (root + 1e-8)
        return moved.astype(np.float32)

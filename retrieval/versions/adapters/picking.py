"""Fitting adapters, measuring them on texts that they have not seen, and picking the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embedders.base import Space, Vectors
from ragstone.errors import InvalidArgument
from retrieval.versions.adapters.adapter import MIN_ROWS, Adapter, check_sample, unit
from retrieval.versions.adapters.linear import centred_procrustes, low_rank_affine, procrustes
from retrieval.versions.adapters.residual import residual_mlp

K: Final = 10
MIN_SAMPLE: Final = 2 * MIN_ROWS
_HELD_OUT: Final = 5
"""One text in so many is held out."""

_Fit = Callable[[Vectors, Vectors, Space, Space], Adapter]

KINDS: Final = ("procrustes", "centred_procrustes", "low_rank_affine", "residual_mlp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What an adapter did on ``rows`` held-out texts, searched among the others of the sample."""

    kind: str
    rows: int
    recall: float
    """Recall@10: the share of the ten nearest in the new space, which a full re-embedding would return,
    that the adapted vectors find among the old ones. This is what a gate should look at."""
    old_recall: float
    """The same, of the ten nearest in the old space: how well the old model is copied, flaws included."""
    cosine: float
    """Between adapted and true old vectors, the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """The best adapter, what it was measured at, and what the others were."""

    adapter: Adapter
    measurement: Measurement
    others: tuple[Measurement, ...]


def fit(
    kind: str, new: Vectors, old: Vectors, *, new_space: Space, old_space: Space, seed: int = 0
) -> Adapter:
    """Learn the adapter of ``kind`` from ``n`` texts in both spaces: ``(n, new dim)`` and ``(n, old dim)``.

    Blocks: seconds for 2,000 texts. Raises InvalidArgument naming ``kind``, ``new`` or ``old``: an unknown
    kind, other shapes than the spaces', fewer than ``MIN_ROWS`` rows, values that are not finite.
    """
    fits: Mapping[str, _Fit] = {
        "procrustes": procrustes,
        "centred_procrustes": centred_procrustes,
        "low_rank_affine": low_rank_affine,
        "residual_mlp": partial(residual_mlp, seed=seed),
    }
    if kind not in fits:
        raise InvalidArgument.at("kind", f"{kind!r} is not one of {', '.join(fits)}")
    check_sample(new, old, new_space, old_space, least=MIN_ROWS)
    return fits[kind](np.asarray(new, np.float32), np.asarray(old, np.float32), new_space, old_space)


def pick(new: Vectors, old: Vectors, *, new_space: Space, old_space: Space, seed: int = 0) -> Picked:
    """Fit every kind on four fifths of the sample, measure each on the rest, and take the best recall.

    The adapter is the one that was measured, not one fitted again on all rows. Blocks, and raises, as
    ``fit`` does; at least ``MIN_SAMPLE`` rows are needed.
    """
    check_sample(new, old, new_space, old_space, least=MIN_SAMPLE)
    order = np.random.default_rng(seed).permutation(len(new))
    held, train = np.split(order, [len(order) // _HELD_OUT])
    adapters = {
        kind: fit(kind, new[train], old[train], new_space=new_space, old_space=old_space, seed=seed)
        for kind in KINDS
    }
    measured = [measure(adapter, new, old, held=held, train=train) for adapter in adapters.values()]
    # Equal recalls: the kind that stands first in KINDS, the simplest.
    best = max(measured, key=lambda measurement: measurement.recall)
    others = tuple(measurement for measurement in measured if measurement is not best)
    return Picked(adapter=adapters[best.kind], measurement=best, others=others)


def measure(
    adapter: Adapter, new: Vectors, old: Vectors, *, held: NDArray[np.int64], train: NDArray[np.int64]
) -> Measurement:
    """Search the rows ``train`` for the rows ``held``, which the adapter must not have seen."""
    adapted = adapter.apply(new[held])
    found = _nearest(adapted, old[train])
    return Measurement(
        kind=adapter.kind,
        rows=len(held),
        recall=_shared(found, _nearest(new[held], new[train])),
        old_recall=_shared(found, _nearest(old[held], old[train])),
        cosine=float((unit(adapted) * unit(old[held])).sum(axis=1).mean()),
    )


def _nearest(queries: Vectors, rows: Vectors) -> NDArray[np.int64]:
    """The ``K`` nearest of ``rows`` by cosine, ``(len(queries), K)``."""
    scores = unit(queries) @ unit(rows).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :K]


def _shared(found: NDArray[np.int64], wanted: NDArray[np.int64]) -> float:
    return float((found[:, :, None] == wanted[:, None, :]).any(axis=2).mean())

"""Fusion: the legs' rankings become one. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import TypeAlias

from ragstone.types import LegScore
from retrieval.versions.recipe import FusionSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """One leg's candidates, best first."""

    leg: str
    keys: Sequence[int]
    scores: Sequence[float]


Fused: TypeAlias = tuple[int, float]
"""A candidate's key and its score in the fused ranking."""


def fuse(rankings: Sequence[Ranking], spec: FusionSpec) -> list[Fused]:
    """All candidates, best first; equal scores order by key, so the order of the legs never shows.

    One ranking keeps its own scores. ``fsum`` makes a sum independent of its order of addition.
    """
    if len(rankings) == 1:
        return list(zip(rankings[0].keys, rankings[0].scores, strict=True))
    parts: defaultdict[int, list[float]] = defaultdict(list)
    for ranking in rankings:
        for key, contribution in zip(ranking.keys, _contributions(ranking, spec), strict=True):
            parts[key].append(contribution)
    fused = [(key, fsum(contributions)) for key, contributions in parts.items()]
    fused.sort(key=lambda candidate: (-candidate[1], candidate[0]))
    return fused


def explain(
    rankings: Sequence[Ranking], spec: FusionSpec, keys: Iterable[int]
) -> dict[int, tuple[LegScore, ...]]:
    """How the legs saw each of ``keys``: what those that found it added to its score in ``fuse``."""
    seen: dict[int, list[LegScore]] = {key: [] for key in keys}
    for ranking in rankings:
        contributions = ranking.scores if len(rankings) == 1 else _contributions(ranking, spec)
        candidates = zip(ranking.keys, ranking.scores, contributions, strict=True)
        for rank, (key, score, contribution) in enumerate(candidates, start=1):
            if key in seen:
                leg = LegScore(leg=ranking.leg, rank=rank, score=score, contribution=contribution)
                seen[key].append(leg)
    return {key: tuple(legs) for key, legs in seen.items()}


def _contributions(ranking: Ranking, spec: FusionSpec) -> list[float]:
    weight = spec.dense_weight if ranking.leg == "dense" else spec.lexical_weight
    values = reciprocal_ranks(len(ranking.keys), spec.k) if spec.kind == "rrf" else min_max(ranking.scores)
    return [weight * value for value in values]


def reciprocal_ranks(n: int, k: int) -> list[float]:
    """``1 / (k + rank)`` for ranks 1..n: reciprocal rank fusion (Cormack, Clarke, Buettcher, SIGIR 2009)."""
    return [1 / (k + rank) for rank in range(1, n + 1)]


def min_max(scores: Sequence[float]) -> list[float]:
    """Scores mapped linearly onto 0..1; equal scores all become 1, for a lone hit is not a bad one."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    if high == low:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]

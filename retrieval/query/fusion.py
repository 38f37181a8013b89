"""Fusion: the legs' rankings become one. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from ragstone.types import LegScore
from retrieval.versions.recipe import FusionSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """One leg's candidates, best first."""

    leg: str
    keys: Sequence[int]
    scores: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """One candidate of the fused ranking, with what each leg that saw it added."""

    key: int
    score: float
    legs: tuple[LegScore, ...]


def fuse(rankings: Sequence[Ranking], spec: FusionSpec) -> list[Fused]:
    """All candidates, best first; equal scores order by key, so the order of the legs never shows.

    One ranking keeps its own scores. ``fsum`` makes a sum independent of its order of addition.
    """
    if len(rankings) == 1:
        return _alone(rankings[0])
    parts: defaultdict[int, list[LegScore]] = defaultdict(list)
    for ranking in rankings:
        for seen in _contributions(ranking, spec):
            parts[seen[0]].append(seen[1])
    fused = [
        Fused(key=key, score=fsum(leg.contribution for leg in legs), legs=tuple(legs))
        for key, legs in parts.items()
    ]
    fused.sort(key=lambda f: (-f.score, f.key))
    return fused


def _alone(ranking: Ranking) -> list[Fused]:
    return [
        Fused(
            key=key,
            score=score,
            legs=(LegScore(leg=ranking.leg, rank=rank, score=score, contribution=score),),
        )
        for rank, (key, score) in enumerate(zip(ranking.keys, ranking.scores, strict=True), start=1)
    ]


def _contributions(ranking: Ranking, spec: FusionSpec) -> list[tuple[int, LegScore]]:
    weight = spec.dense_weight if ranking.leg == "dense" else spec.lexical_weight
    values = reciprocal_ranks(len(ranking.keys), spec.k) if spec.kind == "rrf" else min_max(ranking.scores)
    return [
        (key, LegScore(leg=ranking.leg, rank=rank, score=score, contribution=weight * value))
        for rank, (key, score, value) in enumerate(
            zip(ranking.keys, ranking.scores, values, strict=True), start=1
        )
    ]


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

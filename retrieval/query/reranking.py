"""Reranking: a second opinion on the best of the fused candidates, blended with the first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ragstone.types import LegScore
from retrieval.query.fusion import Fused, min_max
from retrieval.telemetry import LEG_RERANK


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """Candidates, best first: those that were scored, then the others as fusion has them.

    ``legs`` tells how the reranker saw those that it scored.
    """

    candidates: Sequence[Fused]
    legs: Mapping[int, LegScore]
    weight: float

    def explain(self, key: int, fused: Sequence[LegScore]) -> tuple[LegScore, ...]:
        """What a candidate's score is made of; ``fused`` is what its fused score is made of."""
        own = self.legs.get(key)
        if own is None:
            return tuple(fused)
        share = 1 - self.weight
        return (*(replace(leg, contribution=share * leg.contribution) for leg in fused), own)


def unranked(fused: Sequence[Fused]) -> Reranked:
    """The candidates as fusion has them."""
    return Reranked(candidates=fused, legs={}, weight=0.0)


def blend(fused: Sequence[Fused], scores: Mapping[int, float], *, weight: float) -> Reranked:
    """The candidates that have a reranker's score by both scores, in front of those that have none.

    The order is that of ``(1 - weight) * min_max(fused) + weight * min_max(scores)``. The scores shown are on
    the scale of the fused ones, where the reranker's are mapped to: so they never rise along the result, and
    mean the same whether reranked or not. Equal ones order by the reranker's score, then by key.
    """
    scored = [(key, score) for key, score in fused if key in scores]
    if not scored:
        return unranked(fused)
    low, high = min(score for _, score in scored), max(score for _, score in scored)
    own = {key: scores[key] for key, _ in scored}
    shares = {
        key: weight * (low + (high - low) * value)
        for key, value in zip(own, min_max(list(own.values())), strict=True)
    }
    blended = [(key, (1 - weight) * score + shares[key]) for key, score in scored]
    blended.sort(key=lambda candidate: (-candidate[1], -own[candidate[0]], candidate[0]))
    ranks = {key: rank for rank, key in enumerate(sorted(own, key=lambda key: (-own[key], key)), start=1)}
    legs = {
        key: LegScore(leg=LEG_RERANK, rank=ranks[key], score=own[key], contribution=shares[key])
        for key in own
    }
    rest = [candidate for candidate in fused if candidate[0] not in scores]
    return Reranked(candidates=[*blended, *rest], legs=legs, weight=weight)

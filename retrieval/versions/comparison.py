"""How alike two rankings are, and which is the better one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import ir_measures
import numpy as np
from ir_measures import nDCG
from scipy.stats import bootstrap

from ragstone.types import Hit, Interval

K: Final = 10
_PERSISTENCE: Final = 0.9
"""Of a reader who goes on to the next rank: the first ten ranks have 86% of the weight then."""
_RESAMPLES: Final = 10_000


def documents(hits: Sequence[Hit]) -> tuple[str, ...]:
    """The documents of a ranking, each where its best chunk is: versions may cut them differently."""
    return tuple(dict.fromkeys(hit.document_id for hit in hits))


def overlap(a: Sequence[str], b: Sequence[str], k: int = K) -> float:
    """The share of the first ``k`` that two rankings have in common; two empty ones have all."""
    first, second = set(a[:k]), set(b[:k])
    longer = max(len(first), len(second))
    return len(first & second) / longer if longer else 1.0


def rank_biased_overlap(a: Sequence[str], b: Sequence[str], p: float = _PERSISTENCE) -> float:
    """Rank-biased overlap of two rankings without repeats, 0 to 1, extrapolated from what is seen.

    RBO_ext of Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", TOIS 2010, eq. 32.
    """
    short, long = sorted((a, b), key=len)
    if not long:
        return 1.0
    if not short:
        return 0.0
    seen_short: set[str] = set()
    seen_long: set[str] = set()
    shared = at_end_of_short = 0.0
    total = 0.0
    for depth, item in enumerate(long, start=1):
        if depth <= len(short):
            other = short[depth - 1]
            shared += (item == other) + (item in seen_short) * (item != other)
            shared += (other in seen_long) * (item != other)
            seen_short.add(other)
            at_end_of_short = shared
        else:
            shared += item in seen_short
            total += at_end_of_short * (depth - len(short)) / (len(short) * depth) * p**depth
        seen_long.add(item)
        total += shared / depth * p**depth
    tail = (shared - at_end_of_short) / len(long) + at_end_of_short / len(short)
    return min(1.0, (1 - p) / p * total + tail * p ** len(long))


def ndcg(ranking: Sequence[str], relevant: Mapping[str, int]) -> float:
    """nDCG@10 of one ranking (Jarvelin and Kekalainen 2002, as trec_eval computes it)."""
    qrels = {"q": dict(relevant)}
    run = {"q": {document: float(-rank) for rank, document in enumerate(ranking)}}
    return float(ir_measures.calc_aggregate([nDCG @ K], qrels, run)[nDCG @ K])


def paired_bootstrap(differences: Sequence[float], *, seed: int = 0) -> Interval:
    """The mean of paired differences with its percentile bootstrap interval (Efron and Tibshirani 1993).

    Deterministic for a ``seed``. Without variation, or with a single pair, the interval is the mean.
    """
    values = np.asarray(differences, np.float64)
    mean = float(values.mean()) if len(values) else 0.0
    if len(values) < 2 or np.ptp(values) == 0:
        return Interval(mean=mean, low=mean, high=mean)
    interval = bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(mean=mean, low=float(interval.low), high=float(interval.high))

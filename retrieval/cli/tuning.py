"""Tuning: which settings of fusion and reranking answer judged queries best. Pure.

Each leg is asked once for as many candidates as any setting takes; what a setting would answer follows from
those by the very functions that a search fuses and blends with. A document ranks where its best chunk does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragstone.types import Fusion, Interval, Query, Recipe, Rerank, SearchResult, Version
from retrieval.cli import beir
from retrieval.query.fusion import Fused, Ranking, fuse
from retrieval.query.reranking import blend
from retrieval.telemetry import LEG_DENSE, LEG_LEXICAL, LEG_RERANK
from retrieval.versions.comparison import paired_bootstrap
from retrieval.versions.recipe import LATE_INTERACTION, NONE, FusionSpec, RerankerSpec

METRIC: Final = "ndcg@10"
TOP: Final = 10
"""Documents that the metric looks at."""
HITS: Final = 50
"""Chunks looked at to rank ``TOP`` documents."""
LEAST_GAIN: Final = 0.002
"""Of nDCG@10: what gains less is not worth a setting that is not the default."""

WEIGHTS: Final = tuple(step / 10 for step in range(11))
"""Of the dense leg; the lexical one has the rest."""
RRF_WEIGHTS: Final = (0.3, 0.5, 0.7)
RRF_KS: Final = (10, 30, 60, 100)
DEPTHS: Final = (50, 100, 200)
RERANK_DEPTHS: Final = (20, 50, 100)
RERANK_WEIGHTS: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_ROUNDS: Final = 2
"""What fuses best may change once a reranker follows; so all is looked at twice."""

Values: TypeAlias = NDArray[np.float64]
"""nDCG@10 of each query, ``(n,)``."""
Part = Literal["fusion", "depth", "reranker", "version"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranking:
    """How far and how much the version's reranker has a say."""

    depth: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """All that is chosen: a version, how its legs are fused, and how that is reranked. Without more, the
    default hybrid search."""

    version: str
    fusion: FusionSpec = field(default_factory=FusionSpec)
    rerank: Reranking | None = None

    def query(self) -> Query:
        """A query that asks for it, but for its text."""
        spec = self.fusion
        fusion = Fusion(
            kind=spec.kind, k=spec.k, dense_weight=spec.dense_weight, lexical_weight=spec.lexical_weight
        )
        rerank = self.rerank
        asked = Rerank(off=True) if rerank is None else Rerank(depth=rerank.depth, weight=rerank.weight)
        return Query(k=HITS, version=self.version, fusion=fusion, depth=spec.depth, rerank=asked)

    def told(self) -> str:
        """The setting in words, but for its version."""
        spec, rerank = self.fusion, self.rerank
        fusion = f"rrf ({spec.k})" if spec.kind == "rrf" else "weighted"
        legs = f"dense {spec.dense_weight:g}, lexical {spec.lexical_weight:g}, depth {spec.depth}"
        after = "" if rerank is None else f"; rerank {rerank.depth}, weight {rerank.weight:g}"
        return f"{fusion}, {legs}{after}"


def setting_of(version: Version) -> Setting:
    """How a version answers those who ask for nothing else."""
    spec = RerankerSpec.model_validate(dict(version.recipe.reranker))
    rerank = None if spec.kind == NONE else Reranking(depth=spec.depth, weight=spec.weight)
    fusion = FusionSpec.model_validate(dict(version.recipe.fusion))
    return Setting(version=version.name, fusion=fusion, rerank=rerank)


def recipe_of(version: Version, setting: Setting) -> Recipe:
    """The recipe of the setting's version, with the setting in its place."""
    fusion, rerank, recipe = setting.fusion.model_dump(mode="json"), setting.rerank, version.recipe
    if rerank is not None:
        reranker = {**recipe.reranker, "depth": rerank.depth, "weight": rerank.weight}
        return replace(recipe, fusion=fusion, reranker=reranker)
    # Token vectors are kept for this reranker alone.
    kept = {"kind": NONE} if recipe.reranker.get("kind") == LATE_INTERACTION else recipe.tokens
    return replace(recipe, fusion=fusion, reranker={"kind": NONE}, tokens=kept)


# -- what was seen ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What one version's legs and its reranker made of one query.

    Chunks are numbered in the order of their ids: so equal scores order by id, where the server orders them
    by the age of the chunk.
    """

    legs: Sequence[Ranking]
    reranked: Mapping[int, float]
    documents: Sequence[str]
    """The document of each chunk, by its number."""

    def fused(self, spec: FusionSpec) -> list[Fused]:
        """The candidates that ``spec`` takes, fused by it."""
        return fuse(
            [
                Ranking(leg=leg.leg, keys=leg.keys[: spec.depth], scores=leg.scores[: spec.depth])
                for leg in self.legs
            ],
            spec,
        )

    def ranked(self, fused: Sequence[Fused], rerank: Reranking | None) -> list[str]:
        """The documents that a search would find for it, best first."""
        if rerank is not None:
            window = [key for key, _ in fused[: rerank.depth]]
            scores = {key: self.reranked[key] for key in window if key in self.reranked}
            fused = blend(fused, scores, weight=rerank.weight).candidates
        return list(dict.fromkeys(self.documents[key] for key, _ in fused[:HITS]))[:TOP]


def candidates_of(dense: SearchResult, lexical: SearchResult) -> Candidates:
    """What the explained answers of the two legs, each asked alone, tell of a query."""
    hits = {hit.chunk_id: hit for result in (dense, lexical) for hit in result.hits}
    keys = {chunk_id: key for key, chunk_id in enumerate(sorted(hits))}
    found: dict[str, dict[int, tuple[int, float]]] = {LEG_LEXICAL: {}, LEG_DENSE: {}, LEG_RERANK: {}}
    for result in (dense, lexical):
        for hit in result.hits:
            for leg in hit.legs:
                found[leg.leg][keys[hit.chunk_id]] = (leg.rank, leg.score)
    legs = []
    for name in (LEG_LEXICAL, LEG_DENSE):
        best_first = sorted(found[name], key=lambda key: found[name][key])
        scores = [found[name][key][1] for key in best_first]
        legs.append(Ranking(leg=name, keys=best_first, scores=scores))
    return Candidates(
        legs=legs,
        reranked={key: score for key, (_, score) in found[LEG_RERANK].items()},
        documents=[hits[chunk_id].document_id for chunk_id in keys],
    )


class Asked:
    """Judged queries that were asked once, of one version."""

    def __init__(self, version: str, candidates: Mapping[str, Candidates], qrels: beir.Qrels) -> None:
        self.version = version
        self._candidates = candidates
        self._qrels = {qid: qrels[qid] for qid in candidates}
        self._fused: tuple[FusionSpec, dict[str, list[Fused]]] | None = None

    def ndcg(self, setting: Setting) -> Values:
        """nDCG@10 of each query, in the order of the queries."""
        fused = self._fuse(setting.fusion)
        rankings = {
            qid: candidates.ranked(fused[qid], setting.rerank) for qid, candidates in self._candidates.items()
        }
        return ndcg(rankings, self._qrels)

    def _fuse(self, spec: FusionSpec) -> dict[str, list[Fused]]:
        # Settings of the reranker alone come one after the other: one fusion is kept for them.
        if self._fused is None or self._fused[0] != spec:
            self._fused = (
                spec,
                {qid: candidates.fused(spec) for qid, candidates in self._candidates.items()},
            )
        return self._fused[1]


def ndcg(rankings: beir.Rankings, qrels: beir.Qrels) -> Values:
    """nDCG@10 of each query of ``qrels``, in their order."""
    return np.array([row[METRIC] for row in beir.evaluate(rankings, qrels, [METRIC]).values()])


def is_train(query_id: str, seed: int) -> bool:
    """Whether a query is of the half that is tuned on: by a hash of its id, whichever others there are."""
    return hashlib.blake2b(f"{seed}:{query_id}".encode(), digest_size=1).digest()[0] % 2 == 0


# -- choosing ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The best setting of one part, beside the one that was chosen before it."""

    part: Part
    setting: Setting
    ndcg: float
    """Mean over the train half."""
    gain: Interval
    """Over the setting before."""

    @property
    def pays(self) -> bool:
        """Whether it is better beyond chance, and by enough to be worth it."""
        return self.gain.low > 0 and self.gain.mean >= LEAST_GAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A setting, the nDCG@10 of each train query with it, and the steps that led there."""

    setting: Setting
    values: Values
    steps: tuple[Step, ...] = ()

    def beside(self, part: Part, setting: Setting, values: Values) -> Choice:
        """This choice, or the other setting where that pays; with the step between them."""
        gain = paired_bootstrap((values - self.values).tolist())
        step = Step(part=part, setting=setting, ndcg=float(values.mean()), gain=gain)
        steps = (*self.steps, step)
        if not step.pays:
            return replace(self, steps=steps)
        return Choice(setting=setting, values=values, steps=steps)


def choose(asked: Asked, *, reranks: bool, heard: Callable[[], None] = lambda: None) -> Choice:
    """The setting of one version to search with: the default hybrid, changed part by part where that pays.

    ``reranks`` tells whether the version has a reranker; ``heard`` is called for each setting measured.
    """

    def measured(setting: Setting) -> Values:
        heard()
        return asked.ndcg(setting)

    start = Setting(version=asked.version)
    choice = Choice(setting=start, values=measured(start))
    parts: tuple[Part, ...] = ("fusion", "depth", "reranker") if reranks else ("fusion", "depth")
    for _ in range(_ROUNDS):
        before = choice.setting
        for part in parts:
            tried = [(setting, measured(setting)) for setting in _others(part, choice.setting)]
            # Of equal ones the first: the simplest.
            best, values = max(tried, key=lambda one: float(one[1].mean()))
            choice = choice.beside(part, best, values)
        if choice.setting == before:
            break
    return choice


def best_of(choices: Sequence[Choice]) -> Choice:
    """The first version's choice, or that of another one where that pays; with the steps of all."""
    best, *others = choices
    for other in others:
        joined = replace(best, steps=(*best.steps, *other.steps))
        best = joined.beside("version", other.setting, other.values)
    return best


def _others(part: Part, setting: Setting) -> Iterator[Setting]:
    """Settings that differ from one in ``part``, simpler ones first."""
    for other in _PARTS[part](setting):
        if other != setting:
            yield other


def _fusions(setting: Setting) -> Iterator[Setting]:
    def with_(**options: Any) -> Setting:
        return replace(setting, fusion=FusionSpec(**options, depth=setting.fusion.depth))

    for dense in WEIGHTS:
        yield with_(kind="weighted", dense_weight=dense, lexical_weight=round(1 - dense, 1))
    for dense, k in product(RRF_WEIGHTS, RRF_KS):
        yield with_(kind="rrf", k=k, dense_weight=dense, lexical_weight=round(1 - dense, 1))


def _depths(setting: Setting) -> Iterator[Setting]:
    for depth in DEPTHS:
        yield replace(setting, fusion=setting.fusion.model_copy(update={"depth": depth}))


def _rerankings(setting: Setting) -> Iterator[Setting]:
    for depth, weight in product(RERANK_DEPTHS, RERANK_WEIGHTS):
        yield replace(setting, rerank=Reranking(depth=depth, weight=weight))


_PARTS: Final[Mapping[str, Callable[[Setting], Iterator[Setting]]]] = {
    "fusion": _fusions,
    "depth": _depths,
    "reranker": _rerankings,
}

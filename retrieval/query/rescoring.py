"""The rerank stage: who scores the candidates, how many, and how long the search can wait for that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, Protocol

import numpy as np
import structlog
from pyroaring import BitMap64

from indexes.base import LexicalIndex, Multilingual, TokenIndex
from ragstone.errors import DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument
from ragstone.types import Query
from rerankers.base import Reranker
from retrieval.query.deadlines import Deadline
from retrieval.query.fusion import Fused
from retrieval.query.hydration import Hydrator
from retrieval.query.query_vectors import Encode
from retrieval.query.reranking import Reranked, blend, unranked
from retrieval.versions.parts import Parts
from retrieval.versions.passages import passage_text
from retrieval.versions.recipe import LATE_INTERACTION, NONE, RerankerSpec

log = structlog.get_logger(__name__)

_RESERVE_S: Final = 0.05
_RESERVE_SHARE: Final = 0.1
_MOST_RESERVE_S: Final = 0.5
_IN_TIME: Final = 0.9
"""A rescorer plans with this share of its time: it is to give up what it cannot do, not to be cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """Finite scores by key. A candidate whose chunk is gone has none.

    ``complete`` tells whether all others have one; if not, those are the first ones that do.
    """

    scores: Mapping[int, float]
    complete: bool


class Rescorer(Protocol):
    """Scores the candidates of one version against a query."""

    async def rescore(self, query: Query, keys: Sequence[int], *, deadline_s: float) -> Rescored:
        """The scores of ``keys``, best candidate first, or of as many as can be scored in ``deadline_s``.

        Raises DeadlineExceeded when that is none, BackendUnavailable when the model does not answer.
        """
        ...


class TextRescorer:
    """Has a reranker read the candidates' texts, titles included: what the embedder reads."""

    def __init__(self, reranker: Reranker, hydrator: Hydrator) -> None:
        self._reranker = reranker
        self._hydrator = hydrator

    async def rescore(self, query: Query, keys: Sequence[int], *, deadline_s: float) -> Rescored:
        """Raises what the reranker does, and Internal for scores that are none."""
        deadline = Deadline(deadline_s)
        passages = await self._hydrator.passages(keys)
        there = [key for key in keys if key in passages]
        texts = [passage_text(passages[key].title, passages[key].text) for key in there]
        scores = await self._reranker.score(query.text, texts, deadline_s=deadline.remaining_s())
        if scores.ndim != 1 or len(scores) > len(texts) or not np.isfinite(scores).all():
            raise Internal(
                f"for {len(texts)} texts the reranker gave {scores.shape} scores, or some that are not finite"
            )
        return Rescored(
            scores=dict(zip(there, scores.tolist(), strict=False)), complete=len(scores) == len(texts)
        )


class TokenRescorer:
    """Late interaction with the token vectors that a version keeps: no model has to read anything."""

    def __init__(self, tokens: TokenIndex, encode: Encode) -> None:
        self._tokens = tokens
        self._encode = encode

    async def rescore(self, query: Query, keys: Sequence[int], *, deadline_s: float) -> Rescored:
        """Raises what encoding the query does, and CorruptIndex."""
        encoded = await self._encode()
        scores = await self._tokens.max_sim(encoded.tokens, encoded.ids, keys)
        found = {key: score for key, score in zip(keys, scores.tolist(), strict=True) if isfinite(score)}
        return Rescored(scores=found, complete=True)


def by_stored_tokens(parts: Parts) -> TokenIndex | None:
    """The token vectors that a version reranks with, if it does."""
    return parts.tokens if parts.recipe.reranker.kind == LATE_INTERACTION else None


def rescorer_of(parts: Parts, hydrator: Hydrator, encode: Encode) -> Rescorer | None:
    """What a version reranks with; None where its recipe says so. ``encode`` gives the query's tokens."""
    tokens = by_stored_tokens(parts)
    if tokens is not None:
        return TokenRescorer(tokens, encode)
    return None if parts.reranker is None else TextRescorer(parts.reranker, hydrator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The candidates that are to be reranked: the first ``depth`` of the fused ranking, whatever the page."""

    depth: int
    weight: float
    timeout_s: float


def window_of(spec: RerankerSpec, query: Query, lexical: LexicalIndex | None = None) -> Window | None:
    """What is to be reranked for a query; None for nothing, as in a language that the reranker does not read.

    ``lexical`` is asked which language that is.

    Raises FailedPrecondition when a query asks for a reranker and the recipe has none, InvalidArgument when
    it asks for one and has no text that passages could be compared with.
    """
    asked = query.rerank
    if asked is not None and asked.off:
        return None
    if spec.kind == NONE:
        if asked is None:
            return None
        raise FailedPrecondition("the query asks for a reranker, and the version's recipe has none")
    if not query.text.strip():
        if asked is None:
            return None
        raise InvalidArgument.at("rerank", "needs the query's text: passages are compared with it")
    if asked is None and not _reads(spec, query, lexical):
        return None
    depth = spec.depth if asked is None or asked.depth is None else asked.depth
    weight = spec.weight if asked is None or asked.weight is None else asked.weight
    return Window(depth=depth, weight=weight, timeout_s=spec.timeout_s)


def _reads(spec: RerankerSpec, query: Query, lexical: LexicalIndex | None) -> bool:
    if spec.languages is None or not isinstance(lexical, Multilingual):
        return True
    return lexical.language_of(query.text, query.language) in ("", *spec.languages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What came of the rerank stage. ``told`` says it in words, ``degraded`` whether something is missing."""

    reranked: Reranked
    told: str = ""
    degraded: bool = False


def left_alone(fused: Sequence[Fused], spec: RerankerSpec, query: Query) -> Stage:
    """The stage of a query for which ``window_of`` is None."""
    if spec.kind == NONE:
        return Stage(reranked=unranked(fused))
    if query.rerank is not None:
        why = "the query asks for none"
    elif query.text.strip():
        why = f"the query seems to be in none of {', '.join(spec.languages or ())}"
    else:
        why = "the query has no text"
    return Stage(reranked=unranked(fused), told=f"not reranked: {why}")


async def rerank(
    fused: Sequence[Fused],
    query: Query,
    window: Window,
    rescorer: Rescorer,
    *,
    deadline: Deadline,
    seen: BitMap64,
) -> Stage:
    """The fused candidates with those in ``window`` reranked, or as they are where that cannot be done.

    A window is the same on every page, so that they all are parts of one ranking; only when all of it was
    ``seen`` nothing is left to do. Whatever fails here, the fused ranking is an answer: nothing is raised.
    """
    keys = [key for key, _ in fused[: window.depth]]
    if all(key in seen for key in keys):
        told = "not reranked: all that would be were on earlier pages" if keys else ""
        return Stage(reranked=unranked(fused), told=told)
    patience_s = _patience_s(window.timeout_s, deadline.remaining_s())
    try:
        if patience_s <= 0:
            raise DeadlineExceeded("the rest of the search took the time")
        async with asyncio.timeout(patience_s):
            found = await rescorer.rescore(query, keys, deadline_s=_IN_TIME * patience_s)
    except Exception as exc:  # noqa: BLE001 - a hit that was found is not lost by what a model makes of it
        why = f"{type(exc).__name__}: {exc}".rstrip(": ")
        log.warning("rerank_failed", error=why, candidates=len(keys), patience_s=round(patience_s, 3))
        return Stage(reranked=unranked(fused), told=f"not reranked: {why}", degraded=True)
    return Stage(
        reranked=blend(fused, found.scores, weight=window.weight),
        told=f"{len(found.scores)} of {len(keys)} candidates, weight {window.weight:g}",
        degraded=not found.complete,
    )


def _patience_s(timeout_s: float, remaining_s: float | None) -> float:
    """How long to wait for the reranker, so that what was found still reaches the caller."""
    if remaining_s is None:
        return timeout_s
    reserve_s = min(_MOST_RESERVE_S, _RESERVE_S + _RESERVE_SHARE * remaining_s)
    return min(timeout_s, remaining_s - reserve_s)

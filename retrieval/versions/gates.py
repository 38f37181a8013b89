"""Gates: what is checked before a version may serve. Measured on the version itself, beside live traffic."""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose
from time import monotonic
from typing import Final

import numpy as np

from embedders.base import Vectors
from indexes.base import Neighbours, SearchParams
from ragstone.errors import FailedPrecondition
from ragstone.types import Comparison, Gate, QuerySource
from retrieval.store.chunks import Chunks
from retrieval.store.documents import Documents
from retrieval.versions.measuring import Asked, Measuring, Rest
from retrieval.versions.parts import Index
from retrieval.versions.recipe import GatesSpec
from retrieval.versions.snapshots import OpenCollection, Snapshot

_K: Final = 10
_QUERIES: Final = 64
_MOST_ASKED: Final = 100
"""Of the recorded queries: each is searched in both versions, while clients search too."""
_RECALL_LIMIT: Final = 0.9
_RECALL_SLACK: Final = 0.05
"""So far below the recipe's target a sample of this size may lie by chance."""


def require_passed(name: str, gates: Sequence[Gate]) -> None:
    """Raise FailedPrecondition with the numbers unless every gate was passed."""
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        told = "; ".join(f"{gate.name} is {gate.value:g}, the limit {gate.limit:g}" for gate in failed)
        raise FailedPrecondition(
            f"version {name} does not pass: {told}",
            metadata={gate.name: f"{gate.value:g} (limit {gate.limit:g})" for gate in failed},
        )


async def count(candidate: Snapshot, *, chunks: Chunks) -> tuple[Gate, ...]:
    """Whether every chunk that was live at an index's own position is in it. Quick.

    Those that the embedder refused are in the lexical index alone.
    """
    parts, refused = candidate.parts, len(candidate.applier.progress.parked_chunks)
    indexes: list[tuple[str, Index, int]] = [
        ("dense_chunks", parts.dense, refused),
        ("lexical_chunks", parts.lexical, 0),
    ]
    if parts.tokens is not None:
        indexes.append(("token_chunks", parts.tokens, refused))
    # Held against the same position each: writes go on, and no index waits for the others.
    held = [_held(index) for _, index, _ in indexes]
    positions = [seq for seq, _ in held]
    counted = [live + parked for (_, live), (_, _, parked) in zip(held, indexes, strict=True)]
    version = candidate.version
    wanted = await chunks.live_at(version.collection_id, version.chunking, positions)
    return tuple(
        Gate(
            name=name,
            passed=there == live,
            value=there,
            limit=live,
            detail=f"{parked} of them refused by the embedder" if parked else "",
        )
        for (name, _, parked), there, live in zip(indexes, counted, wanted, strict=True)
    )


def _held(index: Index) -> tuple[int, int]:
    """An index's position, and what it holds there: it may move on between the two questions."""
    while True:
        seq, live = index.applied_seq, index.stats().live
        if index.applied_seq == seq:
            return seq, live


async def recall(candidate: Snapshot, *, documents: Documents, limits: GatesSpec, rest: Rest) -> Gate:
    """Recall@10 of the dense leg against its own exact search, for texts of some chunks as queries."""
    parts = candidate.parts
    texts = await documents.sample_texts(
        candidate.version.collection_id, candidate.version.chunking, count=_QUERIES
    )
    limit = _recall_limit(candidate) if limits.recall is None else limits.recall
    if parts.recipe.embedder.kind == "precomputed" or not texts:
        return Gate(
            name="recall@10", passed=True, value=1.0, limit=limit, detail="not measured: no texts to ask with"
        )
    # One at a time: searches of now stand in the same queue.
    queries = np.concatenate([await _embed(candidate, text, rest) for text in texts])
    found = await parts.dense.search(queries, _K)
    truth = await parts.dense.search(queries, _K, params=SearchParams(exact=True))
    share = _share_found(found, truth)
    told = f"{len(texts)} queries against exact search"
    return Gate(name="recall@10", passed=share >= limit, value=round(share, 4), limit=limit, detail=told)


async def _embed(candidate: Snapshot, text: str, rest: Rest) -> Vectors:
    began = monotonic()
    vectors = await candidate.parts.embedder.embed_queries([text], tenant=candidate.collection.name)
    await rest(monotonic() - began)
    return vectors


def _recall_limit(candidate: Snapshot) -> float:
    target = candidate.parts.recipe.index.options.get("recall_target")
    return float(target) - _RECALL_SLACK if isinstance(target, int | float) else _RECALL_LIMIT


async def beside(
    collection: OpenCollection,
    serving: Snapshot,
    candidate: Snapshot,
    *,
    measuring: Measuring,
    limits: GatesSpec,
    rest: Rest,
) -> tuple[Gate, ...]:
    """How the candidate answers beside the serving version: nDCG@10 of golden queries, overlap, latency.

    Overlap and latency are of what clients asked last; without any, of golden queries or texts of chunks.
    What there are no queries for has no gate.
    """
    asked = await measuring.questions(collection)
    found = await measuring.compare(
        serving, candidate, Asked(asked.source, asked.questions[-_MOST_ASKED:]), rest=rest
    )
    gates = _alike(found, limits) if found.queries else ()
    golden = await measuring.golden(collection)
    if golden.questions:
        gates = (_quality(await measuring.compare(serving, candidate, golden, rest=rest), limits), *gates)
    return gates


def _quality(found: Comparison, limits: GatesSpec) -> Gate:
    delta = found.ndcg_delta
    assert delta is not None, "golden queries are judged"
    limit = -limits.ndcg_loss
    told = f"{found.a.ndcg:.3f} to {found.b.ndcg:.3f}, 95% in {delta.low:+.3f} to {delta.high:+.3f}"
    return Gate(
        name="ndcg@10",
        passed=delta.mean >= limit or isclose(delta.mean, limit, abs_tol=1e-9),
        value=round(delta.mean, 4),
        limit=limit,
        detail=f"{told}; {found.judged} golden queries{_failures(found)}",
    )


def _alike(found: Comparison, limits: GatesSpec) -> tuple[Gate, Gate]:
    asked = f"{found.queries} {_ASKED[found.source]}{_failures(found)}"
    ratio = found.b.p95_ms / found.a.p95_ms if found.a.p95_ms else 1.0
    limit, told = limits.p95_ratio or 0.0, "" if limits.p95_ratio else "no limit is set; "
    return (
        Gate(
            name="overlap@10",
            passed=found.overlap >= limits.overlap,
            value=round(found.overlap, 4),
            limit=limits.overlap,
            detail=asked,
        ),
        Gate(
            name="p95_ratio",
            passed=not limit or ratio <= limit,
            value=round(ratio, 3),
            limit=limit,
            detail=f"{told}{found.a.p95_ms:.1f} to {found.b.p95_ms:.1f} ms",
        ),
    )


_ASKED: Final = {
    QuerySource.GIVEN: "given queries",
    QuerySource.RECORDED: "queries of clients",
    QuerySource.GOLDEN: "golden queries",
    QuerySource.CHUNKS: "texts of chunks",
}


def _failures(found: Comparison) -> str:
    return f", {found.b.failed} of them failed" if found.b.failed else ""


def _share_found(found: Neighbours, truth: Neighbours) -> float:
    """One that scores as well as the last true neighbour counts as found."""
    there = truth.keys >= 0
    floor = np.where(there, truth.scores, np.inf).min(axis=1)
    hits = ((found.keys >= 0) & (found.scores >= floor[:, None])).sum(axis=1)
    wanted = there.sum(axis=1)
    return float(np.minimum(hits, wanted).sum() / max(1, wanted.sum()))

"""Gates: what is checked before a version may serve. Measured on the version itself, beside live traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from indexes.base import Neighbours, SearchParams
from ragstone.errors import FailedPrecondition
from ragstone.types import Gate
from retrieval.store.chunks import Chunks
from retrieval.store.documents import Documents
from retrieval.versions.snapshots import Snapshot

_K: Final = 10
_QUERIES: Final = 64
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


async def count(candidate: Snapshot, *, chunks: Chunks) -> tuple[Gate, Gate]:
    """Whether every live chunk is in both legs, but for those that the embedder refused. Quick."""
    live = await chunks.live(candidate.version.collection_id, candidate.version.chunking)
    parts, parked = candidate.parts, len(candidate.applier.progress.parked_chunks)
    dense, lexical = parts.dense.stats().live + parked, parts.lexical.stats().live
    told = f"{parked} of them refused by the embedder" if parked else ""
    return (
        Gate(name="dense_chunks", passed=dense == live, value=dense, limit=live, detail=told),
        Gate(name="lexical_chunks", passed=lexical == live, value=lexical, limit=live),
    )


async def recall(candidate: Snapshot, *, documents: Documents) -> Gate:
    """Recall@10 of the dense leg against its own exact search, for texts of some chunks as queries."""
    parts = candidate.parts
    texts = await documents.sample_texts(
        candidate.version.collection_id, candidate.version.chunking, count=_QUERIES
    )
    target = parts.recipe.index.options.get("recall_target")
    limit = float(target) - _RECALL_SLACK if isinstance(target, int | float) else _RECALL_LIMIT
    if parts.recipe.embedder.kind == "precomputed" or not texts:
        return Gate(
            name="recall@10", passed=True, value=1.0, limit=limit, detail="not measured: no texts to ask with"
        )
    # One at a time: searches of now stand in the same queue.
    queries = np.concatenate([await parts.embedder.embed_queries([text]) for text in texts])
    found = await parts.dense.search(queries, _K)
    truth = await parts.dense.search(queries, _K, params=SearchParams(exact=True))
    share = _share_found(found, truth)
    told = f"{len(texts)} queries against exact search"
    return Gate(name="recall@10", passed=share >= limit, value=round(share, 4), limit=limit, detail=told)


def _share_found(found: Neighbours, truth: Neighbours) -> float:
    """One that scores as well as the last true neighbour counts as found."""
    there = truth.keys >= 0
    floor = np.where(there, truth.scores, np.inf).min(axis=1)
    hits = ((found.keys >= 0) & (found.scores >= floor[:, None])).sum(axis=1)
    wanted = there.sum(axis=1)
    return float(np.minimum(hits, wanted).sum() / max(1, wanted.sum()))

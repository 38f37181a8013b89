"""Recipes, versions, collections and what is measured of them <-> protobuf, pure; as ``wire`` for the rest.

The numbers of recipes and stats travel as doubles: whole ones come back as ``int``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ragstone.fields import build, decode_options, decode_time, encode_options, encode_time
from ragstone.types import (
    Collection,
    Comparison,
    Gate,
    GoldenQuery,
    Interval,
    Latency,
    MeasuredVersion,
    MissingText,
    MissingTexts,
    ParkedText,
    Progress,
    QueryAdapter,
    QuerySource,
    RebuildPlan,
    Recipe,
    Traffic,
    Version,
    VersionEvent,
)
from ragstone.v1 import collections_pb2, values_pb2, versions_pb2

_STATES: Final[Mapping[str, Any]] = {  # to what the generated code takes for its numbers
    name.removeprefix("VERSION_STATE_").lower(): number
    for name, number in values_pb2.VersionState.items()
    if number
}
_STATE_OF: Final[Mapping[int, str]] = {number: state for state, number in _STATES.items()}
SOURCES: Final[Mapping[Any, Any]] = {
    source: values_pb2.QuerySource.Value(f"QUERY_SOURCE_{source.name}") for source in QuerySource
}
_SOURCE_OF: Final[Mapping[int, QuerySource]] = {SOURCES[source]: source for source in QuerySource}


def encode_recipe(recipe: Recipe, at: str = "recipe.") -> values_pb2.Recipe:
    """A recipe. Raises InvalidArgument naming the section."""
    sections = {name: encode_options(getattr(recipe, name), at + name) for name in _SECTIONS}
    return values_pb2.Recipe(**sections)


def decode_recipe(message: values_pb2.Recipe) -> Recipe:
    """The reverse of ``encode_recipe``."""
    return Recipe(**{name: decode_options(getattr(message, name)) for name in _SECTIONS})


_SECTIONS: Final = ("embedder", "chunker", "index", "lexical", "tokens", "fusion", "reranker", "gates")


def encode_version(version: Version) -> values_pb2.Version:
    """An index version."""
    return values_pb2.Version(
        name=version.name,
        collection=version.collection,
        state=_STATES.get(version.state, values_pb2.VERSION_STATE_UNSPECIFIED),
        recipe=encode_recipe(version.recipe),
        space=version.space,
        dim=version.dim,
        applied_seq=version.applied_seq,
        created_at=encode_time(version.created_at),
        stats=encode_options(version.stats, "stats"),
        progress=None if version.progress is None else _encode_progress(version.progress),
        reason=version.reason,
        gates=[_encode_gate(gate) for gate in version.gates],
        parked=[
            values_pb2.ParkedText(chunk_id=parked.chunk_id, reason=parked.reason) for parked in version.parked
        ],
        traffic=None if version.traffic is None else _encode_traffic(version.traffic),
        adapter=None if version.adapter is None else encode_adapter(version.adapter),
        history=[
            values_pb2.VersionEvent(
                event=past.event, at=encode_time(past.at), detail=encode_options(past.detail, "detail")
            )
            for past in version.history
        ],
    )


def decode_version(message: values_pb2.Version) -> Version:
    """The reverse of ``encode_version``; a state that this version does not know is ``unknown``."""
    return Version(
        name=message.name,
        collection=message.collection,
        state=_STATE_OF.get(message.state, "unknown"),
        recipe=decode_recipe(message.recipe),
        space=message.space,
        dim=message.dim,
        applied_seq=message.applied_seq,
        created_at=decode_time(message.created_at),
        stats=decode_options(message.stats),
        progress=_decode_progress(message.progress) if message.HasField("progress") else None,
        reason=message.reason,
        gates=tuple(map(_decode_gate, message.gates)),
        parked=tuple(ParkedText(chunk_id=parked.chunk_id, reason=parked.reason) for parked in message.parked),
        traffic=_decode_traffic(message.traffic) if message.HasField("traffic") else None,
        adapter=decode_adapter(message.adapter) if message.HasField("adapter") else None,
        history=tuple(
            VersionEvent(event=past.event, at=decode_time(past.at), detail=decode_options(past.detail))
            for past in message.history
        ),
    )


def encode_adapter(adapter: QueryAdapter) -> values_pb2.QueryAdapter:
    """A query adapter."""
    return values_pb2.QueryAdapter(**{name: getattr(adapter, name) for name in _ADAPTER})


def decode_adapter(message: values_pb2.QueryAdapter) -> QueryAdapter:
    """The reverse of ``encode_adapter``."""
    return QueryAdapter(**{name: getattr(message, name) for name in _ADAPTER})


_ADAPTER: Final = ("kind", "from_space", "into_space", "recall", "limit", "passed", "texts", "reason")


def _encode_progress(progress: Progress) -> values_pb2.Progress:
    return values_pb2.Progress(
        chunks_done=progress.chunks_done,
        chunks_total=progress.chunks_total,
        embedded=progress.embedded,
        reused=progress.reused,
        chunks_per_s=progress.chunks_per_s,
        seconds_left=progress.seconds_left,
        lag=progress.lag,
    )


def _decode_progress(message: values_pb2.Progress) -> Progress:
    return Progress(
        chunks_done=message.chunks_done,
        chunks_total=message.chunks_total,
        embedded=message.embedded,
        reused=message.reused,
        chunks_per_s=message.chunks_per_s,
        seconds_left=message.seconds_left if message.HasField("seconds_left") else None,
        lag=message.lag,
    )


def _encode_gate(gate: Gate) -> values_pb2.Gate:
    return values_pb2.Gate(
        name=gate.name, passed=gate.passed, value=gate.value, limit=gate.limit, detail=gate.detail
    )


def _decode_gate(message: values_pb2.Gate) -> Gate:
    return Gate(
        name=message.name,
        passed=message.passed,
        value=message.value,
        limit=message.limit,
        detail=message.detail,
    )


def _encode_traffic(traffic: Traffic) -> values_pb2.Traffic:
    return values_pb2.Traffic(
        mean_rbo=traffic.mean_rbo,
        mean_overlap=traffic.mean_overlap,
        shadow_latency=_encode_latency(traffic.shadow_latency),
        canary_latency=_encode_latency(traffic.canary_latency),
        **{name: getattr(traffic, name) for name in _TRAFFIC},
    )


def _decode_traffic(message: values_pb2.Traffic) -> Traffic:
    return Traffic(
        mean_rbo=message.mean_rbo if message.HasField("mean_rbo") else None,
        mean_overlap=message.mean_overlap if message.HasField("mean_overlap") else None,
        shadow_latency=_decode_latency(message.shadow_latency)
        if message.HasField("shadow_latency")
        else None,
        canary_latency=_decode_latency(message.canary_latency)
        if message.HasField("canary_latency")
        else None,
        **{name: getattr(message, name) for name in _TRAFFIC},
    )


_TRAFFIC: Final = (
    *("shadow", "canary", "mirrored", "skipped", "dropped", "failed"),
    *("canary_answered", "canary_failed", "stopped", "last_failure"),
)


def _encode_latency(latency: Latency | None) -> values_pb2.Latency | None:
    if latency is None:
        return None
    return values_pb2.Latency(
        searches=latency.searches,
        p50_ms=latency.p50_ms,
        p95_ms=latency.p95_ms,
        serving_p50_ms=latency.serving_p50_ms,
        serving_p95_ms=latency.serving_p95_ms,
    )


def _decode_latency(message: values_pb2.Latency) -> Latency:
    return Latency(
        searches=message.searches,
        p50_ms=message.p50_ms,
        p95_ms=message.p95_ms,
        serving_p50_ms=message.serving_p50_ms if message.HasField("serving_p50_ms") else None,
        serving_p95_ms=message.serving_p95_ms if message.HasField("serving_p95_ms") else None,
    )


def encode_golden_query(query: GoldenQuery, at: str = "query.") -> values_pb2.GoldenQuery:
    """A golden query. Raises InvalidArgument under the path ``at``."""
    return build(values_pb2.GoldenQuery, at, id=query.id, text=query.text, relevant=query.relevant)


def decode_golden_query(message: values_pb2.GoldenQuery) -> GoldenQuery:
    """The reverse of ``encode_golden_query``; the wire keeps no order of the relevant documents."""
    return GoldenQuery(id=message.id, text=message.text, relevant=dict(sorted(message.relevant.items())))


def decode_source(number: int) -> QuerySource | None:
    """Where queries come from; unset is ``None``."""
    return _SOURCE_OF.get(number)


def encode_comparison(comparison: Comparison) -> values_pb2.Comparison:
    """Two versions that were asked the same queries."""
    delta = comparison.ndcg_delta
    return values_pb2.Comparison(
        a=_encode_measured(comparison.a),
        b=_encode_measured(comparison.b),
        source=SOURCES[comparison.source],
        ndcg_delta=None
        if delta is None
        else values_pb2.Interval(mean=delta.mean, low=delta.low, high=delta.high),
        **{name: getattr(comparison, name) for name in _COMPARISON},
    )


def decode_comparison(message: values_pb2.Comparison) -> Comparison:
    """The reverse of ``encode_comparison``; a source that this version does not know is ``given``."""
    delta = message.ndcg_delta
    return Comparison(
        a=_decode_measured(message.a),
        b=_decode_measured(message.b),
        source=_SOURCE_OF.get(message.source, QuerySource.GIVEN),
        ndcg_delta=Interval(mean=delta.mean, low=delta.low, high=delta.high)
        if message.HasField("ndcg_delta")
        else None,
        **{name: getattr(message, name) for name in _COMPARISON},
    )


_COMPARISON: Final = ("queries", "skipped", "overlap", "rank_biased_overlap", "judged")


def _encode_measured(measured: MeasuredVersion) -> values_pb2.MeasuredVersion:
    return values_pb2.MeasuredVersion(
        version=measured.version,
        failed=measured.failed,
        p50_ms=measured.p50_ms,
        p95_ms=measured.p95_ms,
        ndcg=measured.ndcg,
    )


def _decode_measured(message: values_pb2.MeasuredVersion) -> MeasuredVersion:
    return MeasuredVersion(
        version=message.version,
        failed=message.failed,
        p50_ms=message.p50_ms,
        p95_ms=message.p95_ms,
        ndcg=message.ndcg if message.HasField("ndcg") else None,
    )


def encode_plan(plan: RebuildPlan) -> versions_pb2.RebuildPlan:
    """The plan of a rebuild."""
    return versions_pb2.RebuildPlan(
        recipe=encode_recipe(plan.recipe),
        notes=plan.notes,
        **{name: getattr(plan, name) for name in _PLAN},
    )


def decode_plan(message: versions_pb2.RebuildPlan) -> RebuildPlan:
    """The reverse of ``encode_plan``."""
    return RebuildPlan(
        recipe=decode_recipe(message.recipe),
        notes=tuple(message.notes),
        **{name: getattr(message, name) for name in _PLAN},
    )


_PLAN: Final = (
    *("space", "dim", "documents", "chunks", "chunks_estimated", "texts_to_embed", "tokens"),
    *("embed_s", "build_s", "disk_bytes", "memory_bytes"),
)


def encode_missing_texts(part: MissingTexts) -> versions_pb2.MissingTexts:
    """Texts that are lent to a worker."""
    return versions_pb2.MissingTexts(
        texts=[
            versions_pb2.MissingText(text_hash=missing.text_hash, text=missing.text) for missing in part.texts
        ],
        lease_seconds=part.lease_s,
        embedder=encode_options(part.embedder, "embedder"),
        **{name: getattr(part, name) for name in _MISSING},
    )


def decode_missing_texts(message: versions_pb2.MissingTexts) -> MissingTexts:
    """The reverse of ``encode_missing_texts``."""
    return MissingTexts(
        texts=tuple(MissingText(text_hash=missing.text_hash, text=missing.text) for missing in message.texts),
        lease_s=message.lease_seconds,
        embedder=decode_options(message.embedder),
        **{name: getattr(message, name) for name in _MISSING},
    )


_MISSING: Final = ("lease", "space", "dim", "missing", "parked", "done")


def encode_collection(collection: Collection) -> collections_pb2.Collection:
    """A collection."""
    return collections_pb2.Collection(
        name=collection.name,
        serving=encode_version(collection.serving),
        documents=collection.documents,
        chunks=collection.chunks,
        seq=collection.seq,
        created_at=encode_time(collection.created_at),
    )


def decode_collection(message: collections_pb2.Collection) -> Collection:
    """The reverse of ``encode_collection``."""
    return Collection(
        name=message.name,
        serving=decode_version(message.serving),
        documents=message.documents,
        chunks=message.chunks,
        seq=message.seq,
        created_at=decode_time(message.created_at),
    )

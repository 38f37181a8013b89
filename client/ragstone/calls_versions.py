"""The calls about collections and versions, beside those of ``ragstone.calls``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ragstone import wire_versions
from ragstone.errors import InvalidArgument
from ragstone.fields import build, encode_choice, encode_floats, encode_options
from ragstone.methods import METHODS, Call
from ragstone.types import (
    Collection,
    Comparison,
    GoldenQuery,
    MissingTexts,
    QuerySource,
    RebuildPlan,
    Recipe,
    VectorLike,
    Version,
)
from ragstone.v1 import collections_pb2, values_pb2, versions_pb2


def create_collection(name: str, recipe: Recipe | None) -> Call[Collection]:
    """CreateCollection."""
    encoded = None if recipe is None else wire_versions.encode_recipe(recipe)
    request = build(collections_pb2.CreateCollectionRequest, "", name=name, recipe=encoded)
    return Call(METHODS["CreateCollection"], request, _collection)


def get_collection(name: str) -> Call[Collection]:
    """GetCollection."""
    request = build(collections_pb2.GetCollectionRequest, "", name=name)
    return Call(METHODS["GetCollection"], request, _collection)


def list_collections() -> Call[list[Collection]]:
    """ListCollections."""
    return Call(
        METHODS["ListCollections"],
        collections_pb2.ListCollectionsRequest(),
        lambda reply: [wire_versions.decode_collection(found) for found in reply.collections],
    )


def delete_collection(name: str) -> Call[None]:
    """DeleteCollection."""
    request = build(collections_pb2.DeleteCollectionRequest, "", name=name)
    return Call(METHODS["DeleteCollection"], request, lambda _: None)


def compact(name: str) -> Call[Collection]:
    """CompactCollection."""
    request = build(collections_pb2.CompactCollectionRequest, "", name=name)
    return Call(METHODS["CompactCollection"], request, _collection)


def versions(collection: str) -> Call[list[Version]]:
    """ListVersions."""
    request = build(versions_pb2.ListVersionsRequest, "", collection=collection)
    return Call(
        METHODS["ListVersions"],
        request,
        lambda reply: [wire_versions.decode_version(found) for found in reply.versions],
    )


def get_version(collection: str, name: str) -> Call[Version]:
    """GetVersion."""
    request = build(versions_pb2.GetVersionRequest, "", collection=collection, name=name)
    return Call(METHODS["GetVersion"], request, _version)


def create_version(collection: str, recipe: Recipe, paused: bool) -> Call[Version]:
    """CreateVersion."""
    encoded = wire_versions.encode_recipe(recipe)
    request = build(
        versions_pb2.CreateVersionRequest, "", collection=collection, recipe=encoded, paused=paused
    )
    return Call(METHODS["CreateVersion"], request, _version)


def plan_version(collection: str, recipe: Recipe) -> Call[RebuildPlan]:
    """PlanVersion."""
    encoded = wire_versions.encode_recipe(recipe)
    request = build(versions_pb2.PlanVersionRequest, "", collection=collection, recipe=encoded)
    return Call(METHODS["PlanVersion"], request, lambda reply: wire_versions.decode_plan(reply.plan))


def watch_version(collection: str, name: str) -> Call[Version]:
    """WatchVersion; each reply of the stream is the version as it was then."""
    request = build(versions_pb2.WatchVersionRequest, "", collection=collection, name=name)
    return Call(METHODS["WatchVersion"], request, _version)


def set_golden_queries(name: str, queries: Sequence[GoldenQuery]) -> Call[None]:
    """SetGoldenQueries."""
    request = build(collections_pb2.SetGoldenQueriesRequest, "", name=name, queries=_golden(queries))
    return Call(METHODS["SetGoldenQueries"], request, lambda _: None)


def _golden(queries: Sequence[GoldenQuery]) -> list[values_pb2.GoldenQuery]:
    return [
        wire_versions.encode_golden_query(query, f"queries[{number}].")
        for number, query in enumerate(queries)
    ]


def get_golden_queries(name: str) -> Call[list[GoldenQuery]]:
    """GetGoldenQueries."""
    return Call(
        METHODS["GetGoldenQueries"],
        build(collections_pb2.GetGoldenQueriesRequest, "", name=name),
        lambda reply: [wire_versions.decode_golden_query(query) for query in reply.queries],
    )


def compare_versions(
    collection: str, a: str, b: str, queries: Sequence[GoldenQuery], source: QuerySource | str | None
) -> Call[Comparison]:
    """CompareVersions."""
    request = build(
        versions_pb2.CompareVersionsRequest,
        "",
        collection=collection,
        a=a,
        b=b,
        queries=_golden(queries),
        source=None if source is None else encode_choice(wire_versions.SOURCES, source, "source"),
    )
    return Call(
        METHODS["CompareVersions"],
        request,
        lambda reply: wire_versions.decode_comparison(reply.comparison),
    )


def promote(collection: str, name: str, force: bool, gates: Mapping[str, float] | None) -> Call[Version]:
    """PromoteVersion."""
    request = build(
        versions_pb2.PromoteVersionRequest,
        "",
        collection=collection,
        name=name,
        force=force,
        gates=encode_options(gates or {}, "gates"),
    )
    return Call(METHODS["PromoteVersion"], request, _version)


def rollback(collection: str) -> Call[Version]:
    """RollbackVersion."""
    request = build(versions_pb2.RollbackVersionRequest, "", collection=collection)
    return Call(METHODS["RollbackVersion"], request, _version)


def pause_version(collection: str, name: str) -> Call[Version]:
    """PauseVersion."""
    request = build(versions_pb2.PauseVersionRequest, "", collection=collection, name=name)
    return Call(METHODS["PauseVersion"], request, _version)


def resume_version(collection: str, name: str) -> Call[Version]:
    """ResumeVersion."""
    request = build(versions_pb2.ResumeVersionRequest, "", collection=collection, name=name)
    return Call(METHODS["ResumeVersion"], request, _version)


def set_traffic(collection: str, version: str, shadow: float | None, canary: float | None) -> Call[Version]:
    """SetTraffic."""
    request = build(
        versions_pb2.SetTrafficRequest,
        "",
        collection=collection,
        version=version,
        shadow=shadow,
        canary=canary,
    )
    return Call(METHODS["SetTraffic"], request, _version)


def delete_version(collection: str, name: str) -> Call[int]:
    """DeleteVersion: the bytes freed."""
    request = build(versions_pb2.DeleteVersionRequest, "", collection=collection, name=name)
    return Call(METHODS["DeleteVersion"], request, lambda reply: int(reply.bytes_freed))


def list_missing_embeddings(
    collection: str, version: str, worker: str, max_texts: int, lease_s: float
) -> Call[MissingTexts]:
    """ListMissingEmbeddings."""
    request = build(
        versions_pb2.ListMissingEmbeddingsRequest,
        "",
        collection=collection,
        version=version,
        worker=worker,
        max_texts=max_texts,
        lease_seconds=lease_s,
    )
    return Call(
        METHODS["ListMissingEmbeddings"],
        request,
        lambda reply: wire_versions.decode_missing_texts(reply.range),
    )


def put_embeddings(
    collection: str,
    version: str,
    space: str,
    lease: str,
    vectors: Mapping[bytes, VectorLike],
    refused: Mapping[bytes, str],
) -> Call[int]:
    """PutEmbeddings: how many texts have no vector yet."""
    rows = [encode_floats(vector, f"vectors[{i}]") for i, vector in enumerate(vectors.values())]
    if len({len(row) for row in rows}) > 1:
        raise InvalidArgument.at("vectors", "are not all of one dimension")
    request = build(
        versions_pb2.PutEmbeddingsRequest,
        "",
        collection=collection,
        version=version,
        space=space,
        lease=lease,
        text_hashes=list(vectors),
        vectors=b"".join(rows),
        refused=[
            build(versions_pb2.RefusedText, f"refused[{i}].", text_hash=text_hash, reason=reason)
            for i, (text_hash, reason) in enumerate(refused.items())
        ],
    )
    return Call(METHODS["PutEmbeddings"], request, lambda reply: int(reply.missing))


def _collection(reply: Any) -> Collection:
    return wire_versions.decode_collection(reply.collection)


def _version(reply: Any) -> Version:
    return wire_versions.decode_version(reply.version)

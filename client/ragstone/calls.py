"""The calls of the API: for each one its method, its request, and how its reply is read.

Both clients are thin shells around these: they differ only in how they wait.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypedDict, TypeVar
from uuid import uuid4

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from ragstone import wire, wire_versions
from ragstone.errors import FieldViolation, InvalidArgument
from ragstone.fields import build, decode_floats, encode_choice, encode_floats, encode_options, refusing
from ragstone.types import (
    AnswerEvent,
    Collection,
    Comparison,
    Document,
    Fusion,
    GoldenQuery,
    MissingTexts,
    Mode,
    Query,
    QuerySource,
    RebuildPlan,
    Recipe,
    SearchResult,
    ServerInfo,
    VectorLike,
    Version,
    Wait,
    WriteResult,
)
from ragstone.v1 import collections_pb2, documents_pb2, retrieval_pb2, values_pb2, versions_pb2

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service: its path, and its reply from bytes."""

    path: str
    parse: Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """One call, ready to be sent; ``read`` makes the value of a reply."""

    method: Method
    request: Message
    read: Callable[[Any], T_co]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors of one space, one row a text in the order of the texts; float32."""

    vectors: tuple[array[float], ...]
    space: str


class Health(StrEnum):
    """What ``grpc.health.v1`` says of a server or of one of its services."""

    UNKNOWN = "unknown"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"


def _methods(file: FileDescriptor) -> dict[str, Method]:
    return {
        method.name: Method(
            f"/{service.full_name}/{method.name}", GetMessageClass(method.output_type).FromString
        )
        for service in file.services_by_name.values()
        for method in service.methods
    }


_METHODS: Final[Mapping[str, Method]] = {
    name: method
    for file in (retrieval_pb2, collections_pb2, documents_pb2, versions_pb2)
    for name, method in _methods(file.DESCRIPTOR).items()
}
IMPORT: Final = _METHODS["ImportDocuments"]
# grpc.health.v1 belongs to another package. Its two messages have the fields, and so the bytes, of
# these wrappers; defining them a second time would clash with that package.
_CHECK: Final = Method("/grpc.health.v1.Health/Check", Int32Value.FromString)


# -- collections and versions -----------------------------------------------------------------


def create_collection(name: str, recipe: Recipe | None) -> Call[Collection]:
    """CreateCollection."""
    encoded = None if recipe is None else wire_versions.encode_recipe(recipe)
    request = build(collections_pb2.CreateCollectionRequest, "", name=name, recipe=encoded)
    return Call(_METHODS["CreateCollection"], request, _collection)


def get_collection(name: str) -> Call[Collection]:
    """GetCollection."""
    request = build(collections_pb2.GetCollectionRequest, "", name=name)
    return Call(_METHODS["GetCollection"], request, _collection)


def list_collections() -> Call[list[Collection]]:
    """ListCollections."""
    return Call(
        _METHODS["ListCollections"],
        collections_pb2.ListCollectionsRequest(),
        lambda reply: [wire_versions.decode_collection(found) for found in reply.collections],
    )


def delete_collection(name: str) -> Call[None]:
    """DeleteCollection."""
    request = build(collections_pb2.DeleteCollectionRequest, "", name=name)
    return Call(_METHODS["DeleteCollection"], request, lambda _: None)


def compact(name: str) -> Call[Collection]:
    """CompactCollection."""
    request = build(collections_pb2.CompactCollectionRequest, "", name=name)
    return Call(_METHODS["CompactCollection"], request, _collection)


def versions(collection: str) -> Call[list[Version]]:
    """ListVersions."""
    request = build(versions_pb2.ListVersionsRequest, "", collection=collection)
    return Call(
        _METHODS["ListVersions"],
        request,
        lambda reply: [wire_versions.decode_version(found) for found in reply.versions],
    )


def get_version(collection: str, name: str) -> Call[Version]:
    """GetVersion."""
    request = build(versions_pb2.GetVersionRequest, "", collection=collection, name=name)
    return Call(_METHODS["GetVersion"], request, _version)


def create_version(collection: str, recipe: Recipe, paused: bool) -> Call[Version]:
    """CreateVersion."""
    encoded = wire_versions.encode_recipe(recipe)
    request = build(
        versions_pb2.CreateVersionRequest, "", collection=collection, recipe=encoded, paused=paused
    )
    return Call(_METHODS["CreateVersion"], request, _version)


def plan_version(collection: str, recipe: Recipe) -> Call[RebuildPlan]:
    """PlanVersion."""
    encoded = wire_versions.encode_recipe(recipe)
    request = build(versions_pb2.PlanVersionRequest, "", collection=collection, recipe=encoded)
    return Call(_METHODS["PlanVersion"], request, lambda reply: wire_versions.decode_plan(reply.plan))


def watch_version(collection: str, name: str) -> Call[Version]:
    """WatchVersion; each reply of the stream is the version as it was then."""
    request = build(versions_pb2.WatchVersionRequest, "", collection=collection, name=name)
    return Call(_METHODS["WatchVersion"], request, _version)


def set_golden_queries(name: str, queries: Sequence[GoldenQuery]) -> Call[None]:
    """SetGoldenQueries."""
    request = build(collections_pb2.SetGoldenQueriesRequest, "", name=name, queries=_golden(queries))
    return Call(_METHODS["SetGoldenQueries"], request, lambda _: None)


def _golden(queries: Sequence[GoldenQuery]) -> list[values_pb2.GoldenQuery]:
    return [
        wire_versions.encode_golden_query(query, f"queries[{number}].")
        for number, query in enumerate(queries)
    ]


def get_golden_queries(name: str) -> Call[list[GoldenQuery]]:
    """GetGoldenQueries."""
    return Call(
        _METHODS["GetGoldenQueries"],
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
        _METHODS["CompareVersions"],
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
    return Call(_METHODS["PromoteVersion"], request, _version)


def rollback(collection: str) -> Call[Version]:
    """RollbackVersion."""
    request = build(versions_pb2.RollbackVersionRequest, "", collection=collection)
    return Call(_METHODS["RollbackVersion"], request, _version)


def pause_version(collection: str, name: str) -> Call[Version]:
    """PauseVersion."""
    request = build(versions_pb2.PauseVersionRequest, "", collection=collection, name=name)
    return Call(_METHODS["PauseVersion"], request, _version)


def resume_version(collection: str, name: str) -> Call[Version]:
    """ResumeVersion."""
    request = build(versions_pb2.ResumeVersionRequest, "", collection=collection, name=name)
    return Call(_METHODS["ResumeVersion"], request, _version)


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
    return Call(_METHODS["SetTraffic"], request, _version)


def delete_version(collection: str, name: str) -> Call[int]:
    """DeleteVersion: the bytes freed."""
    request = build(versions_pb2.DeleteVersionRequest, "", collection=collection, name=name)
    return Call(_METHODS["DeleteVersion"], request, lambda reply: int(reply.bytes_freed))


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
        _METHODS["ListMissingEmbeddings"],
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
    return Call(_METHODS["PutEmbeddings"], request, lambda reply: int(reply.missing))


def _collection(reply: Any) -> Collection:
    return wire_versions.decode_collection(reply.collection)


def _version(reply: Any) -> Version:
    return wire_versions.decode_version(reply.version)


# -- documents --------------------------------------------------------------------------------


def upsert(
    collection: str, documents: Sequence[Document], request_id: str | None, wait: Wait | str
) -> Call[WriteResult]:
    """UpsertDocuments. Raises InvalidArgument also for more than one request can carry."""
    if len(documents) > wire.MAX_DOCUMENTS:
        why = f"{len(documents):,} are above the limit of {wire.MAX_DOCUMENTS:,}; use import_documents"
        raise InvalidArgument.at("documents", why)
    request = build(
        documents_pb2.UpsertDocumentsRequest,
        "",
        collection=collection,
        documents=encode_documents(documents),
        request_id=str(uuid4()) if request_id is None else request_id,
        wait=encode_choice(wire.WAITS, wait, "wait"),
    )
    size = request.ByteSize()
    if size > wire.MAX_MESSAGE_BYTES:
        why = f"{size:,} bytes are above the limit of {wire.MAX_MESSAGE_BYTES:,}; use import_documents"
        raise InvalidArgument.at("documents", why)
    return Call(_METHODS["UpsertDocuments"], request, _write_result)


def encode_documents(documents: Sequence[Document]) -> list[values_pb2.Document]:
    """All documents, or one InvalidArgument for all that is wrong in them."""
    encoded: list[values_pb2.Document] = []
    violations: list[FieldViolation] = []
    for i, document in enumerate(documents):
        try:
            encoded.append(wire.encode_document(document, f"documents[{i}]."))
        except InvalidArgument as exc:
            violations += exc.violations
    if violations:
        raise refusing(violations)
    return encoded


def delete(
    collection: str, ids: Sequence[str] | None, filter_: str | None, request_id: str | None, wait: Wait | str
) -> Call[WriteResult]:
    """DeleteDocuments."""
    if isinstance(ids, str):
        raise InvalidArgument.at("ids", "must be a sequence of ids, is one text")
    request = build(
        documents_pb2.DeleteDocumentsRequest,
        "",
        collection=collection,
        ids=ids,
        filter=filter_,
        request_id=str(uuid4()) if request_id is None else request_id,
        wait=encode_choice(wire.WAITS, wait, "wait"),
    )
    return Call(_METHODS["DeleteDocuments"], request, _write_result)


def get_document(collection: str, document_id: str) -> Call[Document]:
    """GetDocument."""
    request = build(documents_pb2.GetDocumentRequest, "", collection=collection, id=document_id)
    return Call(_METHODS["GetDocument"], request, lambda reply: wire.decode_document(reply.document))


def list_documents(collection: str, page_size: int, page_token: str) -> Call[tuple[list[Document], str]]:
    """ListDocuments: a page and the token of the next."""
    request = build(
        documents_pb2.ListDocumentsRequest,
        "",
        collection=collection,
        page_size=page_size,
        page_token=page_token,
    )
    return Call(
        _METHODS["ListDocuments"],
        request,
        lambda reply: ([wire.decode_document(found) for found in reply.documents], reply.next_page_token),
    )


def _write_result(reply: Any) -> WriteResult:
    return wire.decode_write_result(reply.result)


# -- retrieval --------------------------------------------------------------------------------


class SearchOptions(TypedDict, total=False):
    """The keyword arguments that ``search_pages`` hands to ``search``."""

    vector: VectorLike | None
    space: str | None
    k: int
    mode: Mode | str
    filter: str
    language: str | None
    fusion: Fusion | str | None
    depth: int | None
    explain: bool
    min_seq: int | None
    request_key: str


def query(text: str, fusion: Fusion | str | None, **fields: Any) -> Query:
    """The query of a search's arguments; ``fusion`` may be the name of a kind."""
    chosen = Fusion(kind=fusion) if isinstance(fusion, str) else fusion
    return Query(text=text, fusion=chosen, **fields)


def search(collection: str, asked: Query) -> Call[SearchResult]:
    """Search."""
    encoded = wire.encode_query(asked)
    request = build(retrieval_pb2.SearchRequest, "", collection=collection, query=encoded)
    return Call(_METHODS["Search"], request, _result)


def _result(reply: Any) -> SearchResult:
    return wire.decode_result(reply.result)


def batch_search(collection: str, queries: Sequence[Query]) -> Call[list[SearchResult]]:
    """BatchSearch."""
    encoded = [wire.encode_query(asked, f"queries[{i}].") for i, asked in enumerate(queries)]
    request = build(retrieval_pb2.BatchSearchRequest, "", collection=collection, queries=encoded)
    return Call(
        _METHODS["BatchSearch"],
        request,
        lambda reply: [wire.decode_result(result) for result in reply.results],
    )


def answer(collection: str, asked: Query) -> Call[AnswerEvent | None]:
    """Answer; each reply of the stream is an event, or ``None`` for one unknown to this version."""
    encoded = wire.encode_query(asked)
    request = build(retrieval_pb2.AnswerRequest, "", collection=collection, query=encoded)
    return Call(_METHODS["Answer"], request, wire.decode_event)


def embed(collection: str, texts: Sequence[str], kind: str) -> Call[Embeddings]:
    """Embed."""
    if isinstance(texts, str):
        raise InvalidArgument.at("texts", "must be a sequence of texts, is one text")
    request = build(
        retrieval_pb2.EmbedRequest,
        "",
        collection=collection,
        texts=texts,
        kind=encode_choice(wire.EMBED_KINDS, kind, "kind"),
    )
    return Call(_METHODS["Embed"], request, _embeddings)


def _embeddings(reply: Any) -> Embeddings:
    row = reply.dim * 4
    rows = (reply.values[start : start + row] for start in range(0, len(reply.values), row or 1))
    return Embeddings(vectors=tuple(decode_floats(values) for values in rows), space=reply.space)


def info() -> Call[ServerInfo]:
    """GetInfo."""
    return Call(_METHODS["GetInfo"], retrieval_pb2.GetInfoRequest(), wire.decode_info)


def health(service: str) -> Call[Health]:
    """``grpc.health.v1`` Check."""
    return Call(_CHECK, StringValue(value=service), lambda reply: _HEALTH.get(reply.value, Health.UNKNOWN))


_HEALTH: Final = dict(enumerate(Health))

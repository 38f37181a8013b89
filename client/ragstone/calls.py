"""The calls of the API: for each one its method, its request, and how its reply is read.

Both clients are thin shells around these: they differ only in how they wait.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any, Final, TypedDict
from uuid import uuid4

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from ragstone import wire, wire_answers
from ragstone.answers import Generation, Turn, UsageRecord
from ragstone.errors import FieldViolation, InvalidArgument
from ragstone.fields import build, decode_floats, encode_choice, refusing
from ragstone.methods import METHODS, Call, Method
from ragstone.types import (
    AnswerEvent,
    Document,
    Fusion,
    Mode,
    Query,
    Rerank,
    RerankScores,
    SearchResult,
    ServerInfo,
    Truncation,
    VectorLike,
    Wait,
    WriteResult,
)
from ragstone.v1 import documents_pb2, retrieval_pb2, values_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors of one space, one row a text in the order of the texts; float32."""

    vectors: tuple[array[float], ...]
    space: str
    truncations: Mapping[int, Truncation] = field(default_factory=dict)
    """The texts that were too long for the embedder, by their places: their ends are not in their vectors."""


class Health(StrEnum):
    """What ``grpc.health.v1`` says of a server or of one of its services."""

    UNKNOWN = "unknown"
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"


IMPORT: Final = METHODS["ImportDocuments"]
# grpc.health.v1 belongs to another package. Its two messages have the fields, and so the bytes, of
# these wrappers; defining them a second time would clash with that package.
_CHECK: Final = Method("/grpc.health.v1.Health/Check", Int32Value.FromString)


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
    return Call(METHODS["UpsertDocuments"], request, _write_result)


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
    return Call(METHODS["DeleteDocuments"], request, _write_result)


def get_document(collection: str, document_id: str) -> Call[Document]:
    """GetDocument."""
    request = build(documents_pb2.GetDocumentRequest, "", collection=collection, id=document_id)
    return Call(METHODS["GetDocument"], request, lambda reply: wire.decode_document(reply.document))


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
        METHODS["ListDocuments"],
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
    rerank: Rerank | bool | None
    version: str


def query(text: str, fusion: Fusion | str | None, rerank: Rerank | bool | None, **fields: Any) -> Query:
    """The query of a search's arguments; ``fusion`` may be the name of a kind, ``rerank`` yes or no."""
    chosen = Fusion(kind=fusion) if isinstance(fusion, str) else fusion
    asked = Rerank(off=not rerank) if isinstance(rerank, bool) else rerank
    return Query(text=text, fusion=chosen, rerank=asked, **fields)


def search(collection: str, asked: Query) -> Call[SearchResult]:
    """Search."""
    encoded = wire.encode_query(asked)
    request = build(retrieval_pb2.SearchRequest, "", collection=collection, query=encoded)
    return Call(METHODS["Search"], request, _result)


def _result(reply: Any) -> SearchResult:
    return wire.decode_result(reply.result)


def batch_search(collection: str, queries: Sequence[Query]) -> Call[list[SearchResult]]:
    """BatchSearch."""
    encoded = [wire.encode_query(asked, f"queries[{i}].") for i, asked in enumerate(queries)]
    request = build(retrieval_pb2.BatchSearchRequest, "", collection=collection, queries=encoded)
    return Call(
        METHODS["BatchSearch"],
        request,
        lambda reply: [wire.decode_result(result) for result in reply.results],
    )


def answer(
    collection: str, asked: Query, history: Sequence[Turn], generation: Generation | None
) -> Call[AnswerEvent | None]:
    """Answer; each reply of the stream is an event, or ``None`` for one unknown to this version."""
    request = build(
        retrieval_pb2.AnswerRequest,
        "",
        collection=collection,
        query=wire.encode_query(asked),
        history=wire_answers.encode_history(history),
        generation=None if generation is None else wire_answers.encode_generation(generation),
    )
    return Call(METHODS["Answer"], request, wire_answers.decode_event)


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
    return Call(METHODS["Embed"], request, _embeddings)


def _embeddings(reply: Any) -> Embeddings:
    row = reply.dim * 4
    rows = (reply.values[start : start + row] for start in range(0, len(reply.values), row or 1))
    return Embeddings(
        vectors=tuple(decode_floats(values) for values in rows),
        space=reply.space,
        truncations={i: wire.decode_truncation(cut) for i, cut in sorted(reply.truncations.items())},
    )


def rerank(collection: str, query_text: str, texts: Sequence[str]) -> Call[RerankScores]:
    """Rerank."""
    if isinstance(texts, str):
        raise InvalidArgument.at("texts", "must be a sequence of texts, is one text")
    request = build(retrieval_pb2.RerankRequest, "", collection=collection, query=query_text, texts=texts)
    return Call(METHODS["Rerank"], request, wire.decode_rerank_scores)


def usage(first_day: date | None, last_day: date | None) -> Call[list[UsageRecord]]:
    """ListUsage."""
    request = retrieval_pb2.ListUsageRequest(
        first_day=wire_answers.encode_day(first_day), last_day=wire_answers.encode_day(last_day)
    )
    return Call(
        METHODS["ListUsage"], request, lambda reply: [*map(wire_answers.decode_usage_record, reply.records)]
    )


def info() -> Call[ServerInfo]:
    """GetInfo."""
    return Call(METHODS["GetInfo"], retrieval_pb2.GetInfoRequest(), wire.decode_info)


def health(service: str) -> Call[Health]:
    """``grpc.health.v1`` Check."""
    return Call(_CHECK, StringValue(value=service), lambda reply: _HEALTH.get(reply.value, Health.UNKNOWN))


_HEALTH: Final = dict(enumerate(Health))

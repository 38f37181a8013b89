"""The public values <-> protobuf, pure: documents, queries, results and answers.

``encode_x`` and ``decode_x`` are each other's inverse, but for what protobuf cannot carry: a datetime
without a zone is taken as UTC, tuples in metadata come back as lists, and vectors as float32. ``put_x``
encodes in place. Recipes, versions and collections are in ``wire_versions``.

Encoding raises ``InvalidArgument`` that names the field by its path in the request. Decoding refuses
what the rules in the protos cannot express; the server checks those rules first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ragstone.errors import InvalidArgument
from ragstone.fields import (
    build,
    decode_floats,
    decode_metadata,
    encode_choice,
    encode_vector,
    put_metadata,
)
from ragstone.types import (
    Document,
    Fusion,
    Hit,
    LegScore,
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
from ragstone.v1 import retrieval_pb2, values_pb2
from ragstone.wire_versions import decode_adapter, encode_adapter

MAX_TEXT_BYTES: Final = 8 * 2**20
"""UTF-8 bytes of one document's text."""
MAX_MESSAGE_BYTES: Final = 32 * 2**20
"""What a server takes in one message, unless it is told otherwise."""
MAX_DOCUMENTS: Final = 1000
"""Documents of one request."""

ToVector = Callable[[bytes], VectorLike]

_Numbers = Mapping[str, Any]  # an enum's names to what the generated code takes for its numbers

MODES: Final[_Numbers] = {mode: retrieval_pb2.Mode.Value(f"MODE_{mode.name}") for mode in Mode}
WAITS: Final[_Numbers] = {wait: values_pb2.Wait.Value(f"WAIT_{wait.name}") for wait in Wait}
FUSIONS: Final[_Numbers] = {
    "weighted": retrieval_pb2.FUSION_KIND_WEIGHTED,
    "rrf": retrieval_pb2.FUSION_KIND_RRF,
}
EMBED_KINDS: Final[_Numbers] = {
    "query": retrieval_pb2.EMBED_KIND_QUERY,
    "passage": retrieval_pb2.EMBED_KIND_PASSAGE,
}
# The way back: number 0, unset, is the default.
_MODE_OF: Final[Mapping[int, Mode]] = {0: Mode.HYBRID, **{MODES[mode]: mode for mode in Mode}}
_WAIT_OF: Final[Mapping[int, Wait]] = {0: Wait.INDEXED, **{WAITS[wait]: wait for wait in Wait}}
_FUSION_OF: Final[Mapping[int, str]] = {0: "weighted", **{number: name for name, number in FUSIONS.items()}}
_EMBED_KIND_OF: Final[Mapping[int, str]] = {
    0: "query",
    **{number: name for name, number in EMBED_KINDS.items()},
}


# -- documents and writes ---------------------------------------------------------------------


def encode_document(document: Document, at: str = "document.") -> values_pb2.Document:
    """A document. Raises InvalidArgument under the path ``at``, also for a text above the limit."""
    message = build(
        values_pb2.Document,
        at,
        id=document.id,
        text=document.text,
        title=document.title,
        language=document.language,
        vector=encode_vector(document.vector, None, f"{at}vector"),
    )
    put_metadata(message.metadata, document.metadata, f"{at}metadata")
    if len(document.text) * 4 > MAX_TEXT_BYTES and (size := len(document.text.encode())) > MAX_TEXT_BYTES:
        raise InvalidArgument.at(f"{at}text", f"{size:,} bytes are above the limit of {MAX_TEXT_BYTES:,}")
    return message


def decode_document(
    message: values_pb2.Document, at: str = "document.", *, vector: ToVector = decode_floats
) -> Document:
    """The reverse of ``encode_document``; ``vector`` makes a row of float32 bytes."""
    return Document(
        id=message.id,
        text=message.text,
        title=message.title,
        metadata=decode_metadata(message.metadata, f"{at}metadata"),
        language=message.language or None,
        vector=vector(message.vector.values) if message.HasField("vector") else None,
    )


def decode_wait(number: int) -> Wait:
    """What a write waits for; unset is ``INDEXED``."""
    return _WAIT_OF[number]


def encode_write_result(result: WriteResult) -> values_pb2.WriteResult:
    """An acknowledgement."""
    return values_pb2.WriteResult(
        seq=result.seq, documents=result.documents, unchanged=result.unchanged, chunks=result.chunks
    )


def decode_write_result(message: values_pb2.WriteResult) -> WriteResult:
    """The reverse of ``encode_write_result``."""
    return WriteResult(
        seq=message.seq, documents=message.documents, unchanged=message.unchanged, chunks=message.chunks
    )


# -- queries and results ----------------------------------------------------------------------


def encode_query(query: Query, at: str = "query.") -> retrieval_pb2.Query:
    """A query. Raises InvalidArgument under the path ``at``."""
    return build(
        retrieval_pb2.Query,
        at,
        text=query.text,
        vector=encode_vector(query.vector, query.space, f"{at}vector"),
        k=query.k,
        mode=encode_choice(MODES, query.mode, f"{at}mode"),
        filter=query.filter,
        language=query.language,
        fusion=None if query.fusion is None else _encode_fusion(query.fusion, f"{at}fusion."),
        depth=query.depth,
        explain=query.explain,
        page_token=query.page_token,
        min_seq=query.min_seq,
        request_key=query.request_key,
        space=query.space if query.vector is None else None,
        rerank=None if query.rerank is None else _encode_rerank(query.rerank, f"{at}rerank."),
        version=query.version,
    )


def decode_query(message: retrieval_pb2.Query, *, vector: ToVector = decode_floats) -> Query:
    """The reverse of ``encode_query``; ``vector`` makes a row of float32 bytes."""
    given = message.HasField("vector")
    return Query(
        text=message.text,
        vector=vector(message.vector.values) if given else None,
        space=(message.vector.space if given else message.space) or None,
        k=message.k if message.HasField("k") else 10,
        mode=_MODE_OF[message.mode],
        filter=message.filter,
        language=message.language or None,
        fusion=_decode_fusion(message.fusion) if message.HasField("fusion") else None,
        depth=message.depth if message.HasField("depth") else None,
        explain=message.explain,
        page_token=message.page_token,
        min_seq=message.min_seq if message.HasField("min_seq") else None,
        request_key=message.request_key,
        rerank=_decode_rerank(message.rerank) if message.HasField("rerank") else None,
        version=message.version,
    )


def _encode_fusion(fusion: Fusion, at: str) -> retrieval_pb2.Fusion:
    return build(
        retrieval_pb2.Fusion,
        at,
        kind=encode_choice(FUSIONS, fusion.kind, f"{at}kind"),
        k=fusion.k,
        dense_weight=fusion.dense_weight,
        lexical_weight=fusion.lexical_weight,
    )


def _decode_fusion(message: retrieval_pb2.Fusion) -> Fusion:
    given = {name: getattr(message, name) for name in _FUSION_OPTIONS if message.HasField(name)}
    return Fusion(kind=_FUSION_OF[message.kind], **given)


_FUSION_OPTIONS: Final = ("k", "dense_weight", "lexical_weight")


def _encode_rerank(rerank: Rerank, at: str) -> retrieval_pb2.Rerank:
    return build(retrieval_pb2.Rerank, at, off=rerank.off, depth=rerank.depth, weight=rerank.weight)


def _decode_rerank(message: retrieval_pb2.Rerank) -> Rerank:
    return Rerank(
        off=message.off,
        depth=message.depth if message.HasField("depth") else None,
        weight=message.weight if message.HasField("weight") else None,
    )


def put_hits(field: Any, hits: Iterable[Hit]) -> None:
    """Append hits to the repeated field of a message."""
    for hit in hits:
        message = field.add()
        message.chunk_id = hit.chunk_id
        message.document_id = hit.document_id
        message.score = hit.score
        message.text = hit.text
        message.title = hit.title
        message.start = hit.start
        message.end = hit.end
        if hit.metadata:
            put_metadata(message.metadata, hit.metadata)
        for leg in hit.legs:
            message.legs.add(leg=leg.leg, rank=leg.rank, score=leg.score, contribution=leg.contribution)


def decode_hit(message: retrieval_pb2.Hit) -> Hit:
    """One hit."""
    return Hit(
        chunk_id=message.chunk_id,
        document_id=message.document_id,
        score=message.score,
        text=message.text,
        title=message.title,
        metadata=decode_metadata(message.metadata),
        start=message.start,
        end=message.end,
        legs=tuple(map(_decode_leg, message.legs)) if message.legs else (),
    )


def _decode_leg(message: retrieval_pb2.LegScore) -> LegScore:
    return LegScore(
        leg=message.leg, rank=message.rank, score=message.score, contribution=message.contribution
    )


def put_result(message: retrieval_pb2.SearchResult, result: SearchResult) -> None:
    """Fill the empty message of a page of hits: one that is put into another is copied."""
    message.version = result.version
    message.space = result.space
    message.seq = result.seq
    message.degraded.extend(result.degraded)
    message.timings_ms.update(result.timings_ms)
    message.next_page_token = result.next_page_token
    message.plan.update(result.plan)
    if result.adapter is not None:
        message.adapter.CopyFrom(encode_adapter(result.adapter))
    if result.truncation is not None:
        message.truncation.CopyFrom(encode_truncation(result.truncation))
    put_hits(message.hits, result.hits)


def decode_result(message: retrieval_pb2.SearchResult) -> SearchResult:
    """The reverse of ``put_result``."""
    return SearchResult(
        hits=tuple(map(decode_hit, message.hits)),
        version=message.version,
        space=message.space,
        seq=message.seq,
        degraded=tuple(message.degraded),
        timings_ms=dict(sorted(message.timings_ms.items())),
        next_page_token=message.next_page_token,
        plan=dict(message.plan),
        adapter=decode_adapter(message.adapter) if message.HasField("adapter") else None,
        truncation=decode_truncation(message.truncation) if message.HasField("truncation") else None,
    )


def encode_truncation(truncation: Truncation) -> retrieval_pb2.Truncation:
    """How a text was cut."""
    return retrieval_pb2.Truncation(tokens=truncation.tokens, limit=truncation.limit)


def decode_truncation(message: retrieval_pb2.Truncation) -> Truncation:
    """The reverse of ``encode_truncation``."""
    return Truncation(tokens=message.tokens, limit=message.limit)


def decode_embed_kind(number: int) -> str:
    """``query`` or ``passage``; unset is ``query``."""
    return _EMBED_KIND_OF[number]


def encode_rerank_scores(result: RerankScores) -> retrieval_pb2.RerankResponse:
    """The scores of texts, as float32."""
    return retrieval_pb2.RerankResponse(
        scores=result.scores, complete=result.complete, version=result.version
    )


def decode_rerank_scores(message: retrieval_pb2.RerankResponse) -> RerankScores:
    """The reverse of ``encode_rerank_scores``."""
    return RerankScores(scores=tuple(message.scores), complete=message.complete, version=message.version)


# -- the server -------------------------------------------------------------------------------


def encode_info(info: ServerInfo) -> retrieval_pb2.GetInfoResponse:
    """What a server is."""
    return retrieval_pb2.GetInfoResponse(
        version=info.version,
        max_message_bytes=info.max_message_bytes,
        max_k=info.max_k,
        max_batch=info.max_batch,
        embedder=info.embedder,
    )


def decode_info(message: retrieval_pb2.GetInfoResponse) -> ServerInfo:
    """The reverse of ``encode_info``."""
    return ServerInfo(
        version=message.version,
        max_message_bytes=message.max_message_bytes,
        max_k=message.max_k,
        max_batch=message.max_batch,
        embedder=dict(message.embedder),
    )

from ragstone.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_HYBRID: _ClassVar[Mode]
    MODE_DENSE: _ClassVar[Mode]
    MODE_LEXICAL: _ClassVar[Mode]

class FusionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FUSION_KIND_UNSPECIFIED: _ClassVar[FusionKind]
    FUSION_KIND_RRF: _ClassVar[FusionKind]
    FUSION_KIND_WEIGHTED: _ClassVar[FusionKind]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_COMPLETE: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_NO_EVIDENCE: _ClassVar[FinishReason]

class EmbedKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMBED_KIND_UNSPECIFIED: _ClassVar[EmbedKind]
    EMBED_KIND_QUERY: _ClassVar[EmbedKind]
    EMBED_KIND_PASSAGE: _ClassVar[EmbedKind]
MODE_UNSPECIFIED: Mode
MODE_HYBRID: Mode
MODE_DENSE: Mode
MODE_LEXICAL: Mode
FUSION_KIND_UNSPECIFIED: FusionKind
FUSION_KIND_RRF: FusionKind
FUSION_KIND_WEIGHTED: FusionKind
ROLE_UNSPECIFIED: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_COMPLETE: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_NO_EVIDENCE: FinishReason
EMBED_KIND_UNSPECIFIED: EmbedKind
EMBED_KIND_QUERY: EmbedKind
EMBED_KIND_PASSAGE: EmbedKind

class Fusion(_message.Message):
    __slots__ = ("kind", "k", "dense_weight", "lexical_weight")
    KIND_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    DENSE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    kind: FusionKind
    k: int
    dense_weight: float
    lexical_weight: float
    def __init__(self, kind: _Optional[_Union[FusionKind, str]] = ..., k: _Optional[int] = ..., dense_weight: _Optional[float] = ..., lexical_weight: _Optional[float] = ...) -> None: ...

class Rerank(_message.Message):
    __slots__ = ("off", "depth", "weight")
    OFF_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    off: bool
    depth: int
    weight: float
    def __init__(self, off: _Optional[bool] = ..., depth: _Optional[int] = ..., weight: _Optional[float] = ...) -> None: ...

class Query(_message.Message):
    __slots__ = ("text", "vector", "k", "mode", "filter", "language", "fusion", "depth", "explain", "page_token", "min_seq", "request_key", "space", "rerank", "version")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQ_FIELD_NUMBER: _ClassVar[int]
    REQUEST_KEY_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    text: str
    vector: _values_pb2.Vector
    k: int
    mode: Mode
    filter: str
    language: str
    fusion: Fusion
    depth: int
    explain: bool
    page_token: str
    min_seq: int
    request_key: str
    space: str
    rerank: Rerank
    version: str
    def __init__(self, text: _Optional[str] = ..., vector: _Optional[_Union[_values_pb2.Vector, _Mapping]] = ..., k: _Optional[int] = ..., mode: _Optional[_Union[Mode, str]] = ..., filter: _Optional[str] = ..., language: _Optional[str] = ..., fusion: _Optional[_Union[Fusion, _Mapping]] = ..., depth: _Optional[int] = ..., explain: _Optional[bool] = ..., page_token: _Optional[str] = ..., min_seq: _Optional[int] = ..., request_key: _Optional[str] = ..., space: _Optional[str] = ..., rerank: _Optional[_Union[Rerank, _Mapping]] = ..., version: _Optional[str] = ...) -> None: ...

class LegScore(_message.Message):
    __slots__ = ("leg", "rank", "score", "contribution")
    LEG_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    leg: str
    rank: int
    score: float
    contribution: float
    def __init__(self, leg: _Optional[str] = ..., rank: _Optional[int] = ..., score: _Optional[float] = ..., contribution: _Optional[float] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("chunk_id", "document_id", "score", "text", "title", "metadata", "start", "end", "legs")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _values_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_values_pb2.Value, _Mapping]] = ...) -> None: ...
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LEGS_FIELD_NUMBER: _ClassVar[int]
    chunk_id: str
    document_id: str
    score: float
    text: str
    title: str
    metadata: _containers.MessageMap[str, _values_pb2.Value]
    start: int
    end: int
    legs: _containers.RepeatedCompositeFieldContainer[LegScore]
    def __init__(self, chunk_id: _Optional[str] = ..., document_id: _Optional[str] = ..., score: _Optional[float] = ..., text: _Optional[str] = ..., title: _Optional[str] = ..., metadata: _Optional[_Mapping[str, _values_pb2.Value]] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., legs: _Optional[_Iterable[_Union[LegScore, _Mapping]]] = ...) -> None: ...

class Truncation(_message.Message):
    __slots__ = ("tokens", "limit")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    limit: int
    def __init__(self, tokens: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class SearchResult(_message.Message):
    __slots__ = ("hits", "version", "space", "seq", "degraded", "timings_ms", "next_page_token", "plan", "adapter", "truncation")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class PlanEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HITS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    version: str
    space: str
    seq: int
    degraded: _containers.RepeatedScalarFieldContainer[str]
    timings_ms: _containers.ScalarMap[str, float]
    next_page_token: str
    plan: _containers.ScalarMap[str, str]
    adapter: _values_pb2.QueryAdapter
    truncation: Truncation
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., version: _Optional[str] = ..., space: _Optional[str] = ..., seq: _Optional[int] = ..., degraded: _Optional[_Iterable[str]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., next_page_token: _Optional[str] = ..., plan: _Optional[_Mapping[str, str]] = ..., adapter: _Optional[_Union[_values_pb2.QueryAdapter, _Mapping]] = ..., truncation: _Optional[_Union[Truncation, _Mapping]] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "query")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    query: Query
    def __init__(self, collection: _Optional[str] = ..., query: _Optional[_Union[Query, _Mapping]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: SearchResult
    def __init__(self, result: _Optional[_Union[SearchResult, _Mapping]] = ...) -> None: ...

class BatchSearchRequest(_message.Message):
    __slots__ = ("collection", "queries")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    queries: _containers.RepeatedCompositeFieldContainer[Query]
    def __init__(self, collection: _Optional[str] = ..., queries: _Optional[_Iterable[_Union[Query, _Mapping]]] = ...) -> None: ...

class BatchSearchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SearchResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SearchResult, _Mapping]]] = ...) -> None: ...

class AnswerRequest(_message.Message):
    __slots__ = ("collection", "query", "history", "generation")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    query: Query
    history: _containers.RepeatedCompositeFieldContainer[Turn]
    generation: Generation
    def __init__(self, collection: _Optional[str] = ..., query: _Optional[_Union[Query, _Mapping]] = ..., history: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ..., generation: _Optional[_Union[Generation, _Mapping]] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("role", "text")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    role: Role
    text: str
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., text: _Optional[str] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("max_tokens", "temperature", "seed", "stop", "json_schema", "logprobs")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    temperature: float
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    json_schema: str
    logprobs: bool
    def __init__(self, max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., json_schema: _Optional[str] = ..., logprobs: _Optional[bool] = ...) -> None: ...

class Contexts(_message.Message):
    __slots__ = ("hits", "version", "space", "seq", "degraded", "adapter", "truncation", "standalone")
    HITS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    STANDALONE_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    version: str
    space: str
    seq: int
    degraded: _containers.RepeatedScalarFieldContainer[str]
    adapter: _values_pb2.QueryAdapter
    truncation: Truncation
    standalone: Standalone
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., version: _Optional[str] = ..., space: _Optional[str] = ..., seq: _Optional[int] = ..., degraded: _Optional[_Iterable[str]] = ..., adapter: _Optional[_Union[_values_pb2.QueryAdapter, _Mapping]] = ..., truncation: _Optional[_Union[Truncation, _Mapping]] = ..., standalone: _Optional[_Union[Standalone, _Mapping]] = ...) -> None: ...

class Standalone(_message.Message):
    __slots__ = ("text", "condensed_by")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CONDENSED_BY_FIELD_NUMBER: _ClassVar[int]
    text: str
    condensed_by: str
    def __init__(self, text: _Optional[str] = ..., condensed_by: _Optional[str] = ...) -> None: ...

class TextDelta(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class Citation(_message.Message):
    __slots__ = ("chunk_id", "document_id", "start", "end", "answer_start", "answer_end", "quote")
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ANSWER_START_FIELD_NUMBER: _ClassVar[int]
    ANSWER_END_FIELD_NUMBER: _ClassVar[int]
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    chunk_id: str
    document_id: str
    start: int
    end: int
    answer_start: int
    answer_end: int
    quote: str
    def __init__(self, chunk_id: _Optional[str] = ..., document_id: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., answer_start: _Optional[int] = ..., answer_end: _Optional[int] = ..., quote: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "cached_tokens", "completion_tokens", "ttft_ms", "tpot_ms", "cost", "queue_ms")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TTFT_MS_FIELD_NUMBER: _ClassVar[int]
    TPOT_MS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_ms: float
    tpot_ms: float
    cost: float
    queue_ms: float
    def __init__(self, prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., ttft_ms: _Optional[float] = ..., tpot_ms: _Optional[float] = ..., cost: _Optional[float] = ..., queue_ms: _Optional[float] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("finish_reason", "timings_ms", "answered_by", "model", "passed_over", "template", "removed_marks", "grounded", "ungrounded", "from_cache", "logprobs", "similarity")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_BY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PASSED_OVER_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    REMOVED_MARKS_FIELD_NUMBER: _ClassVar[int]
    GROUNDED_FIELD_NUMBER: _ClassVar[int]
    UNGROUNDED_FIELD_NUMBER: _ClassVar[int]
    FROM_CACHE_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    finish_reason: FinishReason
    timings_ms: _containers.ScalarMap[str, float]
    answered_by: str
    model: str
    passed_over: _containers.RepeatedScalarFieldContainer[str]
    template: str
    removed_marks: int
    grounded: float
    ungrounded: _containers.RepeatedCompositeFieldContainer[AnswerSpan]
    from_cache: bool
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    similarity: float
    def __init__(self, finish_reason: _Optional[_Union[FinishReason, str]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., answered_by: _Optional[str] = ..., model: _Optional[str] = ..., passed_over: _Optional[_Iterable[str]] = ..., template: _Optional[str] = ..., removed_marks: _Optional[int] = ..., grounded: _Optional[float] = ..., ungrounded: _Optional[_Iterable[_Union[AnswerSpan, _Mapping]]] = ..., from_cache: _Optional[bool] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ..., similarity: _Optional[float] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("token", "logprob")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    token: str
    logprob: float
    def __init__(self, token: _Optional[str] = ..., logprob: _Optional[float] = ...) -> None: ...

class AnswerSpan(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class AnswerResponse(_message.Message):
    __slots__ = ("contexts", "text_delta", "citation", "usage", "done")
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    TEXT_DELTA_FIELD_NUMBER: _ClassVar[int]
    CITATION_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    contexts: Contexts
    text_delta: TextDelta
    citation: Citation
    usage: Usage
    done: Done
    def __init__(self, contexts: _Optional[_Union[Contexts, _Mapping]] = ..., text_delta: _Optional[_Union[TextDelta, _Mapping]] = ..., citation: _Optional[_Union[Citation, _Mapping]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("collection", "texts", "kind")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    collection: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    kind: EmbedKind
    def __init__(self, collection: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[EmbedKind, str]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("values", "dim", "space", "truncations")
    class TruncationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: Truncation
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[Truncation, _Mapping]] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATIONS_FIELD_NUMBER: _ClassVar[int]
    values: bytes
    dim: int
    space: str
    truncations: _containers.MessageMap[int, Truncation]
    def __init__(self, values: _Optional[bytes] = ..., dim: _Optional[int] = ..., space: _Optional[str] = ..., truncations: _Optional[_Mapping[int, Truncation]] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("collection", "query", "texts")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    query: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., query: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("scores", "complete", "version")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    complete: bool
    version: str
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., complete: _Optional[bool] = ..., version: _Optional[str] = ...) -> None: ...

class ListUsageRequest(_message.Message):
    __slots__ = ("first_day", "last_day")
    FIRST_DAY_FIELD_NUMBER: _ClassVar[int]
    LAST_DAY_FIELD_NUMBER: _ClassVar[int]
    first_day: str
    last_day: str
    def __init__(self, first_day: _Optional[str] = ..., last_day: _Optional[str] = ...) -> None: ...

class ListUsageResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[UsageRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[UsageRecord, _Mapping]]] = ...) -> None: ...

class UsageRecord(_message.Message):
    __slots__ = ("day", "tenant", "generator", "model", "answers", "usage")
    DAY_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    day: str
    tenant: str
    generator: str
    model: str
    answers: int
    usage: Usage
    def __init__(self, day: _Optional[str] = ..., tenant: _Optional[str] = ..., generator: _Optional[str] = ..., model: _Optional[str] = ..., answers: _Optional[int] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetInfoResponse(_message.Message):
    __slots__ = ("version", "max_message_bytes", "max_k", "max_batch", "embedder")
    class EmbedderEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_K_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    version: str
    max_message_bytes: int
    max_k: int
    max_batch: int
    embedder: _containers.ScalarMap[str, str]
    def __init__(self, version: _Optional[str] = ..., max_message_bytes: _Optional[int] = ..., max_k: _Optional[int] = ..., max_batch: _Optional[int] = ..., embedder: _Optional[_Mapping[str, str]] = ...) -> None: ...

import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VersionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERSION_STATE_UNSPECIFIED: _ClassVar[VersionState]
    VERSION_STATE_BUILDING: _ClassVar[VersionState]
    VERSION_STATE_CATCHING_UP: _ClassVar[VersionState]
    VERSION_STATE_READY: _ClassVar[VersionState]
    VERSION_STATE_SERVING: _ClassVar[VersionState]
    VERSION_STATE_RETIRING: _ClassVar[VersionState]
    VERSION_STATE_DELETED: _ClassVar[VersionState]
    VERSION_STATE_PAUSED: _ClassVar[VersionState]
    VERSION_STATE_FAILED: _ClassVar[VersionState]

class QuerySource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUERY_SOURCE_UNSPECIFIED: _ClassVar[QuerySource]
    QUERY_SOURCE_GIVEN: _ClassVar[QuerySource]
    QUERY_SOURCE_RECORDED: _ClassVar[QuerySource]
    QUERY_SOURCE_GOLDEN: _ClassVar[QuerySource]
    QUERY_SOURCE_CHUNKS: _ClassVar[QuerySource]

class Wait(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAIT_UNSPECIFIED: _ClassVar[Wait]
    WAIT_COMMITTED: _ClassVar[Wait]
    WAIT_INDEXED: _ClassVar[Wait]
VERSION_STATE_UNSPECIFIED: VersionState
VERSION_STATE_BUILDING: VersionState
VERSION_STATE_CATCHING_UP: VersionState
VERSION_STATE_READY: VersionState
VERSION_STATE_SERVING: VersionState
VERSION_STATE_RETIRING: VersionState
VERSION_STATE_DELETED: VersionState
VERSION_STATE_PAUSED: VersionState
VERSION_STATE_FAILED: VersionState
QUERY_SOURCE_UNSPECIFIED: QuerySource
QUERY_SOURCE_GIVEN: QuerySource
QUERY_SOURCE_RECORDED: QuerySource
QUERY_SOURCE_GOLDEN: QuerySource
QUERY_SOURCE_CHUNKS: QuerySource
WAIT_UNSPECIFIED: Wait
WAIT_COMMITTED: Wait
WAIT_INDEXED: Wait

class Vector(_message.Message):
    __slots__ = ("values", "space")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    values: bytes
    space: str
    def __init__(self, values: _Optional[bytes] = ..., space: _Optional[str] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("string_value", "int_value", "double_value", "bool_value", "date_value", "timestamp_value", "list_value")
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    DATE_VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_VALUE_FIELD_NUMBER: _ClassVar[int]
    LIST_VALUE_FIELD_NUMBER: _ClassVar[int]
    string_value: str
    int_value: int
    double_value: float
    bool_value: bool
    date_value: str
    timestamp_value: _timestamp_pb2.Timestamp
    list_value: ValueList
    def __init__(self, string_value: _Optional[str] = ..., int_value: _Optional[int] = ..., double_value: _Optional[float] = ..., bool_value: _Optional[bool] = ..., date_value: _Optional[str] = ..., timestamp_value: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., list_value: _Optional[_Union[ValueList, _Mapping]] = ...) -> None: ...

class ValueList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Document(_message.Message):
    __slots__ = ("id", "text", "title", "metadata", "language", "vector")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    id: str
    text: str
    title: str
    metadata: _containers.MessageMap[str, Value]
    language: str
    vector: Vector
    def __init__(self, id: _Optional[str] = ..., text: _Optional[str] = ..., title: _Optional[str] = ..., metadata: _Optional[_Mapping[str, Value]] = ..., language: _Optional[str] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ...) -> None: ...

class Recipe(_message.Message):
    __slots__ = ("embedder", "chunker", "index", "lexical", "fusion", "reranker", "gates", "tokens")
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    CHUNKER_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    RERANKER_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    embedder: _struct_pb2.Struct
    chunker: _struct_pb2.Struct
    index: _struct_pb2.Struct
    lexical: _struct_pb2.Struct
    fusion: _struct_pb2.Struct
    reranker: _struct_pb2.Struct
    gates: _struct_pb2.Struct
    tokens: _struct_pb2.Struct
    def __init__(self, embedder: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., chunker: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., index: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., lexical: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., fusion: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., reranker: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., gates: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., tokens: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("name", "collection", "state", "recipe", "space", "dim", "applied_seq", "created_at", "stats", "progress", "reason", "gates", "parked", "traffic", "adapter", "history")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    APPLIED_SEQ_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    name: str
    collection: str
    state: VersionState
    recipe: Recipe
    space: str
    dim: int
    applied_seq: int
    created_at: _timestamp_pb2.Timestamp
    stats: _struct_pb2.Struct
    progress: Progress
    reason: str
    gates: _containers.RepeatedCompositeFieldContainer[Gate]
    parked: _containers.RepeatedCompositeFieldContainer[ParkedText]
    traffic: Traffic
    adapter: QueryAdapter
    history: _containers.RepeatedCompositeFieldContainer[VersionEvent]
    def __init__(self, name: _Optional[str] = ..., collection: _Optional[str] = ..., state: _Optional[_Union[VersionState, str]] = ..., recipe: _Optional[_Union[Recipe, _Mapping]] = ..., space: _Optional[str] = ..., dim: _Optional[int] = ..., applied_seq: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., stats: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., reason: _Optional[str] = ..., gates: _Optional[_Iterable[_Union[Gate, _Mapping]]] = ..., parked: _Optional[_Iterable[_Union[ParkedText, _Mapping]]] = ..., traffic: _Optional[_Union[Traffic, _Mapping]] = ..., adapter: _Optional[_Union[QueryAdapter, _Mapping]] = ..., history: _Optional[_Iterable[_Union[VersionEvent, _Mapping]]] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("shadow", "canary", "mirrored", "skipped", "dropped", "failed", "mean_rbo", "mean_overlap", "shadow_latency", "canary_answered", "canary_failed", "canary_latency", "stopped", "last_failure")
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    MIRRORED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    MEAN_RBO_FIELD_NUMBER: _ClassVar[int]
    MEAN_OVERLAP_FIELD_NUMBER: _ClassVar[int]
    SHADOW_LATENCY_FIELD_NUMBER: _ClassVar[int]
    CANARY_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    CANARY_FAILED_FIELD_NUMBER: _ClassVar[int]
    CANARY_LATENCY_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILURE_FIELD_NUMBER: _ClassVar[int]
    shadow: float
    canary: float
    mirrored: int
    skipped: int
    dropped: int
    failed: int
    mean_rbo: float
    mean_overlap: float
    shadow_latency: Latency
    canary_answered: int
    canary_failed: int
    canary_latency: Latency
    stopped: str
    last_failure: str
    def __init__(self, shadow: _Optional[float] = ..., canary: _Optional[float] = ..., mirrored: _Optional[int] = ..., skipped: _Optional[int] = ..., dropped: _Optional[int] = ..., failed: _Optional[int] = ..., mean_rbo: _Optional[float] = ..., mean_overlap: _Optional[float] = ..., shadow_latency: _Optional[_Union[Latency, _Mapping]] = ..., canary_answered: _Optional[int] = ..., canary_failed: _Optional[int] = ..., canary_latency: _Optional[_Union[Latency, _Mapping]] = ..., stopped: _Optional[str] = ..., last_failure: _Optional[str] = ...) -> None: ...

class Latency(_message.Message):
    __slots__ = ("searches", "p50_ms", "p95_ms", "serving_p50_ms", "serving_p95_ms")
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P95_MS_FIELD_NUMBER: _ClassVar[int]
    SERVING_P50_MS_FIELD_NUMBER: _ClassVar[int]
    SERVING_P95_MS_FIELD_NUMBER: _ClassVar[int]
    searches: int
    p50_ms: float
    p95_ms: float
    serving_p50_ms: float
    serving_p95_ms: float
    def __init__(self, searches: _Optional[int] = ..., p50_ms: _Optional[float] = ..., p95_ms: _Optional[float] = ..., serving_p50_ms: _Optional[float] = ..., serving_p95_ms: _Optional[float] = ...) -> None: ...

class QueryAdapter(_message.Message):
    __slots__ = ("kind", "from_space", "into_space", "recall", "limit", "passed", "texts", "reason")
    KIND_FIELD_NUMBER: _ClassVar[int]
    FROM_SPACE_FIELD_NUMBER: _ClassVar[int]
    INTO_SPACE_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kind: str
    from_space: str
    into_space: str
    recall: float
    limit: float
    passed: bool
    texts: int
    reason: str
    def __init__(self, kind: _Optional[str] = ..., from_space: _Optional[str] = ..., into_space: _Optional[str] = ..., recall: _Optional[float] = ..., limit: _Optional[float] = ..., passed: _Optional[bool] = ..., texts: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class VersionEvent(_message.Message):
    __slots__ = ("event", "at", "detail")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    event: str
    at: _timestamp_pb2.Timestamp
    detail: _struct_pb2.Struct
    def __init__(self, event: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., detail: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ParkedText(_message.Message):
    __slots__ = ("chunk_id", "reason")
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    chunk_id: str
    reason: str
    def __init__(self, chunk_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("chunks_done", "chunks_total", "embedded", "reused", "chunks_per_s", "seconds_left", "lag")
    CHUNKS_DONE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_PER_S_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    chunks_done: int
    chunks_total: int
    embedded: int
    reused: int
    chunks_per_s: float
    seconds_left: float
    lag: int
    def __init__(self, chunks_done: _Optional[int] = ..., chunks_total: _Optional[int] = ..., embedded: _Optional[int] = ..., reused: _Optional[int] = ..., chunks_per_s: _Optional[float] = ..., seconds_left: _Optional[float] = ..., lag: _Optional[int] = ...) -> None: ...

class Gate(_message.Message):
    __slots__ = ("name", "passed", "value", "limit", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    passed: bool
    value: float
    limit: float
    detail: str
    def __init__(self, name: _Optional[str] = ..., passed: _Optional[bool] = ..., value: _Optional[float] = ..., limit: _Optional[float] = ..., detail: _Optional[str] = ...) -> None: ...

class GoldenQuery(_message.Message):
    __slots__ = ("id", "text", "relevant")
    class RelevantEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RELEVANT_FIELD_NUMBER: _ClassVar[int]
    id: str
    text: str
    relevant: _containers.ScalarMap[str, int]
    def __init__(self, id: _Optional[str] = ..., text: _Optional[str] = ..., relevant: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Interval(_message.Message):
    __slots__ = ("mean", "low", "high")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    mean: float
    low: float
    high: float
    def __init__(self, mean: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class MeasuredVersion(_message.Message):
    __slots__ = ("version", "failed", "p50_ms", "p95_ms", "ndcg")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P95_MS_FIELD_NUMBER: _ClassVar[int]
    NDCG_FIELD_NUMBER: _ClassVar[int]
    version: str
    failed: int
    p50_ms: float
    p95_ms: float
    ndcg: float
    def __init__(self, version: _Optional[str] = ..., failed: _Optional[int] = ..., p50_ms: _Optional[float] = ..., p95_ms: _Optional[float] = ..., ndcg: _Optional[float] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("a", "b", "source", "queries", "skipped", "overlap", "rank_biased_overlap", "judged", "ndcg_delta")
    A_FIELD_NUMBER: _ClassVar[int]
    B_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    RANK_BIASED_OVERLAP_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    NDCG_DELTA_FIELD_NUMBER: _ClassVar[int]
    a: MeasuredVersion
    b: MeasuredVersion
    source: QuerySource
    queries: int
    skipped: int
    overlap: float
    rank_biased_overlap: float
    judged: int
    ndcg_delta: Interval
    def __init__(self, a: _Optional[_Union[MeasuredVersion, _Mapping]] = ..., b: _Optional[_Union[MeasuredVersion, _Mapping]] = ..., source: _Optional[_Union[QuerySource, str]] = ..., queries: _Optional[int] = ..., skipped: _Optional[int] = ..., overlap: _Optional[float] = ..., rank_biased_overlap: _Optional[float] = ..., judged: _Optional[int] = ..., ndcg_delta: _Optional[_Union[Interval, _Mapping]] = ...) -> None: ...

class WriteResult(_message.Message):
    __slots__ = ("seq", "documents", "unchanged", "chunks")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    documents: int
    unchanged: int
    chunks: int
    def __init__(self, seq: _Optional[int] = ..., documents: _Optional[int] = ..., unchanged: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...

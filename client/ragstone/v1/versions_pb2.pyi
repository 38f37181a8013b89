from google.protobuf import struct_pb2 as _struct_pb2
from ragstone.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetVersionRequest(_message.Message):
    __slots__ = ("collection", "name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class GetVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _values_pb2.Version
    def __init__(self, version: _Optional[_Union[_values_pb2.Version, _Mapping]] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class ListVersionsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[_values_pb2.Version]
    def __init__(self, versions: _Optional[_Iterable[_Union[_values_pb2.Version, _Mapping]]] = ...) -> None: ...

class RebuildPlan(_message.Message):
    __slots__ = ("recipe", "space", "dim", "documents", "chunks", "chunks_estimated", "texts_to_embed", "tokens", "embed_s", "build_s", "disk_bytes", "memory_bytes", "notes")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    TEXTS_TO_EMBED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    EMBED_S_FIELD_NUMBER: _ClassVar[int]
    BUILD_S_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    recipe: _values_pb2.Recipe
    space: str
    dim: int
    documents: int
    chunks: int
    chunks_estimated: bool
    texts_to_embed: int
    tokens: int
    embed_s: float
    build_s: float
    disk_bytes: int
    memory_bytes: int
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, recipe: _Optional[_Union[_values_pb2.Recipe, _Mapping]] = ..., space: _Optional[str] = ..., dim: _Optional[int] = ..., documents: _Optional[int] = ..., chunks: _Optional[int] = ..., chunks_estimated: _Optional[bool] = ..., texts_to_embed: _Optional[int] = ..., tokens: _Optional[int] = ..., embed_s: _Optional[float] = ..., build_s: _Optional[float] = ..., disk_bytes: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateVersionRequest(_message.Message):
    __slots__ = ("collection", "recipe", "paused")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    collection: str
    recipe: _values_pb2.Recipe
    paused: bool
    def __init__(self, collection: _Optional[str] = ..., recipe: _Optional[_Union[_values_pb2.Recipe, _Mapping]] = ..., paused: _Optional[bool] = ...) -> None: ...

class CreateVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _values_pb2.Version
    def __init__(self, version: _Optional[_Union[_values_pb2.Version, _Mapping]] = ...) -> None: ...

class PlanVersionRequest(_message.Message):
    __slots__ = ("collection", "recipe")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    recipe: _values_pb2.Recipe
    def __init__(self, collection: _Optional[str] = ..., recipe: _Optional[_Union[_values_pb2.Recipe, _Mapping]] = ...) -> None: ...

class PlanVersionResponse(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: RebuildPlan
    def __init__(self, plan: _Optional[_Union[RebuildPlan, _Mapping]] = ...) -> None: ...

class WatchVersionRequest(_message.Message):
    __slots__ = ("collection", "name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class WatchVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _values_pb2.Version
    def __init__(self, version: _Optional[_Union[_values_pb2.Version, _Mapping]] = ...) -> None: ...

class PromoteVersionRequest(_message.Message):
    __slots__ = ("collection", "name", "force", "gates")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    force: bool
    gates: _struct_pb2.Struct
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ..., force: _Optional[bool] = ..., gates: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class PromoteVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _values_pb2.Version
    def __init__(self, version: _Optional[_Union[_values_pb2.Version, _Mapping]] = ...) -> None: ...

class CompareVersionsRequest(_message.Message):
    __slots__ = ("collection", "a", "b", "queries", "source")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    A_FIELD_NUMBER: _ClassVar[int]
    B_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    a: str
    b: str
    queries: _containers.RepeatedCompositeFieldContainer[_values_pb2.GoldenQuery]
    source: _values_pb2.QuerySource
    def __init__(self, collection: _Optional[str] = ..., a: _Optional[str] = ..., b: _Optional[str] = ..., queries: _Optional[_Iterable[_Union[_values_pb2.GoldenQuery, _Mapping]]] = ..., source: _Optional[_Union[_values_pb2.QuerySource, str]] = ...) -> None: ...

class CompareVersionsResponse(_message.Message):
    __slots__ = ("comparison",)
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    comparison: _values_pb2.Comparison
    def __init__(self, comparison: _Optional[_Union[_values_pb2.Comparison, _Mapping]] = ...) -> None: ...

class RollbackVersionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class RollbackVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _values_pb2.Version
    def __init__(self, version: _Optional[_Union[_values_pb2.Version, _Mapping]] = ...) -> None: ...

class PauseVersionRequest(_message.Message):
    __slots__ = ("collection", "name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class PauseVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _values_pb2.Version
    def __init__(self, version: _Optional[_Union[_values_pb2.Version, _Mapping]] = ...) -> None: ...

class ResumeVersionRequest(_message.Message):
    __slots__ = ("collection", "name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ResumeVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _values_pb2.Version
    def __init__(self, version: _Optional[_Union[_values_pb2.Version, _Mapping]] = ...) -> None: ...

class SetTrafficRequest(_message.Message):
    __slots__ = ("collection", "version", "shadow", "canary")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    version: str
    shadow: float
    canary: float
    def __init__(self, collection: _Optional[str] = ..., version: _Optional[str] = ..., shadow: _Optional[float] = ..., canary: _Optional[float] = ...) -> None: ...

class SetTrafficResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: _values_pb2.Version
    def __init__(self, version: _Optional[_Union[_values_pb2.Version, _Mapping]] = ...) -> None: ...

class DeleteVersionRequest(_message.Message):
    __slots__ = ("collection", "name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class DeleteVersionResponse(_message.Message):
    __slots__ = ("bytes_freed",)
    BYTES_FREED_FIELD_NUMBER: _ClassVar[int]
    bytes_freed: int
    def __init__(self, bytes_freed: _Optional[int] = ...) -> None: ...

class ListMissingEmbeddingsRequest(_message.Message):
    __slots__ = ("collection", "version", "worker", "max_texts", "lease_seconds")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXTS_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    version: str
    worker: str
    max_texts: int
    lease_seconds: float
    def __init__(self, collection: _Optional[str] = ..., version: _Optional[str] = ..., worker: _Optional[str] = ..., max_texts: _Optional[int] = ..., lease_seconds: _Optional[float] = ...) -> None: ...

class MissingText(_message.Message):
    __slots__ = ("text_hash", "text")
    TEXT_HASH_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text_hash: bytes
    text: str
    def __init__(self, text_hash: _Optional[bytes] = ..., text: _Optional[str] = ...) -> None: ...

class MissingTexts(_message.Message):
    __slots__ = ("texts", "lease", "lease_seconds", "space", "dim", "embedder", "missing", "parked", "done")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedCompositeFieldContainer[MissingText]
    lease: str
    lease_seconds: float
    space: str
    dim: int
    embedder: _struct_pb2.Struct
    missing: int
    parked: int
    done: bool
    def __init__(self, texts: _Optional[_Iterable[_Union[MissingText, _Mapping]]] = ..., lease: _Optional[str] = ..., lease_seconds: _Optional[float] = ..., space: _Optional[str] = ..., dim: _Optional[int] = ..., embedder: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., missing: _Optional[int] = ..., parked: _Optional[int] = ..., done: _Optional[bool] = ...) -> None: ...

class ListMissingEmbeddingsResponse(_message.Message):
    __slots__ = ("range",)
    RANGE_FIELD_NUMBER: _ClassVar[int]
    range: MissingTexts
    def __init__(self, range: _Optional[_Union[MissingTexts, _Mapping]] = ...) -> None: ...

class RefusedText(_message.Message):
    __slots__ = ("text_hash", "reason")
    TEXT_HASH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    text_hash: bytes
    reason: str
    def __init__(self, text_hash: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class PutEmbeddingsRequest(_message.Message):
    __slots__ = ("collection", "version", "space", "lease", "text_hashes", "vectors", "refused")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TEXT_HASHES_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    collection: str
    version: str
    space: str
    lease: str
    text_hashes: _containers.RepeatedScalarFieldContainer[bytes]
    vectors: bytes
    refused: _containers.RepeatedCompositeFieldContainer[RefusedText]
    def __init__(self, collection: _Optional[str] = ..., version: _Optional[str] = ..., space: _Optional[str] = ..., lease: _Optional[str] = ..., text_hashes: _Optional[_Iterable[bytes]] = ..., vectors: _Optional[bytes] = ..., refused: _Optional[_Iterable[_Union[RefusedText, _Mapping]]] = ...) -> None: ...

class PutEmbeddingsResponse(_message.Message):
    __slots__ = ("missing",)
    MISSING_FIELD_NUMBER: _ClassVar[int]
    missing: int
    def __init__(self, missing: _Optional[int] = ...) -> None: ...

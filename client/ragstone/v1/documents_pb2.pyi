import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from ragstone.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UpsertDocumentsRequest(_message.Message):
    __slots__ = ("collection", "documents", "request_id", "wait")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    documents: _containers.RepeatedCompositeFieldContainer[_values_pb2.Document]
    request_id: str
    wait: _values_pb2.Wait
    def __init__(self, collection: _Optional[str] = ..., documents: _Optional[_Iterable[_Union[_values_pb2.Document, _Mapping]]] = ..., request_id: _Optional[str] = ..., wait: _Optional[_Union[_values_pb2.Wait, str]] = ...) -> None: ...

class UpsertDocumentsResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _values_pb2.WriteResult
    def __init__(self, result: _Optional[_Union[_values_pb2.WriteResult, _Mapping]] = ...) -> None: ...

class ImportDocumentsRequest(_message.Message):
    __slots__ = ("collection", "documents", "request_id", "wait", "index")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    collection: str
    documents: _containers.RepeatedCompositeFieldContainer[_values_pb2.Document]
    request_id: str
    wait: _values_pb2.Wait
    index: int
    def __init__(self, collection: _Optional[str] = ..., documents: _Optional[_Iterable[_Union[_values_pb2.Document, _Mapping]]] = ..., request_id: _Optional[str] = ..., wait: _Optional[_Union[_values_pb2.Wait, str]] = ..., index: _Optional[int] = ...) -> None: ...

class ImportDocumentsResponse(_message.Message):
    __slots__ = ("index", "ack", "back_off")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    BACK_OFF_FIELD_NUMBER: _ClassVar[int]
    index: int
    ack: _values_pb2.WriteResult
    back_off: BackOff
    def __init__(self, index: _Optional[int] = ..., ack: _Optional[_Union[_values_pb2.WriteResult, _Mapping]] = ..., back_off: _Optional[_Union[BackOff, _Mapping]] = ...) -> None: ...

class BackOff(_message.Message):
    __slots__ = ("retry_after",)
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    retry_after: _duration_pb2.Duration
    def __init__(self, retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetDocumentRequest(_message.Message):
    __slots__ = ("collection", "id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    id: str
    def __init__(self, collection: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class GetDocumentResponse(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: _values_pb2.Document
    def __init__(self, document: _Optional[_Union[_values_pb2.Document, _Mapping]] = ...) -> None: ...

class ListDocumentsRequest(_message.Message):
    __slots__ = ("collection", "page_size", "page_token")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    page_size: int
    page_token: str
    def __init__(self, collection: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDocumentsResponse(_message.Message):
    __slots__ = ("documents", "next_page_token")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[_values_pb2.Document]
    next_page_token: str
    def __init__(self, documents: _Optional[_Iterable[_Union[_values_pb2.Document, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteDocumentsRequest(_message.Message):
    __slots__ = ("collection", "ids", "filter", "request_id", "wait")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    filter: str
    request_id: str
    wait: _values_pb2.Wait
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., filter: _Optional[str] = ..., request_id: _Optional[str] = ..., wait: _Optional[_Union[_values_pb2.Wait, str]] = ...) -> None: ...

class DeleteDocumentsResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _values_pb2.WriteResult
    def __init__(self, result: _Optional[_Union[_values_pb2.WriteResult, _Mapping]] = ...) -> None: ...

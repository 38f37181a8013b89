"""The methods of the API, and a call of one of them, ready to be sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ragstone.v1 import collections_pb2, documents_pb2, retrieval_pb2, versions_pb2

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


def _methods(file: FileDescriptor) -> dict[str, Method]:
    return {
        method.name: Method(
            f"/{service.full_name}/{method.name}", GetMessageClass(method.output_type).FromString
        )
        for service in file.services_by_name.values()
        for method in service.methods
    }


METHODS: Final[Mapping[str, Method]] = {
    name: method
    for file in (retrieval_pb2, collections_pb2, documents_pb2, versions_pb2)
    for name, method in _methods(file.DESCRIPTOR).items()
}

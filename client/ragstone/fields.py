"""The parts of messages: texts, vectors, metadata, times and tables <-> protobuf, pure."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct
from google.protobuf.struct_pb2 import Value as StructValue
from google.protobuf.timestamp_pb2 import Timestamp

from ragstone.errors import FieldViolation, InvalidArgument
from ragstone.types import Metadata, MetadataValue, VectorLike
from ragstone.v1 import values_pb2

_M = TypeVar("_M", bound=Message)


# -- building messages ------------------------------------------------------------------------


def build(message: type[_M], at: str, /, **fields: Any) -> _M:
    """A message from its fields; ``None`` leaves a field unset.

    Raises InvalidArgument naming every field, under the path ``at``, that protobuf does not take: a
    wrong type, a number out of range, text that is not Unicode.
    """
    try:
        return message(**fields)
    except (TypeError, ValueError, OverflowError):
        found = [v for name, value in fields.items() if (v := _refusal(message, at, name, value))]
        if not found:
            raise
        raise refusing(found) from None


def refusing(violations: Sequence[FieldViolation]) -> InvalidArgument:
    """One error for several wrong fields."""
    text = "; ".join(f"{v.field}: {v.description}" for v in violations[:5])
    more = f"; and {len(violations) - 5} more" if len(violations) > 5 else ""
    return InvalidArgument(text + more, violations=tuple(violations))


def encode_choice(table: Mapping[Any, int], value: str, at: str) -> int:
    """The number of an enum's name. Raises InvalidArgument at ``at`` for an unknown one."""
    try:
        return table[value]
    except (KeyError, TypeError):
        names = ", ".join(str(name) for name in table)
        raise InvalidArgument.at(at, f"{value!r} is none of {names}") from None


def _refusal(message: type[Message], at: str, name: str, value: Any) -> FieldViolation | None:
    try:
        message(**{name: value})
    except UnicodeEncodeError as exc:
        return FieldViolation(at + name, f"not valid Unicode: a lone surrogate at character {exc.start}")
    except (TypeError, ValueError, OverflowError) as exc:
        return FieldViolation(at + name, str(exc))
    return None


# -- vectors ----------------------------------------------------------------------------------


def encode_floats(vector: VectorLike, at: str) -> bytes:
    """Little-endian float32 bytes of a sequence of floats or a one-dimensional buffer.

    Raises InvalidArgument at ``at`` for anything else.
    """
    try:
        view = memoryview(vector)
    except TypeError:
        return _pack(vector, at)
    if view.ndim != 1:
        raise InvalidArgument.at(at, f"must have one dimension, has {view.ndim}")
    if view.format in ("f", "<f") and sys.byteorder == "little":
        return view.tobytes()
    if view.format in ("b", "B", "c"):
        raise InvalidArgument.at(at, "must hold floats, holds bytes")
    return _pack(vector, at)


def decode_floats(values: bytes) -> array[float]:
    """The components of a vector that came as bytes."""
    row = array("f", values)
    if sys.byteorder == "big":
        row.byteswap()
    return row


def _pack(vector: Iterable[float], at: str) -> bytes:
    try:
        row = array("f", vector)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidArgument.at(at, f"must be a sequence of floats: {exc}") from None
    if sys.byteorder == "big":
        row.byteswap()
    return row.tobytes()


def encode_vector(vector: VectorLike | None, space: str | None, at: str) -> values_pb2.Vector | None:
    """A vector and its space; ``None`` stays ``None``. Raises InvalidArgument under the path ``at``."""
    if vector is None:
        return None
    return build(values_pb2.Vector, f"{at}.", values=encode_floats(vector, f"{at}.values"), space=space)


# -- metadata ---------------------------------------------------------------------------------


def put_metadata(fields: Any, metadata: Metadata, at: str = "metadata") -> None:
    """Fill the map field of a message, in place: half the time of building each value first.

    Raises InvalidArgument at ``at["key"]``.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidArgument.at(at, f"must be a mapping, is {type(metadata).__name__}")
    for key, value in metadata.items():
        try:
            _put_value(fields[key], value)
        except (TypeError, ValueError, OverflowError) as exc:
            why = "not valid Unicode" if isinstance(exc, UnicodeEncodeError) else str(exc)
            raise InvalidArgument.at(f'{at}["{_printable(key)}"]', why) from None


def decode_metadata(fields: Mapping[str, values_pb2.Value], at: str = "metadata") -> dict[str, MetadataValue]:
    """The reverse of ``put_metadata``, by key. Raises InvalidArgument at ``at["key"]``."""
    return {key: _decode_value(fields[key], at, key) for key in sorted(fields)} if fields else {}


_VALUE_FIELDS: Final[Mapping[type, str]] = {
    str: "string_value",
    bool: "bool_value",
    int: "int_value",
    float: "double_value",
}


def _put_value(slot: values_pb2.Value, value: MetadataValue) -> None:
    name = _VALUE_FIELDS.get(type(value))
    if name is not None:
        setattr(slot, name, value)
    elif isinstance(value, datetime):
        slot.timestamp_value.FromDatetime(value)
    elif isinstance(value, date):
        slot.date_value = value.isoformat()
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        slot.list_value.SetInParent()
        for item in value:
            if isinstance(item, Sequence) and not isinstance(item, str):
                raise TypeError("a list of lists is not metadata")
            _put_value(slot.list_value.values.add(), item)
    else:
        _put_subclass(slot, value)


def _put_subclass(slot: values_pb2.Value, value: MetadataValue) -> None:
    """An enum's member that is text, a NumPy float: what stands on a plain type."""
    for kind, name in _VALUE_FIELDS.items():
        if isinstance(value, kind):
            setattr(slot, name, kind(value))
            return
    raise TypeError(
        f"{type(value).__name__} is not metadata: use text, numbers, booleans, dates or lists of them"
    )


def _decode_value(value: values_pb2.Value, at: str, key: str) -> MetadataValue:
    kind = value.WhichOneof("kind")
    if kind in _PLAIN_KINDS:
        plain: MetadataValue = getattr(value, kind)
        return plain
    if kind == "timestamp_value":
        return decode_time(value.timestamp_value)
    path = f'{at}["{key}"]'
    if kind == "date_value":
        try:
            return date.fromisoformat(value.date_value)
        except ValueError as exc:
            raise InvalidArgument.at(path, str(exc)) from None
    if kind == "list_value":
        items = value.list_value.values
        if any(item.WhichOneof("kind") in (None, "list_value") for item in items):
            raise InvalidArgument.at(path, "a list holds scalars only")
        return [_decode_value(item, at, key) for item in items]  # type: ignore[misc]
    raise InvalidArgument.at(path, "holds no value")


_PLAIN_KINDS: Final = frozenset(_VALUE_FIELDS.values())


def _printable(key: object) -> str:
    return str(key).encode(errors="replace").decode()


# -- times and tables of options --------------------------------------------------------------


def encode_time(moment: datetime) -> Timestamp:
    """A point in time; one without a zone is taken as UTC."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def decode_time(stamp: Timestamp) -> datetime:
    """A point in time, in UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


def encode_options(options: Mapping[str, Any], at: str) -> Struct | None:
    """A table of options; an empty one is left out. Raises InvalidArgument at ``at``."""
    if not options:
        return None
    struct = Struct()
    try:
        struct.update(_plain(options))
    except (TypeError, ValueError, AttributeError) as exc:
        raise InvalidArgument.at(
            at, f"must be a table of text, numbers, booleans, lists and tables: {exc}"
        ) from None
    return struct


def decode_options(struct: Struct) -> dict[str, Any]:
    """The reverse of ``encode_options``."""
    return {key: _decode_option(value) for key, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _decode_option(value: StructValue) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return decode_options(value.struct_value)
    if kind == "list_value":
        return _decode_list(value.list_value)
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= 2**53 else number
    return None if kind in (None, "null_value") else getattr(value, kind)


def _decode_list(items: ListValue) -> list[Any]:
    return [_decode_option(item) for item in items.values]

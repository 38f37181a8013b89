"""Metadata: the in-memory follower that turns a filter into keys, and the codec of stored metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, TypeAlias

from pyroaring import BitMap64
from sortedcontainers import SortedList

from indexes.filters import (
    COMPARE,
    DOCUMENT_ID,
    EQUALITIES,
    And,
    Comparison,
    Filter,
    Kind,
    Literal,
    Not,
    Op,
    Or,
    Present,
    elements,
    kind_of,
    readings,
)
from ragstone.errors import InvalidArgument
from ragstone.types import Metadata, MetadataValue

MAX_KEYS: Final = 256
"""Metadata keys of one document."""
MAX_KEY_LENGTH: Final = 128
"""Characters in one metadata key."""
MAX_BYTES: Final = 65_536
"""Bytes of one document's encoded metadata."""

_SWEEP_AT_LEAST: Final = 1024
_DAY: Final = 86_400_000_000
"""Microseconds."""
_TYPES: Final = "a string, a 64-bit integer, a finite number, a boolean, a date, or a list of these"

Comparable: TypeAlias = str | int | float | bool


class MetadataIndex:
    """Which live keys pass a filter. A follower without files: it is filled again on every start.

    For one thread only, the event loop's: ``apply`` and ``select`` never await, so that each sees the
    other as a whole. Hand large batches over in slices, to let other tasks run in between.
    """

    def __init__(self) -> None:
        self._live = BitMap64()
        self._gone = 0
        self._fields: dict[str, _Field] = {}

    def __len__(self) -> int:
        """The number of live keys."""
        return len(self._live)

    def apply(self, added: Sequence[tuple[int, str, Metadata]], deleted: Sequence[int]) -> None:
        """Add ``(key, document id, metadata)`` triples, then take ``deleted`` keys out.

        Metadata is as ``decode_metadata`` gives it. A key is never used for anything else, so that
        applying a batch twice changes nothing.
        """
        fields = self._fields
        for key, document_id, metadata in added:
            _field(fields, DOCUMENT_ID).add(key, document_id)
            for name, value in metadata.items():
                _field(fields, name).add(key, value)
        self._live.update([key for key, _, _ in added])
        before = len(self._live)
        self._live.difference_update(BitMap64(deleted))
        self._gone += before - len(self._live)
        if self._gone > max(_SWEEP_AT_LEAST, len(self._live)):
            self._sweep()

    def select(self, node: Filter | None) -> BitMap64:
        """The live keys whose document ``filters.matches``; the caller owns the result."""
        if node is None:
            return self._live.copy()
        return self._keys(node) & self._live

    def _keys(self, node: Filter) -> BitMap64:
        """Keys that pass; among them may be deleted ones."""
        match node:
            case And(operands):
                return BitMap64.intersection(*map(self._keys, operands))
            case Or(operands):
                return BitMap64.union(*map(self._keys, operands))
            case Not(operand):
                return self._live - self._keys(operand)
            case Comparison(name, Op.NE, value):
                return self._live - self._keys(Comparison(name, Op.EQ, value))
        field = self._fields.get(node.field)
        if field is None:
            return BitMap64()
        return field.present if isinstance(node, Present) else field.select(node.op, node.value)

    def _sweep(self) -> None:
        """Forget deleted keys. Rare: as many keys have left since the last time as are live."""
        for field in self._fields.values():
            field.keep(self._live)
        self._fields = {name: field for name, field in self._fields.items() if field.present}
        self._gone = 0


class _Field:
    """The postings of one field, by kind of value."""

    __slots__ = ("_postings", "present")

    def __init__(self) -> None:
        self.present = BitMap64()
        self._postings: dict[Kind, _Postings] = {}

    def add(self, key: int, value: MetadataValue) -> None:
        for element in elements(value):
            kind, comparable = kind_of(element)
            postings = self._postings.get(kind)
            if postings is None:
                postings = self._postings[kind] = _Instants() if kind is Kind.INSTANT else _Postings()
            postings.add(key, comparable)
            self.present.add(key)

    def select(self, op: Op, literal: Literal) -> BitMap64:
        found = BitMap64()
        for kind, comparable in readings(literal):
            postings = self._postings.get(kind)
            if postings is None:
                continue
            if op in EQUALITIES:
                found |= postings.equal(comparable)
            elif kind is not Kind.BOOL:
                found |= postings.between(op, comparable)
        return found

    def keep(self, live: BitMap64) -> None:
        self.present &= live
        for postings in self._postings.values():
            postings.keep(live)


class _Postings:
    """Values of one kind -> keys. A lone key stays an int: most values of most fields are unique,
    and a bitmap costs 350 bytes. Values are sorted when the first range asks for it."""

    __slots__ = ("_keys", "_sorted", "_unsorted")

    def __init__(self) -> None:
        self._keys: dict[Comparable, int | BitMap64] = {}
        self._sorted: SortedList[Any] = SortedList()
        self._unsorted: list[Comparable] = []

    def add(self, key: int, value: Comparable) -> None:
        keys = self._keys.get(value)
        if keys is None:
            self._keys[value] = key
            self._unsorted.append(value)
        elif isinstance(keys, BitMap64):
            keys.add(key)
        elif keys != key:
            self._keys[value] = BitMap64((keys, key))

    def equal(self, value: Comparable) -> BitMap64:
        keys = self._keys.get(value)
        if keys is None:
            return BitMap64()
        return keys if isinstance(keys, BitMap64) else BitMap64((keys,))

    def between(self, op: Op, bound: Comparable) -> BitMap64:
        ordered = self._ordered()
        right = op in (Op.LE, Op.GT)
        cut = ordered.bisect_right(bound) if right else ordered.bisect_left(bound)
        return self._union(ordered[:cut] if op in (Op.LT, Op.LE) else ordered[cut:])

    def keep(self, live: BitMap64) -> None:
        old, self._keys = self._keys, {}
        for value, keys in old.items():
            if isinstance(keys, BitMap64):
                rest = keys & live
                if rest:
                    self._keys[value] = rest if len(rest) > 1 else rest[0]
            elif keys in live:
                self._keys[value] = keys
        self._sorted, self._unsorted = SortedList(), list(self._keys)

    def _ordered(self) -> SortedList[Any]:
        self._sorted.update(self._unsorted)
        self._unsorted = []
        return self._sorted

    def _union(self, values: Iterable[Comparable]) -> BitMap64:
        postings = [self._keys[value] for value in values]
        lone = BitMap64([each for each in postings if not isinstance(each, BitMap64)])
        return BitMap64.union(lone, *[each for each in postings if isinstance(each, BitMap64)])


class _Instants(_Postings):
    """Instants, and the same by day: most of a range is then a union of days, of which there are few."""

    __slots__ = ("_days",)

    def __init__(self) -> None:
        super().__init__()
        self._days = _Postings()

    def add(self, key: int, value: Any) -> None:
        super().add(key, value)
        self._days.add(key, value // _DAY)

    def between(self, op: Op, bound: Any) -> BitMap64:
        day = bound // _DAY
        others = self._days.between(Op.LT if op in (Op.LT, Op.LE) else Op.GT, day)
        same_day = self._ordered().irange(day * _DAY, (day + 1) * _DAY, (True, False))
        return others | self._union(value for value in same_day if COMPARE[op](value, bound))

    def keep(self, live: BitMap64) -> None:
        super().keep(live)
        self._days.keep(live)


def _field(fields: dict[str, _Field], name: str) -> _Field:
    field = fields.get(name)
    if field is None:
        field = fields[name] = _Field()
    return field


# -- the codec --------------------------------------------------------------------------------


def encode_metadata(metadata: Metadata) -> str:
    """Canonical JSON of metadata: sorted keys, no spaces, so that equal metadata is equal text.

    Dates become ``{"$date": "2024-01-31"}``, times ``{"$date": "2024-01-31T10:00:00+00:00"}``; a time
    without offset is UTC. Raises InvalidArgument naming ``metadata.<key>`` for a value of any other type than
    strings, 64-bit integers, finite numbers, booleans, dates, times and lists of them; for an empty or
    over-long key, or ``document_id``; and for metadata with too many keys or bytes.
    """
    if len(metadata) > MAX_KEYS:
        raise InvalidArgument.at("metadata", f"has {len(metadata)} keys; at most {MAX_KEYS} fit")
    plain = {_checked_key(key): _plain(key, value) for key, value in metadata.items()}
    text = _ENCODER.encode(plain)
    if len(text.encode()) > MAX_BYTES:
        largest = max(plain, key=lambda key: len(json.dumps(plain[key])))
        raise InvalidArgument.at(
            f"metadata.{largest}",
            f"all metadata has {len(text.encode())} bytes, this key the most; at most {MAX_BYTES} fit",
        )
    return text


def decode_metadata(text: str) -> dict[str, MetadataValue]:
    """What ``encode_metadata`` was given; sequences come back as lists."""
    decoded: dict[str, MetadataValue] = (_DECODER if "$date" in text else _PLAIN_DECODER).decode(text)
    return decoded


def _tagged(pairs: dict[str, Any]) -> Any:
    moment = pairs.get("$date") if len(pairs) == 1 else None
    if not isinstance(moment, str):
        return pairs
    return datetime.fromisoformat(moment) if "T" in moment else date.fromisoformat(moment)


# Made once: a decoder with a hook is slow to make, and one without it decodes in C.
_DECODER: Final = json.JSONDecoder(object_hook=_tagged)
_PLAIN_DECODER: Final = json.JSONDecoder()
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not key or not _encodable(key):
        raise InvalidArgument.at("metadata", f"a key must be Unicode text, and not empty: {key!r}")
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidArgument.at(
            f"metadata.{key[:MAX_KEY_LENGTH]}",
            f"the key has {len(key)} characters; at most {MAX_KEY_LENGTH} fit",
        )
    if key == DOCUMENT_ID:
        raise InvalidArgument.at(f"metadata.{key}", "the name is taken: filters read it as the document's id")
    return key


def _plain(key: str, value: object) -> object:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_scalar(f"metadata.{key}[{at}]", element) for at, element in enumerate(value)]
    return _scalar(f"metadata.{key}", value)


def _scalar(path: str, value: object) -> object:
    match value:
        case bool():
            return value
        case str() if _encodable(value):
            return str(value)
        case int() if -(2**63) <= value < 2**63:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case datetime():
            moment = value if value.utcoffset() is not None else value.replace(tzinfo=UTC)
            return {"$date": moment.isoformat()}
        case date():
            return {"$date": value.isoformat()}
    raise InvalidArgument.at(path, f"must be {_TYPES}, not {_described(value)}")


def _described(value: object) -> str:
    match value:
        case str():
            return "text with lone surrogates"
        case int() | float():
            return f"{value:.6g}" if isinstance(value, float) else "an integer of more than 64 bits"
        case None:
            return "null; leave the key out"
        case Mapping():
            return 'a map; give each entry a key of its own, such as "author.name"'
    return f"a {type(value).__name__}"


def _encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text) if not text.isascii() else True

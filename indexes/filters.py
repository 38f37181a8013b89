"""Filters over metadata: AIP-160 text -> a frozen tree, and what a tree means.

    lang = "en" AND year >= 2020 AND NOT tags:"draft"
    (lang = de OR lang = fr) -archived:*            juxtaposition is AND, "-" is NOT
    published < 2024-01-31 OR document_id = "a/b"

The grammar is that of https://google.aip.dev/160 without functions, wildcards and bare literals; ``OR``
binds tighter than ``AND``, and keywords are in capitals. A field name with other characters than letters,
digits, ``_``, ``-`` and ``.`` is written in quotes.

Meaning, for a field that holds one value or a list of them (a missing field is an empty list):

- ``=`` and ``:`` hold when *any* element equals the value; ``<  <=  >  >=`` when any element compares so.
- ``!=`` is exactly ``NOT =``: no element equals the value. So it also holds where the field is missing.
- ``NOT`` is set complement: ``NOT tags:"x"`` holds where ``tags`` is missing.
- ``field:*`` holds when there is at least one element.
- Values of different kinds never compare. Integers and floats are one kind. Booleans know only equality.
  Strings compare by code points, case-sensitively. A date is midnight UTC, a time without offset is UTC.
- An ISO 8601 value, quoted or bare, compares as a point in time with dates and as text with strings.
- ``document_id`` is the id of the document, whatever its metadata.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeAlias

from ragstone.errors import InvalidFilter
from ragstone.types import MetadataValue, Scalar

MAX_LENGTH: Final = 8192
"""Characters in one filter."""
MAX_DEPTH: Final = 64
"""Parentheses inside parentheses."""
DOCUMENT_ID: Final = "document_id"

Literal: TypeAlias = str | int | float | bool


class Op(StrEnum):
    """A comparator."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    HAS = ":"


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field op value``. Python holds ``1`` and ``True`` for equal: use ``str()`` as a cache key."""

    field: str
    op: Op
    value: Literal

    def __str__(self) -> str:
        spaced = self.op if self.op is Op.HAS else f" {self.op} "
        return f"{_name(self.field)}{spaced}{_literal(self.value)}"


@dataclass(frozen=True, slots=True)
class Present:
    """``field:*``"""

    field: str

    def __str__(self) -> str:
        return f"{_name(self.field)}:*"


@dataclass(frozen=True, slots=True)
class Not:
    """``NOT operand``"""

    operand: Filter

    def __str__(self) -> str:
        return f"NOT {_group(self.operand, (Not, And, Or))}"


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more operands, none of them an ``And``."""

    operands: tuple[Filter, ...]

    def __str__(self) -> str:
        return " AND ".join(_group(operand, (And,)) for operand in self.operands)


@dataclass(frozen=True, slots=True)
class Or:
    """Any of two or more operands, none of them an ``Or``."""

    operands: tuple[Filter, ...]

    def __str__(self) -> str:
        return " OR ".join(_group(operand, (And, Or)) for operand in self.operands)


Filter: TypeAlias = Comparison | Present | Not | And | Or
"""A parsed filter; ``str()`` gives its canonical text, which parses to the same tree."""


def all_of(operands: Iterable[Filter]) -> Filter:
    """The conjunction of one or more filters, flat."""
    flat = [part for each in operands for part in (each.operands if isinstance(each, And) else (each,))]
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def any_of(operands: Iterable[Filter]) -> Filter:
    """The disjunction of one or more filters, flat."""
    flat = [part for each in operands for part in (each.operands if isinstance(each, Or) else (each,))]
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


def parse(text: str) -> Filter | None:
    """The tree of a filter; ``None``, which matches everything, for blank text.

    Raises InvalidFilter, with the column, for text that is no filter, is longer than ``MAX_LENGTH``
    characters or nests deeper than ``MAX_DEPTH``.
    """
    return _Parser(text).parse() if text.strip() else None


# -- meaning ----------------------------------------------------------------------------------


class Kind(StrEnum):
    """Values compare only within a kind."""

    STRING = "string"
    NUMBER = "number"
    BOOL = "bool"
    INSTANT = "instant"


COMPARE: Final[Mapping[Op, Callable[[Any, Any], bool]]] = {
    Op.EQ: operator.eq,
    Op.HAS: operator.eq,
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.GE: operator.ge,
}
EQUALITIES: Final = frozenset({Op.EQ, Op.HAS, Op.NE})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def kind_of(value: Scalar) -> tuple[Kind, str | int | float | bool]:
    """The kind of a metadata value, and what stands for it there: for an instant, microseconds since 1970."""
    if isinstance(value, str):
        return Kind.STRING, value
    if isinstance(value, bool):  # before int: a bool is one
        return Kind.BOOL, value
    if isinstance(value, int | float):
        return Kind.NUMBER, value
    return Kind.INSTANT, _instant(value)


def readings(literal: Literal) -> Iterator[tuple[Kind, str | int | float | bool]]:
    """What a literal may mean: itself, and the instant that a string may spell."""
    yield kind_of(literal)
    moment = _moment(literal) if isinstance(literal, str) else None
    if moment is not None:
        yield Kind.INSTANT, _instant(moment)


def elements(value: MetadataValue | None) -> tuple[Scalar, ...]:
    """A field's values: none when it is missing, one when it is no list."""
    if value is None:
        return ()
    if isinstance(value, str | bool | int | float | date):
        return (value,)
    return tuple(value)


def matches(node: Filter | None, document_id: str, metadata: Mapping[str, MetadataValue]) -> bool:
    """Whether a document passes a filter. This function is the definition that every index must equal."""
    match node:
        case None:
            return True
        case And(operands):
            return all(matches(each, document_id, metadata) for each in operands)
        case Or(operands):
            return any(matches(each, document_id, metadata) for each in operands)
        case Not(operand):
            return not matches(operand, document_id, metadata)
    values = (document_id,) if node.field == DOCUMENT_ID else elements(metadata.get(node.field))
    if isinstance(node, Present):
        return bool(values)
    if node.op is Op.NE:
        return not any(_holds(value, Op.EQ, node.value) for value in values)
    return any(_holds(value, node.op, node.value) for value in values)


def _holds(value: Scalar, op: Op, literal: Literal) -> bool:
    kind, mine = kind_of(value)
    return any(
        kind is other and (kind is not Kind.BOOL or op in EQUALITIES) and COMPARE[op](mine, theirs)
        for other, theirs in readings(literal)
    )


def _instant(value: date) -> int:
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif value.utcoffset() is None:
        value = value.replace(tzinfo=UTC)
    return (value - _EPOCH) // _MICROSECOND


def _moment(text: str) -> datetime | None:
    if not _ISO_8601.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


# -- text -------------------------------------------------------------------------------------

_SPACE: Final = re.compile(r"\s*")
_KEYWORD: Final = re.compile(r"(AND|OR|NOT)(?![\w.-])")
_FIELD: Final = re.compile(r"[^\W\d][\w-]*(?:\.[\w-]+)*")
_COMPARATOR: Final = re.compile(r"<=|>=|!=|[=<>:]")
_BARE: Final = re.compile(r"""[^\s()"'=<>!,]+""")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_ISO_8601: Final = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)
_ESCAPES: Final = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t"}
_BORROWED: Final = {"&&": "AND", "||": "OR", "!": "NOT", "and": "AND", "or": "OR", "not": "NOT"}


def _name(field: str) -> str:
    plain = _FIELD.fullmatch(field) and not _KEYWORD.fullmatch(field)
    return field if plain else _quoted(field)


def _literal(value: Literal) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _group(node: Filter, kinds: tuple[type, ...]) -> str:
    return f"({node})" if isinstance(node, kinds) else str(node)


class _Parser:
    """Recursive descent, one method for each rule of the grammar; only parentheses recurse."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def parse(self) -> Filter:
        if len(self._text) > MAX_LENGTH:
            self._fail(
                f"the filter has {len(self._text)} characters; at most {MAX_LENGTH} are read", MAX_LENGTH
            )
        node = self._expression()
        if self._at < len(self._text):
            self._fail('found ")" that no "(" opens')
        return node

    def _expression(self) -> Filter:
        operands = [self._factor()]
        while self._peek() not in ("", ")"):
            self._keyword("AND")
            operands.append(self._factor())
        return all_of(operands)

    def _factor(self) -> Filter:
        terms = [self._term()]
        while self._keyword("OR"):
            terms.append(self._term())
        return any_of(terms)

    def _term(self) -> Filter:
        if self._keyword("NOT"):
            return Not(self._simple())
        if self._peek() == "-":
            self._at += 1
            return Not(self._simple())
        return self._simple()

    def _simple(self) -> Filter:
        if self._peek() != "(":
            return self._restriction()
        if self._depth == MAX_DEPTH:
            self._fail(f"parentheses nest deeper than {MAX_DEPTH}")
        opened = self._at
        self._at += 1
        self._depth += 1
        node = self._expression()
        if self._peek() != ")":
            self._fail('this "(" is never closed', opened)
        self._at += 1
        self._depth -= 1
        return node

    def _restriction(self) -> Filter:
        start, name = self._field()
        comparator = self._take(_COMPARATOR)
        if comparator is None:
            if name in _BORROWED:
                self._fail(f'found "{name}"; write {_BORROWED[name]}', start)
            self._fail(f'expected one of = != < <= > >= : after "{name}", found {self._found()}')
        return self._value(name, Op(comparator))

    def _field(self) -> tuple[int, str]:
        first, start = self._peek(), self._at
        if first in ('"', "'"):
            return start, self._string()
        name = None if _KEYWORD.match(self._text, start) else self._take(_FIELD)
        if name is None:
            self._fail(f'expected a field name, such as year in "year >= 2020", found {self._found()}')
        return start, name

    def _value(self, field: str, op: Op) -> Filter:
        first, start = self._peek(), self._at
        if first in ('"', "'"):
            return Comparison(field, op, self._string())
        if first == "(":
            self._fail(f'a value is no group; compare "{field}" with each value, joined by OR')
        if first == "=" and op is Op.EQ:
            self._fail('found "=="; write =', start - 1)
        word = None if _KEYWORD.match(self._text, start) else self._take(_BARE)
        if word is None:
            self._fail(f'expected a value after "{op}", found {self._found()}')
        if word == "*":
            if op is not Op.HAS:
                self._fail(f'"*" asks whether a field is there, and is written "{field}:*"', start)
            return Present(field)
        return Comparison(field, op, self._bare(word, start))

    def _bare(self, word: str, start: int) -> Literal:
        if word in ("true", "false"):
            return word == "true"
        if _NUMBER.fullmatch(word):
            return self._number(word, start)
        if _ISO_8601.fullmatch(word) and _moment(word) is None:
            self._fail(f"{word} is no date of the calendar; quote it to compare it as text", start)
        if "*" in word:
            self._fail("wildcards are not supported; quote a value in which * is a plain character", start)
        return word

    def _number(self, word: str, start: int) -> int | float:
        if word.lstrip("-").isdigit() and len(word) <= 20 and -(2**63) <= int(word) < 2**63:
            return int(word)
        number = float(word)
        if word.lstrip("-").isdigit() or abs(number) == float("inf"):
            self._fail("the number is out of range: integers have 64 bits, other numbers are doubles", start)
        return number

    def _string(self) -> str:
        start, quote = self._at, self._text[self._at]
        parts: list[str] = []
        self._at += 1
        while (char := self._text[self._at : self._at + 1]) != quote:
            if char == "":
                self._fail(f"this {quote} is never closed", start)
            if char == "\\":
                self._at += 1
                char = _ESCAPES.get(self._text[self._at : self._at + 1], "")
                if not char:
                    self._fail("after a backslash, expected one of \\ \" ' n t; a plain one is written \\\\")
            parts.append(char)
            self._at += 1
        self._at += 1
        return "".join(parts)

    def _keyword(self, word: str) -> bool:
        self._peek()
        found = _KEYWORD.match(self._text, self._at)
        if found is None or found[1] != word:
            return False
        self._at = found.end()
        return True

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        self._peek()
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found[0]

    def _peek(self) -> str:
        """Skip white space; the next character, or "" at the end."""
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at
        return self._text[self._at : self._at + 1]

    def _found(self) -> str:
        if not self._peek():
            return "the end of the filter"
        for foreign in ("&&", "||"):
            if self._text.startswith(foreign, self._at):
                return f'"{foreign}"; write {_BORROWED[foreign]}'
        word = _BARE.match(self._text, self._at)
        seen = word[0] if word else self._text[self._at]
        return f'"{seen[:32]}"' + (f"; write {_BORROWED[seen]}" if seen in _BORROWED else "")

    def _fail(self, description: str, at: int | None = None) -> NoReturn:
        column = (self._at if at is None else at) + 1
        raise InvalidFilter.at("filter", f"{description} (column {column})", column=str(column))

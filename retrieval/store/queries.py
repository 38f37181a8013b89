"""Statements that several modules of the store share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from ragstone.errors import NotFound
from retrieval.store import schema
from retrieval.store.values import ChunkRow

T = TypeVar("T")
AnyRow: TypeAlias = Row[*tuple[Any, ...]]

SLICE: Final = 500
"""How many values one IN list holds: below every database's limit of bound parameters."""

_chunks = schema.chunks.c

CHUNK_COLUMNS: Final = (
    _chunks.key,
    _chunks.chunk_id,
    _chunks.document_id,
    _chunks.ordinal,
    _chunks.start,
    _chunks.end,
    _chunks.text,
    _chunks.text_hash,
    _chunks.title,
    _chunks.metadata_json,
    _chunks.language,
)
"""The columns that ``chunk_row`` takes, in its order."""


# Statements that every write runs are built once: building one anew costs as much as running it.

_sequences = schema.sequences.c
_ADVANCE = (
    update(schema.sequences)
    .where(_sequences.name == bindparam("sequence"))
    .values(last=_sequences.last + bindparam("count"))
    .returning(_sequences.last)
)

_HEAD = select(func.max(schema.journal.c.seq)).where(
    schema.journal.c.collection_id == bindparam("collection")
)

_collections = schema.collections.c
_COLLECTION = select(_collections.id).where(
    _collections.id == bindparam("collection"), _collections.name.is_not(None)
)

_counts = schema.chunk_counts.c
_TALLY = (
    update(schema.chunk_counts)
    .where(_counts.collection_id == bindparam("collection"), _counts.chunking == bindparam("its_chunking"))
    .values(live=_counts.live + bindparam("change"))
)


def slices(values: Sequence[T], size: int = SLICE) -> Iterator[Sequence[T]]:
    """``values`` in order, in pieces of at most ``size``."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def chunk_row(row: AnyRow, context: str = "") -> ChunkRow:
    """The value of a row that starts with ``CHUNK_COLUMNS``."""
    key, chunk_id, document_id, ordinal, start, end, text, text_hash, title, metadata_json, language = row[
        :11
    ]
    return ChunkRow(
        key=key,
        chunk_id=chunk_id,
        document_id=document_id,
        ordinal=ordinal,
        start=start,
        end=end,
        text=text,
        text_hash=text_hash,
        title=title,
        metadata_json=metadata_json,
        language=language,
        context=context,
    )


def take(connection: Connection, sequence: str, count: int) -> range:
    """The next ``count`` values of ``sequence``: never given out before, ascending in commit order."""
    last = connection.execute(_ADVANCE, {"sequence": sequence, "count": count}).scalar()
    if last is None:
        connection.execute(insert(schema.sequences), {"name": sequence, "last": count})
        last = count
    return range(last - count + 1, last + 1)


def head(connection: Connection, collection_id: int) -> int:
    """The last journal position of a collection; 0 before the first."""
    return connection.execute(_HEAD, {"collection": collection_id}).scalar() or 0


def require_collection(connection: Connection, collection_id: int) -> None:
    """Raise NotFound unless the collection exists and is not being deleted."""
    if connection.execute(_COLLECTION, {"collection": collection_id}).first() is None:
        raise NotFound(f"there is no collection number {collection_id}")


def tally(connection: Connection, collection_id: int, chunking: str, change: int) -> None:
    """Add ``change`` to the number of live chunks of a chunking."""
    where = {"collection": collection_id, "its_chunking": chunking, "change": change}
    if not connection.execute(_TALLY, where).rowcount:
        row = {"collection_id": collection_id, "chunking": chunking, "live": change}
        connection.execute(insert(schema.chunk_counts), row)

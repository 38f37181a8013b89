"""What goes into the store and what comes out of it: frozen rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionRow:
    """A collection. ``generation`` grows with every change of the serving version."""

    id: int
    name: str
    generation: int
    serving_version_id: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """An index version. ``recipe`` is JSON; ``chunking`` is the fingerprint of the recipe's chunker."""

    id: int
    collection_id: int
    name: str
    state: str
    recipe: str
    space: str
    dim: int
    chunking: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionEvent:
    """Something that happened to a version; ``event`` is the state that it came into, or another name."""

    event: str
    detail: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficRow:
    """The shares of live searches that a version gets, 0 to 1, and what was observed of them (JSON)."""

    shadow: float
    canary: float
    observed: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkDraft:
    """A chunk to be written; offsets count code points of the document's text.

    ``context_start:context_end`` is the window that the lexical leg indexes. ``vector`` is
    little-endian float32 of the write's space, or None where it is not known yet.
    """

    chunk_id: str
    ordinal: int
    start: int
    end: int
    context_start: int
    context_end: int
    text: str
    text_hash: bytes
    vector: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentDraft:
    """A document to be written, already chunked. ``content_hash`` covers all that a search could show."""

    id: str
    title: str
    text: str
    language: str
    metadata_json: str
    content_hash: bytes
    chunks: Sequence[ChunkDraft]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRow:
    """The current state of a document; ``seq`` is the write that made it so."""

    key: int
    id: str
    title: str
    text: str
    language: str
    metadata_json: str
    content_hash: bytes
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRow:
    """A stored chunk. ``context`` is "" in rows fetched by key, where only followers need it."""

    key: int
    chunk_id: str
    document_id: str
    ordinal: int
    start: int
    end: int
    text: str
    text_hash: bytes
    title: str
    metadata_json: str
    language: str
    context: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkMetadata:
    """What a filter index needs of a chunk."""

    key: int
    document_id: str
    language: str
    metadata_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one journal position does to a follower: ``deleted`` keys leave, ``added`` chunks enter.

    ``deleted`` may name keys that this follower never saw.
    """

    seq: int
    added: tuple[ChunkRow, ...] = ()
    deleted: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A durable write. ``step`` is None when nothing changed, and for a replayed request.

    ``previous`` is the last position of the collection before ``step``'s.
    """

    seq: int
    step: Step | None = None
    previous: int = 0
    documents: int = 0
    unchanged: int = 0
    chunks: int = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingEmbedding:
    """A live chunk whose text has no vector in a space; ``position`` is where to go on from."""

    key: int
    chunk_id: str
    text: str
    text_hash: bytes
    title: str
    position: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedText:
    """A chunk's text that has a vector in some space."""

    title: str
    text: str
    text_hash: bytes


def utc_now() -> datetime:
    """The time now, aware, in UTC: the clock of everything that is given no other."""
    return datetime.now(UTC)

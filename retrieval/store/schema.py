"""The tables of the catalog: collections and versions, the journal, documents, chunks, embeddings.

Every row that a reader may hold on to is immutable once committed, with two exceptions: a document's row is
its current state, and a chunk's ``seq_deleted`` is set once. ``migrations/`` builds exactly these tables.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

BigInt = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits everywhere; SQLite gives that, and a rowid alias, only to the name INTEGER."""


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in, aware UTC datetimes out; stored without an offset, in UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The same instant in UTC, without its offset."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """The stored instant, aware."""
        return None if value is None else value.replace(tzinfo=UTC)


class Blob(LargeBinary):
    """Bytes as they are: both drivers take and give ``bytes``, and converting them
    would cost a tenth of a write."""

    def bind_processor(self, dialect: Dialect) -> None:
        """Nothing to convert."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """Nothing to convert."""


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

sequences = Table(
    "sequences",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("last", BigInt, nullable=False),
)
"""The last value given out, by name: ``journal`` positions, ``document`` keys and ``chunk`` keys; and the
revision of the ``catalog``, which grows with every change of collections and versions.

Blocks are taken by one UPDATE inside the transaction that uses them: ascending in commit order, never reused.
"""

catalog_identity = Table("catalog_identity", metadata, Column("id", String(32), primary_key=True))
"""One row, made once: what tells this catalog from every other one."""

doomed_indexes = Table(
    "doomed_indexes",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("options", Text, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
)
"""Indexes to remove from stores that others share, at ``due_at``; ``options`` is JSON, and says where."""

collections = Table(
    "collections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(255), unique=True),
    Column("generation", Integer, nullable=False),
    Column("serving_version_id", Integer),
    Column("documents", BigInt, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)
"""``name`` is NULL while a deleted collection is being purged; ``documents`` counts its documents."""

versions = Table(
    "versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("state", String(32), nullable=False),
    Column("recipe", Text, nullable=False),
    Column("space", String(255), nullable=False),
    Column("dim", Integer, nullable=False),
    Column("chunking", String(255), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("collection_id", "name"),
    sqlite_autoincrement=True,
)

version_events = Table(
    "version_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version_id", ForeignKey("versions.id"), nullable=False),
    Column("event", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "version_id", "id"),
    sqlite_autoincrement=True,
)
"""What happened to each version, and who was told to go on in spite of what: ``detail`` is JSON."""

golden_queries = Table(
    "golden_queries",
    metadata,
    Column("collection_id", ForeignKey("collections.id"), primary_key=True),
    Column("query_id", String(255), primary_key=True),
    Column("text", Text, nullable=False),
    Column("relevant", Text, nullable=False),
)
"""What a collection has to answer well: ``relevant`` is JSON, document id -> grade above 0."""

version_traffic = Table(
    "version_traffic",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("shadow", Float, nullable=False),
    Column("canary", Float, nullable=False),
    Column("observed", Text, nullable=False),
)
"""The shares of live queries that a version gets before it serves; ``observed`` is JSON."""

adapters = Table(
    "adapters",
    metadata,
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("old_space", String(255), nullable=False),
    Column("measured", Text, nullable=False),
    Column("data", Blob, nullable=False),
)
"""A map from the version's space into ``old_space``, and how well it did (JSON)."""

generation_usage = Table(
    "generation_usage",
    metadata,
    Column("day", Date, primary_key=True),
    Column("tenant", String(255), primary_key=True),
    Column("generator", String(255), primary_key=True),
    Column("model", String(512), primary_key=True),
    Column("answers", BigInt, nullable=False),
    Column("prompt_tokens", BigInt, nullable=False),
    Column("cached_tokens", BigInt, nullable=False),
    Column("completion_tokens", BigInt, nullable=False),
    Column("queue_ms", Float, nullable=False),
    Column("ttft_ms", Float, nullable=False),
    Column("writing_ms", Float, nullable=False),
    Column("cost", Float),
)
"""What generators took, by day in UTC; the times are sums, ``cost`` is NULL where nothing had a price."""

journal = Table(
    "journal",
    metadata,
    Column("seq", BigInt, primary_key=True, autoincrement=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("documents", Integer, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "collection_id", "seq"),
)
"""One row for each write that changed something; ``seq`` orders all writes of all collections."""

requests = Table(
    "requests",
    metadata,
    Column("collection_id", ForeignKey("collections.id"), primary_key=True),
    Column("tenant", String(255), primary_key=True),
    Column("request_id", String(255), primary_key=True),
    Column("fingerprint", String(255), nullable=False),
    Column("seq", BigInt, nullable=False),
    Column("documents", Integer, nullable=False),
    Column("unchanged", Integer, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "created_at"),
)
"""What a request id was answered with, also when the request changed nothing."""

documents = Table(
    "documents",
    metadata,
    Column("key", BigInt, primary_key=True, autoincrement=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("id", String(1024), nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("language", String(35), nullable=False),
    Column("metadata_json", Text, nullable=False),
    Column("content_hash", Blob, nullable=False),
    Column("seq", BigInt, nullable=False),
    UniqueConstraint("collection_id", "id"),
    Index(None, "collection_id", "seq"),
)
"""The current state of each document; ``seq`` is the write that made it so."""

chunks = Table(
    "chunks",
    metadata,
    Column("key", BigInt, primary_key=True, autoincrement=False),
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("chunking", String(255), nullable=False),
    Column("document_key", BigInt, nullable=False),
    Column("document_id", String(1024), nullable=False),
    Column("chunk_id", String(1024), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("context_start", Integer, nullable=False),
    Column("context_end", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("text_hash", Blob, nullable=False),
    Column("title", Text, nullable=False),
    Column("metadata_json", Text, nullable=False),
    Column("language", String(35), nullable=False),
    Column("seq_added", BigInt, nullable=False),
    Column("seq_deleted", BigInt),
    Index("ix_chunks_added", "collection_id", "chunking", "seq_added", "key"),
    Index(
        "ix_chunks_deleted",
        "collection_id",
        "chunking",
        "seq_deleted",
        sqlite_where=text("seq_deleted IS NOT NULL"),
        postgresql_where=text("seq_deleted IS NOT NULL"),
    ),
    Index(
        "ix_chunks_live_document",
        "document_key",
        sqlite_where=text("seq_deleted IS NULL"),
        postgresql_where=text("seq_deleted IS NULL"),
    ),
)
"""Every chunk ever written and not yet pruned. A live one (``seq_deleted`` is NULL) belongs to the current
text of its document; no foreign key to it, because deleted chunks outlive their document."""

chunk_counts = Table(
    "chunk_counts",
    metadata,
    Column("collection_id", ForeignKey("collections.id"), primary_key=True),
    Column("chunking", String(255), primary_key=True),
    Column("live", BigInt, nullable=False),
    Column("pruned_seq", BigInt, nullable=False, server_default="0"),
)
"""Live chunks of each chunking, kept by the writes themselves: counting a million rows is slow. Chunks that
were deleted at or before ``pruned_seq`` are forgotten."""

followers = Table(
    "followers",
    metadata,
    Column("server", String(64), primary_key=True),
    Column("version_id", ForeignKey("versions.id"), primary_key=True),
    Column("durable_seq", BigInt, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
)
"""From where each server's index of a version needs the journal, and when that server last said so."""

embeddings = Table(
    "embeddings",
    metadata,
    Column("space", String(255), primary_key=True),
    Column("text_hash", Blob, primary_key=True),
    Column("vector", Blob, nullable=False),
)
"""Content-addressed vectors: little-endian float32, ``dim`` of them. Shared by all collections."""

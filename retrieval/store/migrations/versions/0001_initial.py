"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DELETED = sa.text("seq_deleted IS NOT NULL")
LIVE = sa.text("seq_deleted IS NULL")


def upgrade() -> None:
    """Create everything."""
    _create_collections()
    _create_journal()
    _create_documents()
    _create_chunks()


def downgrade() -> None:
    """Drop everything."""
    for table in (
        "embeddings",
        "chunk_counts",
        "chunks",
        "documents",
        "requests",
        "journal",
        "versions",
        "collections",
        "sequences",
    ):
        op.drop_table(table)


def _collection_id(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(
        "collection_id",
        sa.Integer(),
        sa.ForeignKey("collections.id"),
        nullable=False,
        primary_key=primary_key,
    )


def _create_collections() -> None:
    op.create_table(
        "sequences",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("last", BIG, nullable=False),
    )
    op.create_table(
        "collections",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(255), unique=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("serving_version_id", sa.Integer()),
        sa.Column("documents", BIG, nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer(), primary_key=True),
        _collection_id(),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("space", sa.String(255), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("chunking", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.UniqueConstraint("collection_id", "name"),
        sqlite_autoincrement=True,
    )


def _create_journal() -> None:
    op.create_table(
        "journal",
        sa.Column("seq", BIG, primary_key=True, autoincrement=False),
        _collection_id(),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
    )
    op.create_index(op.f("ix_journal_collection_id_seq"), "journal", ["collection_id", "seq"])
    op.create_table(
        "requests",
        _collection_id(primary_key=True),
        sa.Column("tenant", sa.String(255), primary_key=True),
        sa.Column("request_id", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(255), nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("unchanged", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
    )
    op.create_index(op.f("ix_requests_created_at"), "requests", ["created_at"])


def _create_documents() -> None:
    op.create_table(
        "documents",
        sa.Column("key", BIG, primary_key=True, autoincrement=False),
        _collection_id(),
        sa.Column("id", sa.String(1024), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("language", sa.String(35), nullable=False),
        sa.Column("metadata_json", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.UniqueConstraint("collection_id", "id"),
    )


def _create_chunks() -> None:
    op.create_table(
        "chunks",
        sa.Column("key", BIG, primary_key=True, autoincrement=False),
        _collection_id(),
        sa.Column("chunking", sa.String(255), nullable=False),
        sa.Column("document_key", BIG, nullable=False),
        sa.Column("document_id", sa.String(1024), nullable=False),
        sa.Column("chunk_id", sa.String(1024), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("context_start", sa.Integer(), nullable=False),
        sa.Column("context_end", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_hash", sa.LargeBinary(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("metadata_json", sa.Text(), nullable=False),
        sa.Column("language", sa.String(35), nullable=False),
        sa.Column("seq_added", BIG, nullable=False),
        sa.Column("seq_deleted", BIG),
    )
    op.create_index("ix_chunks_added", "chunks", ["collection_id", "chunking", "seq_added", "key"])
    op.create_index(
        "ix_chunks_deleted",
        "chunks",
        ["collection_id", "chunking", "seq_deleted"],
        sqlite_where=DELETED,
        postgresql_where=DELETED,
    )
    op.create_index(
        "ix_chunks_live_document",
        "chunks",
        ["document_key"],
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    op.create_table(
        "chunk_counts",
        _collection_id(primary_key=True),
        sa.Column("chunking", sa.String(255), primary_key=True),
        sa.Column("live", BIG, nullable=False),
    )
    op.create_table(
        "embeddings",
        sa.Column("space", sa.String(255), primary_key=True),
        sa.Column("text_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
    )

"""What happens to versions; documents in the order of the journal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the table and the indexes."""
    op.create_table(
        "version_events",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("version_id", sa.Integer(), sa.ForeignKey("versions.id"), nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_version_events_version_id_id", "version_events", ["version_id", "id"])
    op.create_index("ix_documents_collection_id_seq", "documents", ["collection_id", "seq"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_documents_collection_id_seq", "documents")
    op.drop_table("version_events")

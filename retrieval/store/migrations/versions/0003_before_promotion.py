"""What is known of a version before it serves: golden queries, traffic, adapters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "golden_queries",
        sa.Column("collection_id", sa.Integer(), sa.ForeignKey("collections.id"), primary_key=True),
        sa.Column("query_id", sa.String(255), primary_key=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("relevant", sa.Text(), nullable=False),
    )
    op.create_table(
        "version_traffic",
        sa.Column("version_id", sa.Integer(), sa.ForeignKey("versions.id"), primary_key=True),
        sa.Column("shadow", sa.Float(), nullable=False),
        sa.Column("canary", sa.Float(), nullable=False),
        sa.Column("observed", sa.Text(), nullable=False),
    )
    op.create_table(
        "adapters",
        sa.Column("version_id", sa.Integer(), sa.ForeignKey("versions.id"), primary_key=True),
        sa.Column("old_space", sa.String(255), nullable=False),
        sa.Column("measured", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("adapters", "version_traffic", "golden_queries"):
        op.drop_table(table)

"""Several servers over one catalog: how far each of them is, and what was pruned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table and the column."""
    many = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "followers",
        sa.Column("server", sa.String(64), primary_key=True),
        sa.Column("version_id", sa.Integer(), sa.ForeignKey("versions.id"), primary_key=True),
        sa.Column("durable_seq", many, nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
    )
    op.add_column("chunk_counts", sa.Column("pruned_seq", many, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("chunk_counts", "pruned_seq")
    op.drop_table("followers")

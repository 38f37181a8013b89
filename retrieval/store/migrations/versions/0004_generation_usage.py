"""What answers took of generators, by day, tenant, generator and model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table."""
    many = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "generation_usage",
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("tenant", sa.String(255), primary_key=True),
        sa.Column("generator", sa.String(255), primary_key=True),
        sa.Column("model", sa.String(512), primary_key=True),
        sa.Column("answers", many, nullable=False),
        sa.Column("prompt_tokens", many, nullable=False),
        sa.Column("cached_tokens", many, nullable=False),
        sa.Column("completion_tokens", many, nullable=False),
        sa.Column("queue_ms", sa.Float(), nullable=False),
        sa.Column("ttft_ms", sa.Float(), nullable=False),
        sa.Column("writing_ms", sa.Float(), nullable=False),
        sa.Column("cost", sa.Float()),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("generation_usage")

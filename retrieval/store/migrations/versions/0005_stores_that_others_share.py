"""Which catalog this is, and what it has still to remove from stores that others share."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add both tables, and give the catalog its identity."""
    identity = op.create_table("catalog_identity", sa.Column("id", sa.String(32), primary_key=True))
    op.bulk_insert(identity, [{"id": uuid4().hex}])
    op.create_table(
        "doomed_indexes",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
    )


def downgrade() -> None:
    """Drop both."""
    op.drop_table("doomed_indexes")
    op.drop_table("catalog_identity")

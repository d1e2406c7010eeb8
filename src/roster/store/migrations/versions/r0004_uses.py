"""Makes room for segments, saved queries, and what is remembered of those who name attributes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "segments",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("entity", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("data_query", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("modified_ms", sa.BigInteger, nullable=False),
        sa.Column("modified_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_segments"),
        sa.UniqueConstraint("name", name="uq_segments_name"),
    )
    op.create_table(
        "queries",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("operation", sa.String, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_queries"),
    )
    op.create_table(
        "uses",
        sa.Column("entity", sa.String, nullable=False),
        sa.Column("attribute", sa.String, nullable=False),
        sa.Column("spelled", sa.String, nullable=False),
        sa.Column("operation", sa.String, nullable=False),
        sa.Column("caller", sa.String, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("entity", "attribute", "spelled", "operation", "caller", name="pk_uses"),
    )
    op.create_index("ix_uses_last_ms", "uses", ["last_ms"])

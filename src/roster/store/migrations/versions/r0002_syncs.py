"""Makes room for syncs: where the rows of a table come from, syncs, their runs, secrets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    _widen_tables()
    _make_syncs()
    _make_runs()
    op.create_table(
        "secrets",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("sealed", sa.String, nullable=False),
        sa.Column("members", sa.JSON, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_secrets"),
    )


def _widen_tables() -> None:
    """Tables made before have one generation of rows, which came by upload; later ones always say it themselves."""
    columns = (
        sa.Column("generation", sa.Integer, nullable=False, server_default="1"),
        sa.Column("held", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("owner", sa.String, nullable=False, server_default=""),
        sa.Column("origin", sa.JSON),
        sa.Column("sync_enabled", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("access_details", sa.String, nullable=False, server_default=""),
    )
    with op.batch_alter_table("reference_tables") as batch:
        for column in columns:
            batch.add_column(column)
    with op.batch_alter_table("reference_tables") as batch:
        for column in columns:
            if column.server_default is not None:
                batch.alter_column(column.name, server_default=None)


def _make_syncs() -> None:
    op.create_table(
        "syncs",
        sa.Column("table_id", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("cursor", sa.String, nullable=False),
        sa.Column("full_ms", sa.BigInteger),
        sa.Column("tried_ms", sa.BigInteger),
        sa.Column("synced_ms", sa.BigInteger),
        sa.Column("total", sa.BigInteger),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("drifts", sa.JSON, nullable=False),
        sa.Column("offered", sa.JSON, nullable=False),
        sa.Column("coverage", sa.JSON, nullable=False),
        sa.Column("told", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("table_id", name="pk_syncs"),
    )


def _make_runs() -> None:
    op.create_table(
        "sync_runs",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("table_id", sa.String, nullable=False),
        sa.Column("trigger", sa.String, nullable=False),
        sa.Column("phase", sa.String, nullable=False),
        sa.Column("step", sa.String, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("queued_ms", sa.BigInteger, nullable=False),
        sa.Column("started_ms", sa.BigInteger),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("rows_total", sa.BigInteger),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("bytes_total", sa.BigInteger),
        sa.Column("stored", sa.BigInteger, nullable=False),
        sa.Column("duplicate", sa.BigInteger, nullable=False),
        sa.Column("keyless", sa.BigInteger, nullable=False),
        sa.Column("misfits", sa.BigInteger, nullable=False),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("forced", sa.Boolean, nullable=False),
        sa.Column("cancel_asked", sa.Boolean, nullable=False),
        sa.Column("fetched", sa.JSON),
        sa.Column("coverage", sa.JSON, nullable=False),
        sa.Column("failure", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_sync_runs"),
    )
    op.create_index("ix_sync_runs_table_id", "sync_runs", ["table_id", "queued_ms"])

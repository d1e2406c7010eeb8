"""Owns the shape of our own records as SQL tables; runs no statement."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table

HEAD = "0005"
"""The newest migration: what a database must be at for this code."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

organisation = Table(
    "organisation",
    metadata,
    Column("id", String, primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("hash", String, nullable=False, unique=True),
    Column("hint", String, nullable=False),
    Column("owner_id", String, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
)

mapping_versions = Table(
    "mapping_versions",
    metadata,
    Column("entity", String, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("who", String, nullable=False),
    Column("why", String, nullable=False),
    Column("request", JSON, nullable=False),
    Column("diff", JSON, nullable=False),
    Column("mapping", JSON, nullable=False),
    Column("restores", Integer),
)

reference_tables = Table(
    "reference_tables",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("columns", JSON, nullable=False),
    Column("primary_key", String, nullable=False),
    Column("source", String, nullable=False),
    Column("description", String, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("row_count", BigInteger, nullable=False),
    Column("created_by", String, nullable=False),
    Column("updated_by", String, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("status", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("held", JSON, nullable=False),
    Column("owner", String, nullable=False),
    Column("origin", JSON(none_as_null=True)),
    Column("sync_enabled", Boolean, nullable=False),
    Column("access_details", String, nullable=False),
)

syncs = Table(
    "syncs",
    metadata,
    Column("table_id", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("cursor", String, nullable=False),
    Column("full_ms", BigInteger),
    Column("tried_ms", BigInteger),
    Column("synced_ms", BigInteger),
    Column("total", BigInteger),
    Column("failures", Integer, nullable=False),
    Column("run_id", String, nullable=False),
    Column("drifts", JSON, nullable=False),
    Column("offered", JSON, nullable=False),
    Column("coverage", JSON, nullable=False),
    Column("told", String, nullable=False),
)

sync_runs = Table(
    "sync_runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("table_id", String, nullable=False),
    Column("trigger", String, nullable=False),
    Column("phase", String, nullable=False),
    Column("step", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("queued_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("rows", BigInteger, nullable=False),
    Column("rows_total", BigInteger),
    Column("bytes", BigInteger, nullable=False),
    Column("bytes_total", BigInteger),
    Column("stored", BigInteger, nullable=False),
    Column("duplicate", BigInteger, nullable=False),
    Column("keyless", BigInteger, nullable=False),
    Column("misfits", BigInteger, nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("forced", Boolean, nullable=False),
    Column("cancel_asked", Boolean, nullable=False),
    Column("fetched", JSON(none_as_null=True)),
    Column("coverage", JSON, nullable=False),
    Column("failure", JSON(none_as_null=True)),
    Index("ix_sync_runs_table_id", "table_id", "queued_ms"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String, primary_key=True),
    Column("sealed", String, nullable=False),
    Column("members", JSON, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("updated_by", String, nullable=False),
)

segments = Table(
    "segments",
    metadata,
    Column("id", String, primary_key=True),
    Column("entity", String, nullable=False),
    Column("name", String, nullable=False, unique=True),
    Column("description", String, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("data_query", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String, nullable=False),
    Column("modified_ms", BigInteger, nullable=False),
    Column("modified_by", String, nullable=False),
)

queries = Table(
    "queries",
    metadata,
    Column("name", String, primary_key=True),
    Column("operation", String, nullable=False),
    Column("body", String, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("updated_by", String, nullable=False),
)

uses = Table(
    "uses",
    metadata,
    Column("entity", String, primary_key=True),
    Column("attribute", String, primary_key=True),
    Column("spelled", String, primary_key=True),
    Column("operation", String, primary_key=True),
    Column("caller", String, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Index("ix_uses_last_ms", "last_ms"),
)

erasures = Table(
    "erasures",
    metadata,
    Column("id", String, primary_key=True),
    Column("subject", String, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("who", String, nullable=False),
    Column("finished_ms", BigInteger),
    Column("counts", JSON, nullable=False),
    Index("ix_erasures_at_ms", "at_ms"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String, primary_key=True),
    Column("table_name", String, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("part_count", Integer, nullable=False),
    Column("part_size_bytes", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("who", String, nullable=False),
    Column("action", String, nullable=False),
    Column("target", String, nullable=False),
    Column("detail", JSON, nullable=False),
)

"""Makes room for what an undo of a mapping brought back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("mapping_versions") as batch:
        batch.add_column(sa.Column("restores", sa.Integer))

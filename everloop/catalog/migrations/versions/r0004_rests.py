"""Layered parts: which object is read together with another."""

from alembic import op
from sqlalchemy import Column, PrimaryKeyConstraint

from everloop.catalog.migrations.r0001.columns import Key

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create their table; nothing that is there changes."""
    op.create_table(
        "rests",
        Column("project", Key, nullable=False),
        Column("object", Key, nullable=False),
        Column("base", Key, nullable=False),
        PrimaryKeyConstraint("project", "object", name="pk_rests"),
    )
    op.create_index("ix_rests_base", "rests", ["project", "base"])

"""Packs of files."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint

from everloop.catalog.migrations.r0001.columns import Key

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create their table; nothing that is there changes."""
    op.create_table(
        "packs",
        Column("project", Key, nullable=False),
        Column("object", Key, nullable=False),
        Column("dataset", Key, nullable=False),
        Column("pieces", Integer, nullable=False),
        Column("bytes", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "object", name="pk_packs"),
    )

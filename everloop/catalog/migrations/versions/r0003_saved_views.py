"""Saved views of pages."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Text

from everloop.catalog.migrations.r0001.columns import Key

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create their table; nothing that is there changes."""
    op.create_table(
        "saved_views",
        Column("project", Key, nullable=False),
        Column("page", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("query", Text, nullable=False),
        Column("actor", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "page", "name", name="pk_saved_views"),
        sqlite_with_rowid=False,
    )

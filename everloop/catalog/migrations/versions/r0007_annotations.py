"""Annotations: what people and scans say about assets and columns."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Text

from everloop.catalog.migrations.r0001.columns import Key

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create their table; nothing that is there changes."""
    op.create_table(
        "annotations",
        Column("project", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("part", Key, nullable=False),
        Column("field", Key, nullable=False),
        Column("value", Key, nullable=False),
        Column("state", Key, nullable=False),
        Column("detail", Text, nullable=False),
        Column("actor", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "kind", "name", "part", "field", "value", name="pk_annotations"),
    )

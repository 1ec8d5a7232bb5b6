"""Live feeds: how far each was read, and which batches it has had."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, Text

from everloop.catalog.migrations.r0001.columns import Key

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create their tables; nothing that is there changes."""
    op.create_table(
        "feeds",
        Column("project", Key, nullable=False),
        Column("environment", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("state", Key, nullable=False),
        Column("revision", Integer, nullable=False),
        Column("position", Text, nullable=False),
        Column("rows", BigInteger, nullable=False),
        Column("dead", BigInteger, nullable=False),
        Column("duplicates", BigInteger, nullable=False),
        Column("recent", Text, nullable=False),
        Column("committed", BigInteger, nullable=False),
        Column("waiting", BigInteger, nullable=False),
        Column("error", Text, nullable=False),
        Column("owner", Key, nullable=False),
        Column("until", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "environment", "name", name="pk_feeds"),
    )
    op.create_table(
        "feed_keys",
        Column("project", Key, nullable=False),
        Column("environment", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("key", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "environment", "name", "key", name="pk_feed_keys"),
    )

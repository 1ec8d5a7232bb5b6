"""Tables of webhooks, as they were at revision 0002."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Text

from everloop.catalog.migrations.r0001.columns import Key


def create() -> None:
    """Create them."""
    _webhooks()
    _webhook_events()
    _webhook_cursors()


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        Column("project", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("description", Text, nullable=False),
        Column("url", Text, nullable=False),
        Column("secret", Text, nullable=False),
        Column("status", Key, nullable=False),
        Column("since", BigInteger, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("updated", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "id", name="pk_webhooks"),
    )


def _webhook_events() -> None:
    op.create_table(
        "webhook_events",
        Column("project", Key, nullable=False),
        Column("webhook", Key, nullable=False),
        Column("event", Key, nullable=False),
        PrimaryKeyConstraint("project", "webhook", "event", name="pk_webhook_events"),
        sqlite_with_rowid=False,
    )


def _webhook_cursors() -> None:
    op.create_table(
        "webhook_cursors",
        Column("project", Key, nullable=False),
        Column("position", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", name="pk_webhook_cursors"),
    )

"""Tables of webhooks: whom to tell what about the registry, and how far the log of facts was read for them."""

from sqlalchemy import BigInteger, Column, Table, Text

from everloop.catalog.tables.columns import Key, Moment, metadata

webhooks = Table(
    "webhooks",
    metadata,
    Column("project", Key, primary_key=True),
    Column("id", Key, primary_key=True),
    Column("name", Key, nullable=False),
    Column("description", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),  # sealed with the workspace's key; empty: deliveries are not signed
    Column("status", Key, nullable=False),  # ACTIVE | DISABLED
    Column("since", BigInteger, nullable=False),  # position of the log when it was made: older facts are not told
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
)

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("project", Key, primary_key=True),
    Column("webhook", Key, primary_key=True),
    Column("event", Key, primary_key=True),  # entity.action, as MLflow names them
    sqlite_with_rowid=False,
)

webhook_cursors = Table(
    "webhook_cursors",
    metadata,
    Column("project", Key, primary_key=True),
    Column("position", BigInteger, nullable=False),
)

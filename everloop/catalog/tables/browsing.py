"""Tables of what people keep of their way of looking at things."""

from sqlalchemy import Column, Table, Text

from everloop.catalog.tables.columns import Key, Moment, metadata

saved_views = Table(
    "saved_views",
    metadata,
    Column("project", Key, primary_key=True),
    Column("page", Key, primary_key=True),
    Column("name", Key, primary_key=True),
    Column("query", Text, nullable=False),  # the query of the page's address
    Column("actor", Key, nullable=False),
    Column("at", Moment, nullable=False),
    sqlite_with_rowid=False,
)

"""What people and scans say about assets, beside what definitions say themselves."""

from sqlalchemy import Column, Table, Text

from everloop.catalog.tables.columns import SAID, Key, Moment, metadata

annotations = Table(
    "annotations",
    metadata,
    Column("project", Key, primary_key=True),
    Column("kind", Key, primary_key=True),
    Column("name", Key, primary_key=True),
    Column("part", Key, primary_key=True),  # a column; empty for the whole asset
    Column("field", Key, primary_key=True),
    Column("value", Key, primary_key=True, info=SAID),
    Column("state", Key, nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    Column("actor", Key, nullable=False),
    Column("at", Moment, nullable=False),
)

"""Which stored objects are read together with another: layered parts of tables, and what they rest on."""

from sqlalchemy import Column, Index, Table

from everloop.catalog.tables.columns import STORED, Key, metadata

rests = Table(
    "rests",
    metadata,
    Column("project", Key, primary_key=True),
    Column("object", Key, primary_key=True),
    Column("base", Key, nullable=False, info=STORED),
)
Index("ix_rests_base", rests.c.project, rests.c.base)

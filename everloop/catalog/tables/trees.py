"""Packs: objects that hold the bytes of many files, each found by the digest of its content."""

from sqlalchemy import BigInteger, Column, Integer, Table

from everloop.catalog.tables.columns import STORED, Key, Moment, metadata

packs = Table(
    "packs",
    metadata,
    Column("project", Key, primary_key=True),
    Column("object", Key, primary_key=True, info=STORED),
    Column("dataset", Key, nullable=False),  # whose capture wrote it
    Column("pieces", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
)

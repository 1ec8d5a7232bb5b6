"""The shared `metadata` and the column types that mean the same on both databases."""

from sqlalchemy import BigInteger, Integer, MetaData, Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Key = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is compared and sorted by code point on both databases: ids, names, states; prefixes use its index."""

Moment = BigInteger()
"""Microseconds since the epoch."""

STORED = {"stored": True}
"""`info` of a column that holds an object's id (or is empty): a sweep keeps the object, `verify` reads it."""

SAID = {"said": True}
"""`info` of a column of keys that people and programs chose freely: an erasure looks into it, as into every text."""

Serial = BigInteger().with_variant(Integer(), "sqlite")
"""A number that the database gives; its order is not the order of commits."""

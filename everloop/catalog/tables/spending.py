"""Tables of what was used and paid, and of the budgets that hold it.

Money is counted in millionths of its currency. A use keeps the price that it was made at: another price later changes
no row.
"""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, Table, Text

from everloop.catalog.tables.columns import Key, Moment, Serial, metadata

uses = Table(
    "uses",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("kind", Key, nullable=False),  # step | endpoint
    Column("flow", Key, nullable=False),
    Column("step", Key, nullable=False),  # of an endpoint: its name
    Column("attempt", Integer, nullable=False),
    Column("recipe", Key, nullable=False),
    Column("output", Key, nullable=False),
    Column("run", Key, nullable=False),
    Column("actor", Key, nullable=False),
    Column("environment", Key, nullable=False),
    Column("profile", Key, nullable=False),
    Column("price", Text, nullable=False),  # JSON; empty: it costs nothing
    Column("currency", Key, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("state", Key, nullable=False),  # done | failed | cancelled | stopped | lost
    Column("began", Moment, nullable=False),
    Column("ended", Moment, nullable=False),
    Column("period", Key, nullable=False),  # the month in which it ended, as 2026-11
    Column("seconds", Float, nullable=False),
    Column("cpu_seconds", Float, nullable=False),
    Column("peak_memory", BigInteger, nullable=False),
    Column("gpu_seconds", Float, nullable=False),
    Column("written", BigInteger, nullable=False),
    Index(None, "project", "ended"),
    Index(None, "project", "flow"),
    Index(None, "project", "recipe"),
)

spending = Table(
    "spending",
    metadata,
    Column("project", Key, primary_key=True),
    Column("scope", Key, primary_key=True),  # project | person/<name> | flow/<id>
    Column("period", Key, primary_key=True),  # a month; empty for a run
    Column("currency", Key, primary_key=True),
    Column("cost", BigInteger, nullable=False),
    Column("cpu_seconds", Float, nullable=False),
    Column("gpu_seconds", Float, nullable=False),
    sqlite_with_rowid=False,
)

open_uses = Table(
    "open_uses",
    metadata,
    Column("project", Key, primary_key=True),
    Column("flow", Key, primary_key=True),
    Column("actor", Key, nullable=False),
    Column("currency", Key, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("cpu_seconds", Float, nullable=False),
    Column("gpu_seconds", Float, nullable=False),
    Column("began", Moment, nullable=False),
    Column("at", Moment, nullable=False),
)

budgets = Table(
    "budgets",
    metadata,
    Column("project", Key, primary_key=True),
    Column("scope", Key, primary_key=True),  # project | person/<name> | person/* | flow/<id> | flow/*
    Column("currency", Key, nullable=False),
    Column("cost", BigInteger),
    Column("cpu_seconds", Float),
    Column("gpu_seconds", Float),
    Column("warn", Float, nullable=False),  # the share of a limit from which people are told
    Column("actor", Key, nullable=False),
    Column("at", Moment, nullable=False),
)

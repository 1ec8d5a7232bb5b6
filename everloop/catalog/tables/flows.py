"""Tables of runs of flows: what a run is asked to make, and how far each of its steps is."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, Table, Text

from everloop.catalog.tables.columns import Key, Moment, metadata

flows = Table(
    "flows",
    metadata,
    Column("project", Key, primary_key=True),
    Column("id", Key, primary_key=True),
    Column("title", Text, nullable=False),
    Column("environment", Key, nullable=False),
    Column("actor", Key, nullable=False),
    Column("state", Key, nullable=False),  # running | parked | done | failed | cancelled
    Column("token", Integer, nullable=False),  # counts up with every driver: an older one commits nothing more
    Column("owner", Key, nullable=False),
    Column("wanted", Key, nullable=False),  # `cancel`, or nothing
    Column("request", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("beat", Moment, nullable=False),
    Column("ended", Moment),
    Column("error", Text, nullable=False),
    Index(None, "project", "created"),
)

flow_steps = Table(
    "flow_steps",
    metadata,
    Column("project", Key, primary_key=True),
    Column("flow", Key, primary_key=True),
    Column("step", Key, primary_key=True),
    Column("place", Integer, nullable=False),
    Column("state", Key, nullable=False),
    Column("recipe", Key, nullable=False),
    Column("output", Key, nullable=False),
    Column("run", Key, nullable=False),
    Column("why", Text, nullable=False),  # why it ran, was skipped, waits or failed
    Column("attempt", Integer, nullable=False),
    Column("began", Moment),
    Column("ended", Moment),
    Column("cpu_seconds", Float, nullable=False),
    Column("peak_memory", BigInteger, nullable=False),
    Column("decision", Text, nullable=False),  # of an approval: JSON
)

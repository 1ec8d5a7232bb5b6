"""Tables of live feeds: how far each was read, and which batches it has had."""

from sqlalchemy import BigInteger, Column, Integer, Table, Text

from everloop.catalog.tables.columns import Key, Moment, metadata

feeds = Table(
    "feeds",
    metadata,
    Column("project", Key, primary_key=True),
    Column("environment", Key, primary_key=True),
    Column("name", Key, primary_key=True),
    Column("state", Key, nullable=False),  # running, paused
    Column("revision", Integer, nullable=False),  # counts commits: who commits has seen the one before
    Column("position", Text, nullable=False),  # JSON: how far the source was read, in its own terms
    Column("rows", BigInteger, nullable=False),
    Column("dead", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("recent", Text, nullable=False),  # JSON: the newest commits, [wall, rows, dead, microseconds of delay]
    Column("committed", Moment, nullable=False),  # wall time of the newest commit; 0 before the first
    Column("waiting", BigInteger, nullable=False),  # what the source held back then: bytes of a push, else messages
    Column("error", Text, nullable=False),  # why it stands still, empty while it runs
    Column("owner", Key, nullable=False),  # the consumer that reads it
    Column("until", Moment, nullable=False),  # wall time at which another consumer may take over
)

feed_keys = Table(
    "feed_keys",
    metadata,
    Column("project", Key, primary_key=True),
    Column("environment", Key, primary_key=True),
    Column("name", Key, primary_key=True),
    Column("key", Key, primary_key=True),  # a batch's idempotency key
    Column("at", Moment, nullable=False),  # wall time
)

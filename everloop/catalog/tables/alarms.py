"""Tables of evaluations, alarms and what set retraining off."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, Table, Text, text

from everloop.catalog.tables.columns import Key, Moment, Serial, metadata

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("monitor", Key, nullable=False),
    Column("start", Moment, nullable=False),
    Column("until", Moment, nullable=False),
    Column("at", Moment, nullable=False),  # event time; a later row of the same window is "as known now"
    Column("recorded", Moment, nullable=False),
    Column("state", Key, nullable=False),  # ok | drift | fault | breach | cannot tell
    Column("evidence", Key, nullable=False),
    Column("summary", Text, nullable=False),
    Column("figures", Text, nullable=False),  # JSON: name -> number, for charts
    Index(None, "project", "monitor", "start", "id"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("project", Key, primary_key=True),
    Column("id", Key, primary_key=True),
    Column("monitor", Key, nullable=False),
    Column("endpoint", Key, nullable=False),
    Column("kind", Key, nullable=False),  # drift | fault | performance
    Column("state", Key, nullable=False),  # suspect | alarm | acknowledged | resolved
    Column("title", Text, nullable=False),
    Column("columns", Text, nullable=False),  # JSON list
    Column("history", Key, nullable=False),  # newest last: 1 flagged, 0 not; the last three count
    Column("severity", Float, nullable=False),
    Column("blocks_retraining", Boolean, nullable=False),
    Column("onset", Moment, nullable=False),  # start of the first window that was flagged
    Column("last_window", Moment, nullable=False),  # end of the newest window that counted
    Column("opened", Moment),  # when it became an alarm; None while suspect
    Column("updated", Moment, nullable=False),
    Column("resolved", Moment),
    Column("snoozed_until", Moment, nullable=False),
    Column("acknowledged_by", Key, nullable=False),
    Column("real", Boolean),  # what a person said: a real change (true) or a false alarm; None: nobody said
    Column("note", Text, nullable=False),
    Column("evidence", Key, nullable=False),  # the report that last flagged it
    Column("version", Integer, nullable=False),  # counts changes, for compare-and-swap
    Index(None, "project", "state", "updated"),
    Index(None, "project", "monitor", "state"),
    Index(None, "project", "endpoint", "opened"),
)

firings = Table(
    "firings",
    metadata,
    Column("project", Key, primary_key=True),
    Column("rule", Key, primary_key=True),
    Column("fire", Key, primary_key=True),  # what fired: the same cause never fires twice
    Column("at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("outcome", Key, nullable=False),  # enqueued | blocked
    Column("number", BigInteger, nullable=False),  # n of sandbox/auto/<n>; 0 when blocked
    Column("task", Key, nullable=False),
    Index(None, "project", "rule", "at"),
    Index(
        "uq_firings_number",
        "project",
        "number",
        unique=True,
        sqlite_where=text("number > 0"),
        postgresql_where=text("number > 0"),
    ),
)

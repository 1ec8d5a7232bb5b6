"""Tables of predictions, labels, feedback, the progress of ingesting prediction logs, rollouts, feeds, and webhooks."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, Table, Text, UniqueConstraint

from everloop.catalog.tables.columns import SAID, Key, Moment, Serial, metadata

predictions = Table(
    "predictions",
    metadata,
    Column("project", Key, primary_key=True),
    Column("id", Key, primary_key=True),  # of one row: the request's id, or <id>.<row>
    Column("endpoint", Key, nullable=False),
    Column("revision", Key, nullable=False),
    Column("at", Moment, nullable=False),  # event time
    Column("recorded", Moment, nullable=False),  # wall time of the answer
    Column("micros", BigInteger, nullable=False),  # how long the answer took
    Column("fallback", Key, nullable=False),  # the revision that was chosen and failed; mostly empty
    Column("gateway", Key, nullable=False),
    Column("segment", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),  # of the frame in the segment, in bytes
    Column("row", Integer, nullable=False),  # of the request
    Index(None, "project", "endpoint", "at", "id"),
    Index(None, "project", "revision", "at"),
    Index(None, "gateway", "segment"),
)

log_segments = Table(  # a gateway serves many projects, so its log's progress belongs to none
    "log_segments",
    metadata,
    Column("gateway", Key, primary_key=True),
    Column("segment", BigInteger, primary_key=True),
    Column("position", BigInteger, nullable=False),  # everything before it is ingested
    Column("closed", Boolean, nullable=False),  # nothing will be appended, and all of it is ingested
)

labels = Table(
    "labels",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("prediction", Key, nullable=False),
    Column("value", Text, nullable=False),  # JSON
    Column("at", Moment, nullable=False),  # event time: when the truth was known
    Column("recorded", Moment, nullable=False),
    Column("actor", Key, nullable=False),
    UniqueConstraint("project", "prediction", "at", "value"),
    Index(None, "project", "prediction", "id"),
)

feedback = Table(  # of one prediction, or a figure of many that somebody else counted
    "feedback",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("endpoint", Key, nullable=False),
    Column("prediction", Key, nullable=False),  # empty: of a revision
    Column("revision", Key, nullable=False),  # empty: that of the prediction
    Column("metric", Key, nullable=False),
    Column("count", BigInteger, nullable=False),  # values
    Column("total", Float, nullable=False),
    Column("squares", Float, nullable=False),
    Column("at", Moment, nullable=False),  # event time
    Column("recorded", Moment, nullable=False),
    Column("actor", Key, nullable=False),
    UniqueConstraint("project", "prediction", "revision", "metric", "at"),
    Index(None, "project", "revision", "metric", "at"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("project", Key, primary_key=True),
    Column("environment", Key, primary_key=True),
    Column("endpoint", Key, primary_key=True),
    Column("state", Text, nullable=False),  # JSON of everloop.serving.rollout.Rollout
    Column("updated", Moment, nullable=False),
)

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
    Column("key", Key, primary_key=True, info=SAID),  # a batch's idempotency key
    Column("at", Moment, nullable=False),  # wall time
)

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

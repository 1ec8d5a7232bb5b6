"""Tables of traces and what judges them: spans, assessments, evaluation datasets, scorers.

A trace has an integer of its own, on which its spans, tags and assessments hang, so that those rows stay narrow. A
span's row holds what filters and sums read; its body (attributes, events, links) is a row of another table, and one
that is large is an object of the store, of which the body then keeps only the beginnings.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from everloop.catalog.tables.columns import SAID, STORED, Key, Moment, Serial, metadata

traces = Table(
    "traces",
    metadata,
    Column("number", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("id", Key, nullable=False),  # tr- and 32 hexadecimal digits
    Column("experiment", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    Column("duration", BigInteger),  # microseconds; None while it runs
    Column("status", Key, nullable=False),  # OK | ERROR | IN_PROGRESS | STATE_UNSPECIFIED
    Column("name", Key, nullable=False, info=SAID),
    Column("client_request", Key, info=SAID),
    Column("request", Text),  # beginnings of what went in and came out
    Column("response", Text),
    Column("session", Key, info=SAID),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("total_tokens", BigInteger),
    Column("cache_read_tokens", BigInteger),
    Column("cache_creation_tokens", BigInteger),
    Column("spans", Integer, nullable=False),  # how many are stored here
    Column("stated", SmallInteger, nullable=False),  # 1: a client said when it was and how it ended; spans do not
    UniqueConstraint("project", "id"),
    Index(None, "project", "experiment", "at", "id"),
)


def _of_trace() -> Column[int]:
    return Column(
        "trace", Serial, ForeignKey(traces.c.number, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )


def _texts(name: str) -> Table:
    """A table of texts by key below a trace, clustered by it."""
    return Table(
        name,
        metadata,
        Column(
            "parent", Serial, ForeignKey(traces.c.number, ondelete="CASCADE"), primary_key=True, autoincrement=False
        ),
        Column("key", Key, primary_key=True, info=SAID),
        Column("value", Text, nullable=False),
        sqlite_with_rowid=False,
    )


trace_tags = _texts("trace_tags")
trace_metadata = _texts("trace_metadata")

trace_runs = Table(
    "trace_runs",
    metadata,
    Column("run", Key, primary_key=True),
    _of_trace(),
    Index(None, "trace"),
    sqlite_with_rowid=False,
)
"""Runs that a trace belongs to: the one it was made in, and those that it was linked to."""

trace_prompts = Table(
    "trace_prompts",
    metadata,
    _of_trace(),
    Column("name", Key, primary_key=True),
    Column("version", Key, primary_key=True),
    sqlite_with_rowid=False,
)

spans = Table(
    "spans",
    metadata,
    _of_trace(),
    Column("id", Key, primary_key=True),  # 16 hexadecimal digits
    Column("parent", Key, nullable=False),  # empty for a root
    Column("name", Key, nullable=False, info=SAID),
    Column("type", Key, nullable=False),
    Column("status", Key, nullable=False),  # OK | ERROR | UNSET
    Column("start", BigInteger, nullable=False),  # nanoseconds
    Column("duration", BigInteger),  # nanoseconds; None while it runs
    Column("model", Key),
    Column("provider", Key),
    Column("input_cost", Double),
    Column("output_cost", Double),
    Column("total_cost", Double),
    Column("usage", Text),  # tokens by kind, JSON; only for spans that asked a model
    sqlite_with_rowid=False,
)

span_bodies = Table(
    "span_bodies",
    metadata,
    _of_trace(),
    Column("id", Key, primary_key=True),
    Column("body", Text, nullable=False),  # JSON, as the protocol writes a span
)

span_objects = Table(
    "span_objects",
    metadata,
    Column("project", Key, nullable=False),
    _of_trace(),
    Column("id", Key, primary_key=True),
    Column("object", Key, nullable=False, info=STORED),
    Index(None, "project", "object"),
)
"""Where the whole body of a large span is."""

assessments = Table(
    "assessments",
    metadata,
    _of_trace(),
    Column("id", Key, primary_key=True),
    Column("name", Key, nullable=False, info=SAID),
    Column("kind", Key, nullable=False),  # feedback | expectation | issue
    Column("value", Text, nullable=False),  # JSON
    Column("number", Double),  # the value where it is a number, or a yes or no
    Column("error", Text),  # JSON
    Column("source_type", Key, nullable=False),
    Column("source", Key, nullable=False, info=SAID),
    Column("span", Key, nullable=False),
    Column("rationale", Text),
    Column("metadata", Text, nullable=False),  # JSON
    Column("overrides", Key, nullable=False),
    Column("valid", SmallInteger, nullable=False),
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
)

evaluation_datasets = Table(
    "evaluation_datasets",
    metadata,
    Column("project", Key, primary_key=True),
    Column("id", Key, primary_key=True),  # d- and 32 hexadecimal digits
    Column("name", Key, nullable=False, info=SAID),
    Column("schema", Text),
    Column("profile", Text),
    Column("digest", Key, nullable=False),
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    Column("created_by", Key, nullable=False),
    Column("updated_by", Key, nullable=False),
    Index(None, "project", "name"),
    Index(None, "project", "created", "id"),
)

evaluation_tags = Table(
    "evaluation_dataset_tags",
    metadata,
    Column("project", Key, primary_key=True),
    Column("dataset", Key, primary_key=True),
    Column("key", Key, primary_key=True, info=SAID),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

evaluation_experiments = Table(
    "evaluation_dataset_experiments",
    metadata,
    Column("project", Key, primary_key=True),
    Column("dataset", Key, primary_key=True),
    Column("experiment", BigInteger, primary_key=True, autoincrement=False),
    Index(None, "project", "experiment"),
    sqlite_with_rowid=False,
)

evaluation_records = Table(
    "evaluation_records",
    metadata,
    Column("number", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("dataset", Key, nullable=False),
    Column("id", Key, nullable=False),  # dr- and 32 hexadecimal digits
    Column("digest", Key, nullable=False),  # of the inputs: the same inputs are the same record
    Column("inputs", Text, nullable=False),
    Column("outputs", Text),
    Column("expectations", Text),
    Column("tags", Text),
    Column("source", Text),
    Column("source_type", Key, nullable=False),
    Column("source_id", Key, nullable=False),
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    Column("created_by", Key, nullable=False),
    Column("updated_by", Key, nullable=False),
    UniqueConstraint("project", "dataset", "digest"),
    UniqueConstraint("project", "dataset", "id"),
    Index(None, "project", "dataset", "number"),
)

scorers = Table(
    "scorers",
    metadata,
    Column("project", Key, primary_key=True),
    Column("experiment", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Key, primary_key=True),
    Column("id", Key, nullable=False),
    Column("last", Integer, nullable=False),  # the newest number ever given
    UniqueConstraint("project", "id"),
)

scorer_versions = Table(
    "scorer_versions",
    metadata,
    Column("project", Key, primary_key=True),
    Column("scorer", Key, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("created", Moment, nullable=False),
)

scorer_configs = Table(
    "scorer_online_configs",
    metadata,
    Column("project", Key, primary_key=True),
    Column("scorer", Key, primary_key=True),
    Column("id", Key, nullable=False),
    Column("rate", Double, nullable=False),
    Column("filter", Text),
)

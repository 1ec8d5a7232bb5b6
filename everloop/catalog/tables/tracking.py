"""Tables of tracking: experiments, runs, metric series and points, artifacts, logged and registered models.

Runs and series have an integer of their own as primary key, so that the many rows below them stay narrow: a metric
point is (series, step, at, value, nan) and nothing else, clustered by series, whose row holds run, key and the newest
point. The project is in the key of every row that is looked up by name; rows below a run, series or model hang on that
row's integer, which is met in one project only.

A value that is not a number is stored as 0 with `nan` = 1, because SQLite has no NaN.
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
    func,
    text,
)

from everloop.catalog.tables.columns import SAID, STORED, Key, Moment, Serial, metadata


def _below(name: str, parent: Column[int]) -> Column[int]:
    """A column of the primary key that names the row above."""
    return Column(name, Serial, ForeignKey(parent, ondelete="CASCADE"), primary_key=True, autoincrement=False)


def _values(name: str, parent: Column[int]) -> Table:
    """A table of texts by key below a run or model, clustered by it."""
    return Table(
        name,
        metadata,
        _below("parent", parent),
        Column("key", Key, primary_key=True, info=SAID),
        Column("value", Text, nullable=False),
        sqlite_with_rowid=False,
    )


experiments = Table(
    "experiments",
    metadata,
    Column("project", Key, primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Key, nullable=False),
    Column("artifact_uri", Text, nullable=False),
    Column("stage", Key, nullable=False),
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    UniqueConstraint("project", "name"),
)

experiment_tags = Table(
    "experiment_tags",
    metadata,
    Column("project", Key, primary_key=True),
    Column("experiment", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Key, primary_key=True, info=SAID),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

runs = Table(
    "runs",
    metadata,
    Column("number", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("id", Key, nullable=False),  # 32 hexadecimal digits
    Column("experiment", BigInteger, nullable=False),
    Column("name", Key, nullable=False, info=SAID),
    Column("status", Key, nullable=False),
    Column("actor", Key, nullable=False),
    Column("stage", Key, nullable=False),  # active | deleted
    Column("start", Moment, nullable=False),
    Column("end", Moment),
    Column("deleted", Moment),
    Column("artifact_uri", Text, nullable=False),
    UniqueConstraint("project", "id"),
    Index(None, "project", "experiment", "start", "id"),
)
run_params = _values("run_params", runs.c.number)
run_tags = _values("run_tags", runs.c.number)

INDEXED = 100
"""How many characters of a parameter's or tag's value its index holds."""
params_by_value = Index("ix_run_params_value", run_params.c.key, func.substr(run_params.c.value, 1, INDEXED))
tags_by_value = Index("ix_run_tags_value", run_tags.c.key, func.substr(run_tags.c.value, 1, INDEXED))

series = Table(
    "metric_series",
    metadata,
    Column("number", Serial, primary_key=True),
    Column("run", Serial, ForeignKey(runs.c.number, ondelete="CASCADE"), nullable=False),
    Column("key", Key, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    Column("value", Double, nullable=False),
    Column("nan", SmallInteger, nullable=False),
    Column(
        "project", Key, nullable=False, server_default=text("''")
    ),  # of the run, which never moves: here for the index
    Column("experiment", BigInteger, nullable=False, server_default=text("0")),
    UniqueConstraint("run", "key"),
    Index("ix_metric_series_value", "project", "experiment", "key", "nan", "value", "run"),
)
"""One row for each metric of a run; it holds the newest point, so that filters and orders never read points.

Its index holds the metrics of an experiment in the order of their values: a search that is ordered by a metric walks
it and stops when its page is full.
"""

points = Table(
    "metric_points",
    metadata,
    _below("series", series.c.number),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Moment, primary_key=True, autoincrement=False),
    Column("value", Double, primary_key=True),
    Column("nan", SmallInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

datasets = Table(
    "tracked_datasets",
    metadata,
    Column("number", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("experiment", BigInteger, nullable=False),
    Column("name", Key, nullable=False),
    Column("digest", Key, nullable=False),
    Column("source_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
    UniqueConstraint("project", "experiment", "name", "digest"),
)

run_datasets = Table(
    "run_datasets",
    metadata,
    _below("run", runs.c.number),
    _below("dataset", datasets.c.number),
    Column("context", Key, nullable=False),
    Column("tags", Text, nullable=False),  # JSON
    sqlite_with_rowid=False,
)

run_models = Table(
    "run_models",
    metadata,
    _below("run", runs.c.number),
    Column("direction", Key, primary_key=True),  # in | out
    Column("model", Key, primary_key=True),
    Column("step", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("project", Key, primary_key=True),
    Column("owner", Key, primary_key=True),  # run id, logged model id, or `x<experiment>`
    Column("path", Key, primary_key=True),
    Column("object", Key, nullable=False, info=STORED),
    Column("size", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    Index(None, "object"),
)

logged_models = Table(
    "logged_models",
    metadata,
    Column("number", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("id", Key, nullable=False),  # m- and 32 hexadecimal digits
    Column("experiment", BigInteger, nullable=False),
    Column("name", Key, nullable=False, info=SAID),
    Column("type", Key, nullable=False),
    Column("run", Key, nullable=False),
    Column("status", Key, nullable=False),
    Column("stage", Key, nullable=False),
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    Column("artifact_uri", Text, nullable=False),
    UniqueConstraint("project", "id"),
    Index(None, "project", "experiment", "created"),
)
logged_params = _values("logged_model_params", logged_models.c.number)
logged_tags = _values("logged_model_tags", logged_models.c.number)

logged_metrics = Table(
    "logged_model_metrics",
    metadata,
    _below("parent", logged_models.c.number),
    Column("key", Key, primary_key=True),
    Column("dataset", Key, primary_key=True),
    Column("digest", Key, primary_key=True),
    Column("run", Key, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    Column("value", Double, nullable=False),
    Column("nan", SmallInteger, nullable=False),
)

registered_models = Table(
    "registered_models",
    metadata,
    Column("project", Key, primary_key=True),
    Column("name", Key, primary_key=True),
    Column("asset", Key, nullable=False),  # the name as the catalog's versions bear it
    Column("description", Text, nullable=False),
    Column("actor", Key, nullable=False),
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    UniqueConstraint("project", "asset"),
)

registered_tags = Table(
    "registered_model_tags",
    metadata,
    Column("project", Key, primary_key=True),
    Column("asset", Key, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 0: of the model, else of that version
    Column("key", Key, primary_key=True, info=SAID),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

registered_versions = Table(
    "registered_model_versions",
    metadata,
    Column("project", Key, primary_key=True),
    Column("asset", Key, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("version", Key, nullable=False),
    Column("source", Text, nullable=False),
    Column("run", Key, nullable=False),
    Column("model", Key, nullable=False),
    Column("run_link", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("stage", Key, nullable=False),
    Column("actor", Key, nullable=False),
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    Column("deleted", SmallInteger, nullable=False),
    Index(None, "project", "run"),
)
"""What people say about a model version beside its manifest; a version without a row here is shown all the same."""

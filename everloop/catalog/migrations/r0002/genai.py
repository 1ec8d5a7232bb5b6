"""Tables of traces, spans, assessments, evaluation datasets and scorers, as they were at revision 0002."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    UniqueConstraint,
)

from everloop.catalog.migrations.r0001.columns import Key, Serial


def create() -> None:
    """Create them."""
    _traces()
    _trace_tags()
    _trace_metadata()
    _trace_runs()
    _trace_prompts()
    _spans()
    _span_bodies()
    _span_objects()
    _assessments()
    _evaluation_datasets()
    _evaluation_dataset_tags()
    _evaluation_dataset_experiments()
    _evaluation_records()
    _scorers()
    _scorer_versions()
    _scorer_online_configs()


def _traces() -> None:
    op.create_table(
        "traces",
        Column("number", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("experiment", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("duration", BigInteger),
        Column("status", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("client_request", Key),
        Column("request", Text),
        Column("response", Text),
        Column("session", Key),
        Column("input_tokens", BigInteger),
        Column("output_tokens", BigInteger),
        Column("total_tokens", BigInteger),
        Column("cache_read_tokens", BigInteger),
        Column("cache_creation_tokens", BigInteger),
        Column("spans", Integer, nullable=False),
        Column("stated", SmallInteger, nullable=False),
        PrimaryKeyConstraint("number", name="pk_traces"),
        UniqueConstraint("project", "id", name="uq_traces_project_id"),
    )
    op.create_index("ix_traces_project_experiment_at_id", "traces", ["project", "experiment", "at", "id"])


def _trace_tags() -> None:
    op.create_table(
        "trace_tags",
        Column("parent", Serial, nullable=False, autoincrement=False),
        Column("key", Key, nullable=False),
        Column("value", Text, nullable=False),
        ForeignKeyConstraint(["parent"], ["traces.number"], ondelete="CASCADE", name="fk_trace_tags_parent"),
        PrimaryKeyConstraint("parent", "key", name="pk_trace_tags"),
        sqlite_with_rowid=False,
    )


def _trace_metadata() -> None:
    op.create_table(
        "trace_metadata",
        Column("parent", Serial, nullable=False, autoincrement=False),
        Column("key", Key, nullable=False),
        Column("value", Text, nullable=False),
        ForeignKeyConstraint(["parent"], ["traces.number"], ondelete="CASCADE", name="fk_trace_metadata_parent"),
        PrimaryKeyConstraint("parent", "key", name="pk_trace_metadata"),
        sqlite_with_rowid=False,
    )


def _trace_runs() -> None:
    op.create_table(
        "trace_runs",
        Column("run", Key, nullable=False),
        Column("trace", Serial, nullable=False, autoincrement=False),
        ForeignKeyConstraint(["trace"], ["traces.number"], ondelete="CASCADE", name="fk_trace_runs_trace"),
        PrimaryKeyConstraint("run", "trace", name="pk_trace_runs"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trace_runs_trace", "trace_runs", ["trace"])


def _trace_prompts() -> None:
    op.create_table(
        "trace_prompts",
        Column("trace", Serial, nullable=False, autoincrement=False),
        Column("name", Key, nullable=False),
        Column("version", Key, nullable=False),
        ForeignKeyConstraint(["trace"], ["traces.number"], ondelete="CASCADE", name="fk_trace_prompts_trace"),
        PrimaryKeyConstraint("trace", "name", "version", name="pk_trace_prompts"),
        sqlite_with_rowid=False,
    )


def _spans() -> None:
    op.create_table(
        "spans",
        Column("trace", Serial, nullable=False, autoincrement=False),
        Column("id", Key, nullable=False),
        Column("parent", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("type", Key, nullable=False),
        Column("status", Key, nullable=False),
        Column("start", BigInteger, nullable=False),
        Column("duration", BigInteger),
        Column("model", Key),
        Column("provider", Key),
        Column("input_cost", Double),
        Column("output_cost", Double),
        Column("total_cost", Double),
        Column("usage", Text),
        ForeignKeyConstraint(["trace"], ["traces.number"], ondelete="CASCADE", name="fk_spans_trace"),
        PrimaryKeyConstraint("trace", "id", name="pk_spans"),
        sqlite_with_rowid=False,
    )


def _span_bodies() -> None:
    op.create_table(
        "span_bodies",
        Column("trace", Serial, nullable=False, autoincrement=False),
        Column("id", Key, nullable=False),
        Column("body", Text, nullable=False),
        ForeignKeyConstraint(["trace"], ["traces.number"], ondelete="CASCADE", name="fk_span_bodies_trace"),
        PrimaryKeyConstraint("trace", "id", name="pk_span_bodies"),
    )


def _span_objects() -> None:
    op.create_table(
        "span_objects",
        Column("project", Key, nullable=False),
        Column("trace", Serial, nullable=False, autoincrement=False),
        Column("id", Key, nullable=False),
        Column("object", Key, nullable=False),
        ForeignKeyConstraint(["trace"], ["traces.number"], ondelete="CASCADE", name="fk_span_objects_trace"),
        PrimaryKeyConstraint("trace", "id", name="pk_span_objects"),
    )
    op.create_index("ix_span_objects_project_object", "span_objects", ["project", "object"])


def _assessments() -> None:
    op.create_table(
        "assessments",
        Column("trace", Serial, nullable=False, autoincrement=False),
        Column("id", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("value", Text, nullable=False),
        Column("number", Double),
        Column("error", Text),
        Column("source_type", Key, nullable=False),
        Column("source", Key, nullable=False),
        Column("span", Key, nullable=False),
        Column("rationale", Text),
        Column("metadata", Text, nullable=False),
        Column("overrides", Key, nullable=False),
        Column("valid", SmallInteger, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("updated", BigInteger, nullable=False),
        ForeignKeyConstraint(["trace"], ["traces.number"], ondelete="CASCADE", name="fk_assessments_trace"),
        PrimaryKeyConstraint("trace", "id", name="pk_assessments"),
    )


def _evaluation_datasets() -> None:
    op.create_table(
        "evaluation_datasets",
        Column("project", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("schema", Text),
        Column("profile", Text),
        Column("digest", Key, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("updated", BigInteger, nullable=False),
        Column("created_by", Key, nullable=False),
        Column("updated_by", Key, nullable=False),
        PrimaryKeyConstraint("project", "id", name="pk_evaluation_datasets"),
    )
    op.create_index("ix_evaluation_datasets_project_created_id", "evaluation_datasets", ["project", "created", "id"])
    op.create_index("ix_evaluation_datasets_project_name", "evaluation_datasets", ["project", "name"])


def _evaluation_dataset_tags() -> None:
    op.create_table(
        "evaluation_dataset_tags",
        Column("project", Key, nullable=False),
        Column("dataset", Key, nullable=False),
        Column("key", Key, nullable=False),
        Column("value", Text, nullable=False),
        PrimaryKeyConstraint("project", "dataset", "key", name="pk_evaluation_dataset_tags"),
        sqlite_with_rowid=False,
    )


def _evaluation_dataset_experiments() -> None:
    op.create_table(
        "evaluation_dataset_experiments",
        Column("project", Key, nullable=False),
        Column("dataset", Key, nullable=False),
        Column("experiment", BigInteger, nullable=False, autoincrement=False),
        PrimaryKeyConstraint("project", "dataset", "experiment", name="pk_evaluation_dataset_experiments"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_evaluation_dataset_experiments_project_experiment",
        "evaluation_dataset_experiments",
        ["project", "experiment"],
    )


def _evaluation_records() -> None:
    op.create_table(
        "evaluation_records",
        Column("number", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("dataset", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("digest", Key, nullable=False),
        Column("inputs", Text, nullable=False),
        Column("outputs", Text),
        Column("expectations", Text),
        Column("tags", Text),
        Column("source", Text),
        Column("source_type", Key, nullable=False),
        Column("source_id", Key, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("updated", BigInteger, nullable=False),
        Column("created_by", Key, nullable=False),
        Column("updated_by", Key, nullable=False),
        PrimaryKeyConstraint("number", name="pk_evaluation_records"),
        UniqueConstraint("project", "dataset", "digest", name="uq_evaluation_records_project_dataset_digest"),
        UniqueConstraint("project", "dataset", "id", name="uq_evaluation_records_project_dataset_id"),
    )
    op.create_index(
        "ix_evaluation_records_project_dataset_number", "evaluation_records", ["project", "dataset", "number"]
    )


def _scorers() -> None:
    op.create_table(
        "scorers",
        Column("project", Key, nullable=False),
        Column("experiment", BigInteger, nullable=False, autoincrement=False),
        Column("name", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("last", Integer, nullable=False),
        PrimaryKeyConstraint("project", "experiment", "name", name="pk_scorers"),
        UniqueConstraint("project", "id", name="uq_scorers_project_id"),
    )


def _scorer_versions() -> None:
    op.create_table(
        "scorer_versions",
        Column("project", Key, nullable=False),
        Column("scorer", Key, nullable=False),
        Column("number", Integer, nullable=False, autoincrement=False),
        Column("body", Text, nullable=False),
        Column("created", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "scorer", "number", name="pk_scorer_versions"),
    )


def _scorer_online_configs() -> None:
    op.create_table(
        "scorer_online_configs",
        Column("project", Key, nullable=False),
        Column("scorer", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("rate", Double, nullable=False),
        Column("filter", Text),
        PrimaryKeyConstraint("project", "scorer", name="pk_scorer_online_configs"),
    )

"""Tables of experiments, runs, metrics, artifacts, logged and registered models, as they were at revision 0001."""

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
    _artifacts()
    _experiment_tags()
    _experiments()
    _logged_models()
    _registered_model_tags()
    _registered_model_versions()
    _registered_models()
    _runs()
    _tracked_datasets()
    _logged_model_metrics()
    _logged_model_params()
    _logged_model_tags()
    _metric_series()
    _run_datasets()
    _run_models()
    _run_params()
    _run_tags()
    _metric_points()


def _artifacts() -> None:
    op.create_table(
        "artifacts",
        Column("project", Key, nullable=False),
        Column("owner", Key, nullable=False),
        Column("path", Key, nullable=False),
        Column("object", Key, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "owner", "path", name="pk_artifacts"),
    )
    op.create_index("ix_artifacts_object", "artifacts", ["object"])


def _experiment_tags() -> None:
    op.create_table(
        "experiment_tags",
        Column("project", Key, nullable=False),
        Column("experiment", BigInteger, nullable=False),
        Column("key", Key, nullable=False),
        Column("value", Text, nullable=False),
        PrimaryKeyConstraint("project", "experiment", "key", name="pk_experiment_tags"),
        sqlite_with_rowid=False,
    )


def _experiments() -> None:
    op.create_table(
        "experiments",
        Column("project", Key, nullable=False),
        Column("id", BigInteger, nullable=False),
        Column("name", Key, nullable=False),
        Column("artifact_uri", Text, nullable=False),
        Column("stage", Key, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("updated", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "id", name="pk_experiments"),
        UniqueConstraint("project", "name", name="uq_experiments_project_name"),
    )


def _logged_models() -> None:
    op.create_table(
        "logged_models",
        Column("number", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("experiment", BigInteger, nullable=False),
        Column("name", Key, nullable=False),
        Column("type", Key, nullable=False),
        Column("run", Key, nullable=False),
        Column("status", Key, nullable=False),
        Column("stage", Key, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("updated", BigInteger, nullable=False),
        Column("artifact_uri", Text, nullable=False),
        PrimaryKeyConstraint("number", name="pk_logged_models"),
        UniqueConstraint("project", "id", name="uq_logged_models_project_id"),
    )
    op.create_index(
        "ix_logged_models_project_experiment_created", "logged_models", ["project", "experiment", "created"]
    )


def _registered_model_tags() -> None:
    op.create_table(
        "registered_model_tags",
        Column("project", Key, nullable=False),
        Column("asset", Key, nullable=False),
        Column("number", Integer, nullable=False),
        Column("key", Key, nullable=False),
        Column("value", Text, nullable=False),
        PrimaryKeyConstraint("project", "asset", "number", "key", name="pk_registered_model_tags"),
        sqlite_with_rowid=False,
    )


def _registered_model_versions() -> None:
    op.create_table(
        "registered_model_versions",
        Column("project", Key, nullable=False),
        Column("asset", Key, nullable=False),
        Column("number", Integer, nullable=False),
        Column("version", Key, nullable=False),
        Column("source", Text, nullable=False),
        Column("run", Key, nullable=False),
        Column("model", Key, nullable=False),
        Column("run_link", Text, nullable=False),
        Column("description", Text, nullable=False),
        Column("stage", Key, nullable=False),
        Column("actor", Key, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("updated", BigInteger, nullable=False),
        Column("deleted", SmallInteger, nullable=False),
        PrimaryKeyConstraint("project", "asset", "number", name="pk_registered_model_versions"),
    )
    op.create_index("ix_registered_model_versions_project_run", "registered_model_versions", ["project", "run"])


def _registered_models() -> None:
    op.create_table(
        "registered_models",
        Column("project", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("asset", Key, nullable=False),
        Column("description", Text, nullable=False),
        Column("actor", Key, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("updated", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "name", name="pk_registered_models"),
        UniqueConstraint("project", "asset", name="uq_registered_models_project_asset"),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        Column("number", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("experiment", BigInteger, nullable=False),
        Column("name", Key, nullable=False),
        Column("status", Key, nullable=False),
        Column("actor", Key, nullable=False),
        Column("stage", Key, nullable=False),
        Column("start", BigInteger, nullable=False),
        Column("end", BigInteger),
        Column("deleted", BigInteger),
        Column("artifact_uri", Text, nullable=False),
        PrimaryKeyConstraint("number", name="pk_runs"),
        UniqueConstraint("project", "id", name="uq_runs_project_id"),
    )
    op.create_index("ix_runs_project_experiment_start_id", "runs", ["project", "experiment", "start", "id"])


def _tracked_datasets() -> None:
    op.create_table(
        "tracked_datasets",
        Column("number", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("experiment", BigInteger, nullable=False),
        Column("name", Key, nullable=False),
        Column("digest", Key, nullable=False),
        Column("source_type", Text, nullable=False),
        Column("source", Text, nullable=False),
        Column("schema", Text),
        Column("profile", Text),
        PrimaryKeyConstraint("number", name="pk_tracked_datasets"),
        UniqueConstraint(
            "project", "experiment", "name", "digest", name="uq_tracked_datasets_project_experiment_name_digest"
        ),
    )


def _logged_model_metrics() -> None:
    op.create_table(
        "logged_model_metrics",
        Column("parent", Serial, nullable=False),
        Column("key", Key, nullable=False),
        Column("dataset", Key, nullable=False),
        Column("digest", Key, nullable=False),
        Column("run", Key, nullable=False),
        Column("step", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("value", Double, nullable=False),
        Column("nan", SmallInteger, nullable=False),
        PrimaryKeyConstraint("parent", "key", "dataset", "digest", name="pk_logged_model_metrics"),
        ForeignKeyConstraint(
            ["parent"], ["logged_models.number"], name="fk_logged_model_metrics_parent", ondelete="CASCADE"
        ),
    )


def _logged_model_params() -> None:
    op.create_table(
        "logged_model_params",
        Column("parent", Serial, nullable=False),
        Column("key", Key, nullable=False),
        Column("value", Text, nullable=False),
        PrimaryKeyConstraint("parent", "key", name="pk_logged_model_params"),
        ForeignKeyConstraint(
            ["parent"], ["logged_models.number"], name="fk_logged_model_params_parent", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )


def _logged_model_tags() -> None:
    op.create_table(
        "logged_model_tags",
        Column("parent", Serial, nullable=False),
        Column("key", Key, nullable=False),
        Column("value", Text, nullable=False),
        PrimaryKeyConstraint("parent", "key", name="pk_logged_model_tags"),
        ForeignKeyConstraint(
            ["parent"], ["logged_models.number"], name="fk_logged_model_tags_parent", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )


def _metric_series() -> None:
    op.create_table(
        "metric_series",
        Column("number", Serial, nullable=False),
        Column("run", Serial, nullable=False),
        Column("key", Key, nullable=False),
        Column("step", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("value", Double, nullable=False),
        Column("nan", SmallInteger, nullable=False),
        PrimaryKeyConstraint("number", name="pk_metric_series"),
        ForeignKeyConstraint(["run"], ["runs.number"], name="fk_metric_series_run", ondelete="CASCADE"),
        UniqueConstraint("run", "key", name="uq_metric_series_run_key"),
    )


def _run_datasets() -> None:
    op.create_table(
        "run_datasets",
        Column("run", Serial, nullable=False),
        Column("dataset", Serial, nullable=False),
        Column("context", Key, nullable=False),
        Column("tags", Text, nullable=False),
        PrimaryKeyConstraint("run", "dataset", name="pk_run_datasets"),
        ForeignKeyConstraint(
            ["dataset"], ["tracked_datasets.number"], name="fk_run_datasets_dataset", ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["run"], ["runs.number"], name="fk_run_datasets_run", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )


def _run_models() -> None:
    op.create_table(
        "run_models",
        Column("run", Serial, nullable=False),
        Column("direction", Key, nullable=False),
        Column("model", Key, nullable=False),
        Column("step", BigInteger, nullable=False),
        PrimaryKeyConstraint("run", "direction", "model", name="pk_run_models"),
        ForeignKeyConstraint(["run"], ["runs.number"], name="fk_run_models_run", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )


def _run_params() -> None:
    op.create_table(
        "run_params",
        Column("parent", Serial, nullable=False),
        Column("key", Key, nullable=False),
        Column("value", Text, nullable=False),
        PrimaryKeyConstraint("parent", "key", name="pk_run_params"),
        ForeignKeyConstraint(["parent"], ["runs.number"], name="fk_run_params_parent", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )


def _run_tags() -> None:
    op.create_table(
        "run_tags",
        Column("parent", Serial, nullable=False),
        Column("key", Key, nullable=False),
        Column("value", Text, nullable=False),
        PrimaryKeyConstraint("parent", "key", name="pk_run_tags"),
        ForeignKeyConstraint(["parent"], ["runs.number"], name="fk_run_tags_parent", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )


def _metric_points() -> None:
    op.create_table(
        "metric_points",
        Column("series", Serial, nullable=False),
        Column("step", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("value", Double, nullable=False),
        Column("nan", SmallInteger, nullable=False),
        PrimaryKeyConstraint("series", "step", "at", "value", "nan", name="pk_metric_points"),
        ForeignKeyConstraint(["series"], ["metric_series.number"], name="fk_metric_points_series", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )

"""Tables of predictions, labels, progress of logs, rollouts, as they were at revision 0001."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Integer, PrimaryKeyConstraint, Text, UniqueConstraint

from everloop.catalog.migrations.r0001.columns import Key, Serial


def create() -> None:
    """Create them."""
    _labels()
    _log_segments()
    _predictions()
    _rollouts()


def _labels() -> None:
    op.create_table(
        "labels",
        Column("id", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("prediction", Key, nullable=False),
        Column("value", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("recorded", BigInteger, nullable=False),
        Column("actor", Key, nullable=False),
        PrimaryKeyConstraint("id", name="pk_labels"),
        UniqueConstraint("project", "prediction", "at", "value", name="uq_labels_project_prediction_at_value"),
    )
    op.create_index("ix_labels_project_prediction_id", "labels", ["project", "prediction", "id"])


def _log_segments() -> None:
    op.create_table(
        "log_segments",
        Column("gateway", Key, nullable=False),
        Column("segment", BigInteger, nullable=False),
        Column("position", BigInteger, nullable=False),
        Column("closed", Boolean, nullable=False),
        PrimaryKeyConstraint("gateway", "segment", name="pk_log_segments"),
    )


def _predictions() -> None:
    op.create_table(
        "predictions",
        Column("project", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("endpoint", Key, nullable=False),
        Column("revision", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("recorded", BigInteger, nullable=False),
        Column("micros", BigInteger, nullable=False),
        Column("fallback", Key, nullable=False),
        Column("gateway", Key, nullable=False),
        Column("segment", BigInteger, nullable=False),
        Column("position", BigInteger, nullable=False),
        Column("row", Integer, nullable=False),
        PrimaryKeyConstraint("project", "id", name="pk_predictions"),
    )
    op.create_index("ix_predictions_gateway_segment", "predictions", ["gateway", "segment"])
    op.create_index("ix_predictions_project_endpoint_at_id", "predictions", ["project", "endpoint", "at", "id"])
    op.create_index("ix_predictions_project_revision_at", "predictions", ["project", "revision", "at"])


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        Column("project", Key, nullable=False),
        Column("environment", Key, nullable=False),
        Column("endpoint", Key, nullable=False),
        Column("state", Text, nullable=False),
        Column("updated", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "environment", "endpoint", name="pk_rollouts"),
    )

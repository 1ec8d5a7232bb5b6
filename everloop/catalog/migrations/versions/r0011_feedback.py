"""What became of predictions: values of metrics by prediction, or pushed for a revision."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, PrimaryKeyConstraint, UniqueConstraint

from everloop.catalog.migrations.r0001.columns import Key, Serial

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the table; nothing that is there changes."""
    op.create_table(
        "feedback",
        Column("id", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("endpoint", Key, nullable=False),
        Column("prediction", Key, nullable=False),
        Column("revision", Key, nullable=False),
        Column("metric", Key, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("total", Float, nullable=False),
        Column("squares", Float, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("recorded", BigInteger, nullable=False),
        Column("actor", Key, nullable=False),
        PrimaryKeyConstraint("id", name="pk_feedback"),
        UniqueConstraint(
            "project",
            "prediction",
            "revision",
            "metric",
            "at",
            name="uq_feedback_project_prediction_revision_metric_at",
        ),
    )
    op.create_index("ix_feedback_project_revision_metric_at", "feedback", ["project", "revision", "metric", "at"])

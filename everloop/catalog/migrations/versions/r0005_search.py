"""Searches that walk an index: the metrics of an experiment by value, parameters and tags by value."""

import sqlalchemy as sa
from alembic import op

from everloop.catalog.migrations.r0001.columns import Key

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add project and experiment to each series, from its run, and the indexes."""
    op.add_column("metric_series", sa.Column("project", Key, nullable=False, server_default=sa.text("''")))
    op.add_column(
        "metric_series", sa.Column("experiment", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    )
    op.execute(
        "UPDATE metric_series SET project = (SELECT project FROM runs WHERE number = run), "
        "experiment = (SELECT experiment FROM runs WHERE number = run)"
    )
    columns = ["project", "experiment", "key", "nan", "value", "run"]
    op.create_index("ix_metric_series_value", "metric_series", columns)
    for kind in ("params", "tags"):
        op.create_index(f"ix_run_{kind}_value", f"run_{kind}", ["key", sa.text("substr(value, 1, 100)")])

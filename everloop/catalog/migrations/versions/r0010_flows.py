"""Runs of flows and their steps."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, PrimaryKeyConstraint, Text

from everloop.catalog.migrations.r0001.columns import Key

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Create their tables; nothing that is there changes."""
    op.create_table(
        "flows",
        Column("project", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("title", Text, nullable=False),
        Column("environment", Key, nullable=False),
        Column("actor", Key, nullable=False),
        Column("state", Key, nullable=False),
        Column("token", Integer, nullable=False),
        Column("owner", Key, nullable=False),
        Column("wanted", Key, nullable=False),
        Column("request", Text, nullable=False),
        Column("plan", Text, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("beat", BigInteger, nullable=False),
        Column("ended", BigInteger),
        Column("error", Text, nullable=False),
        PrimaryKeyConstraint("project", "id", name="pk_flows"),
    )
    op.create_index("ix_flows_project_created", "flows", ["project", "created"])
    op.create_table(
        "flow_steps",
        Column("project", Key, nullable=False),
        Column("flow", Key, nullable=False),
        Column("step", Key, nullable=False),
        Column("place", Integer, nullable=False),
        Column("state", Key, nullable=False),
        Column("recipe", Key, nullable=False),
        Column("output", Key, nullable=False),
        Column("run", Key, nullable=False),
        Column("why", Text, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("began", BigInteger),
        Column("ended", BigInteger),
        Column("cpu_seconds", Float, nullable=False),
        Column("peak_memory", BigInteger, nullable=False),
        Column("decision", Text, nullable=False),
        PrimaryKeyConstraint("project", "flow", "step", name="pk_flow_steps"),
    )

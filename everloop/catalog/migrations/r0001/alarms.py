"""Tables of alarms, evaluations and firings, as they were at revision 0001."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, PrimaryKeyConstraint, Text, text

from everloop.catalog.migrations.r0001.columns import Key, Serial


def create() -> None:
    """Create them."""
    _alarms()
    _evaluations()
    _firings()


def _alarms() -> None:
    op.create_table(
        "alarms",
        Column("project", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("monitor", Key, nullable=False),
        Column("endpoint", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("state", Key, nullable=False),
        Column("title", Text, nullable=False),
        Column("columns", Text, nullable=False),
        Column("history", Key, nullable=False),
        Column("severity", Float, nullable=False),
        Column("blocks_retraining", Boolean, nullable=False),
        Column("onset", BigInteger, nullable=False),
        Column("last_window", BigInteger, nullable=False),
        Column("opened", BigInteger),
        Column("updated", BigInteger, nullable=False),
        Column("resolved", BigInteger),
        Column("snoozed_until", BigInteger, nullable=False),
        Column("acknowledged_by", Key, nullable=False),
        Column("real", Boolean),
        Column("note", Text, nullable=False),
        Column("evidence", Key, nullable=False),
        Column("version", Integer, nullable=False),
        PrimaryKeyConstraint("project", "id", name="pk_alarms"),
    )
    op.create_index("ix_alarms_project_endpoint_opened", "alarms", ["project", "endpoint", "opened"])
    op.create_index("ix_alarms_project_monitor_state", "alarms", ["project", "monitor", "state"])
    op.create_index("ix_alarms_project_state_updated", "alarms", ["project", "state", "updated"])


def _evaluations() -> None:
    op.create_table(
        "evaluations",
        Column("id", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("monitor", Key, nullable=False),
        Column("start", BigInteger, nullable=False),
        Column("until", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("recorded", BigInteger, nullable=False),
        Column("state", Key, nullable=False),
        Column("evidence", Key, nullable=False),
        Column("summary", Text, nullable=False),
        Column("figures", Text, nullable=False),
        PrimaryKeyConstraint("id", name="pk_evaluations"),
    )
    op.create_index("ix_evaluations_project_monitor_start_id", "evaluations", ["project", "monitor", "start", "id"])


def _firings() -> None:
    op.create_table(
        "firings",
        Column("project", Key, nullable=False),
        Column("rule", Key, nullable=False),
        Column("fire", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("reason", Text, nullable=False),
        Column("outcome", Key, nullable=False),
        Column("number", BigInteger, nullable=False),
        Column("task", Key, nullable=False),
        PrimaryKeyConstraint("project", "rule", "fire", name="pk_firings"),
    )
    op.create_index("ix_firings_project_rule_at", "firings", ["project", "rule", "at"])
    op.create_index(
        "uq_firings_number",
        "firings",
        ["project", "number"],
        unique=True,
        sqlite_where=text("number > 0"),
        postgresql_where=text("number > 0"),
    )

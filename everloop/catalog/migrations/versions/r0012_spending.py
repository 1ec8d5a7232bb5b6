"""What was used and paid, budgets, and grants of single users."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, ForeignKeyConstraint, Integer, PrimaryKeyConstraint, Text

from everloop.catalog.migrations.r0001.columns import Key, Serial

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create their tables; nothing that is there changes."""
    op.create_table(
        "user_grants",
        Column("user", Key, nullable=False),
        Column("grant", Key, nullable=False),
        PrimaryKeyConstraint("user", "grant", name="pk_user_grants"),
        ForeignKeyConstraint(["user"], ["users.name"], name="fk_user_grants_user_users"),
        sqlite_with_rowid=False,
    )
    _uses()
    _sums()


def _uses() -> None:
    op.create_table(
        "uses",
        Column("id", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("flow", Key, nullable=False),
        Column("step", Key, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("recipe", Key, nullable=False),
        Column("output", Key, nullable=False),
        Column("run", Key, nullable=False),
        Column("actor", Key, nullable=False),
        Column("environment", Key, nullable=False),
        Column("profile", Key, nullable=False),
        Column("price", Text, nullable=False),
        Column("currency", Key, nullable=False),
        Column("cost", BigInteger, nullable=False),
        Column("state", Key, nullable=False),
        Column("began", BigInteger, nullable=False),
        Column("ended", BigInteger, nullable=False),
        Column("period", Key, nullable=False),
        Column("seconds", Float, nullable=False),
        Column("cpu_seconds", Float, nullable=False),
        Column("peak_memory", BigInteger, nullable=False),
        Column("gpu_seconds", Float, nullable=False),
        Column("written", BigInteger, nullable=False),
        PrimaryKeyConstraint("id", name="pk_uses"),
    )
    op.create_index("ix_uses_project_ended", "uses", ["project", "ended"])
    op.create_index("ix_uses_project_flow", "uses", ["project", "flow"])
    op.create_index("ix_uses_project_recipe", "uses", ["project", "recipe"])


def _sums() -> None:
    op.create_table(
        "spending",
        Column("project", Key, nullable=False),
        Column("scope", Key, nullable=False),
        Column("period", Key, nullable=False),
        Column("currency", Key, nullable=False),
        Column("cost", BigInteger, nullable=False),
        Column("cpu_seconds", Float, nullable=False),
        Column("gpu_seconds", Float, nullable=False),
        PrimaryKeyConstraint("project", "scope", "period", "currency", name="pk_spending"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "open_uses",
        Column("project", Key, nullable=False),
        Column("flow", Key, nullable=False),
        Column("actor", Key, nullable=False),
        Column("currency", Key, nullable=False),
        Column("cost", BigInteger, nullable=False),
        Column("cpu_seconds", Float, nullable=False),
        Column("gpu_seconds", Float, nullable=False),
        Column("began", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "flow", name="pk_open_uses"),
    )
    op.create_table(
        "budgets",
        Column("project", Key, nullable=False),
        Column("scope", Key, nullable=False),
        Column("currency", Key, nullable=False),
        Column("cost", BigInteger),
        Column("cpu_seconds", Float),
        Column("gpu_seconds", Float),
        Column("warn", Float, nullable=False),
        Column("actor", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "scope", name="pk_budgets"),
    )

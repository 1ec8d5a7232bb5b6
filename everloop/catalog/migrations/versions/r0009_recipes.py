"""What recipes are made of, and what steps read that nobody had declared."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Text

from everloop.catalog.migrations.r0001.columns import Key

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create their tables; nothing that is there changes."""
    op.create_table(
        "ingredients",
        Column("project", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("content", Text, nullable=False),
        PrimaryKeyConstraint("project", "id", name="pk_ingredients"),
    )
    op.create_table(
        "recipes",
        Column("project", Key, nullable=False),
        Column("recipe", Key, nullable=False),
        Column("step", Key, nullable=False),
        Column("code", Key, nullable=False),
        Column("packages", Key, nullable=False),
        Column("rest", Text, nullable=False),
        PrimaryKeyConstraint("project", "recipe", name="pk_recipes"),
    )
    op.create_table(
        "leaks",
        Column("project", Key, nullable=False),
        Column("recipe", Key, nullable=False),
        Column("reads", Key, nullable=False),
        Column("content", Text, nullable=False),
        Column("output", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "recipe", "reads", name="pk_leaks"),
    )
    op.create_index("ix_steps_project_step_id", "steps", ["project", "step", "id"])

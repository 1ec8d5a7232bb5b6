"""Tables of versions, pointers, facts, tasks, steps and placements, as they were at revision 0001."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    text,
)

from everloop.catalog.migrations.r0001.columns import Key, Serial


def create() -> None:
    """Create them."""
    _chains()
    _checkpoints()
    _facts()
    _names()
    _placements()
    _ref_log()
    _steps()
    _tasks()
    _versions()
    _edges()
    _numbers()
    _refs()


def _chains() -> None:
    op.create_table(
        "chains",
        Column("project", Key, nullable=False),
        Column("position", BigInteger, nullable=False),
        Column("hash", Key, nullable=False),
        PrimaryKeyConstraint("project", name="pk_chains"),
    )


def _checkpoints() -> None:
    op.create_table(
        "checkpoints",
        Column("project", Key, nullable=False),
        Column("position", BigInteger, nullable=False),
        Column("envelope", Text, nullable=False),
        PrimaryKeyConstraint("project", "position", name="pk_checkpoints"),
    )


def _facts() -> None:
    op.create_table(
        "facts",
        Column("id", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("subject", Key, nullable=False),
        Column("actor", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("recorded", BigInteger),
        Column("payload", Text, nullable=False),
        Column("payload_digest", Key, nullable=False),
        Column("position", BigInteger),
        Column("prev", Key),
        Column("hash", Key),
        PrimaryKeyConstraint("id", name="pk_facts"),
    )
    op.create_index("ix_facts_project_kind_position", "facts", ["project", "kind", "position"])
    op.create_index("ix_facts_project_subject_position", "facts", ["project", "subject", "position"])
    op.create_index(
        "ix_facts_unsealed",
        "facts",
        ["id"],
        sqlite_where=text("position IS NULL"),
        postgresql_where=text("position IS NULL"),
    )
    op.create_index("uq_facts_project_position", "facts", ["project", "position"], unique=True)


def _names() -> None:
    op.create_table(
        "names",
        Column("project", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("incarnation", Integer, nullable=False),
        Column("last", Integer, nullable=False),
        Column("retired", Boolean, nullable=False),
        PrimaryKeyConstraint("project", "kind", "name", name="pk_names"),
    )


def _placements() -> None:
    op.create_table(
        "placements",
        Column("project", Key, nullable=False),
        Column("logical", Key, nullable=False),
        Column("object", Key, nullable=False),
        PrimaryKeyConstraint("project", "logical", name="pk_placements"),
    )


def _ref_log() -> None:
    op.create_table(
        "ref_log",
        Column("id", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("old", Key),
        Column("new", Key),
        Column("actor", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("reason", Text, nullable=False),
        Column("change", Key, nullable=False),
        PrimaryKeyConstraint("id", name="pk_ref_log"),
    )
    op.create_index("ix_ref_log_project_name_at_id", "ref_log", ["project", "name", "at", "id"])


def _steps() -> None:
    op.create_table(
        "steps",
        Column("id", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("recipe", Key, nullable=False),
        Column("step", Key, nullable=False),
        Column("output", Key),
        Column("digest", Key, nullable=False),
        Column("code", Key, nullable=False),
        Column("runtime", Key, nullable=False),
        Column("params", Text, nullable=False),
        Column("inputs", Text, nullable=False),
        Column("seconds", Float, nullable=False),
        Column("cpu_seconds", Float, nullable=False),
        Column("peak_memory", BigInteger, nullable=False),
        Column("run", Key, nullable=False),
        Column("status", Key, nullable=False),
        Column("cached", Boolean, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("id", name="pk_steps"),
    )
    op.create_index("ix_steps_project_output", "steps", ["project", "output"])
    op.create_index("ix_steps_project_recipe_id", "steps", ["project", "recipe", "id"])


def _tasks() -> None:
    op.create_table(
        "tasks",
        Column("id", Key, nullable=False),
        Column("project", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("payload", Text, nullable=False),
        Column("state", Key, nullable=False),
        Column("priority", Integer, nullable=False),
        Column("dedupe", Key, nullable=False),
        Column("actor", Key, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("not_before", BigInteger, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("owner", Key, nullable=False),
        Column("lease_until", BigInteger, nullable=False),
        Column("finished", BigInteger),
        Column("result", Text),
        Column("error", Text),
        PrimaryKeyConstraint("id", name="pk_tasks"),
    )
    op.create_index("ix_tasks_project_created", "tasks", ["project", "created"])
    op.create_index("ix_tasks_state_not_before", "tasks", ["state", "not_before"])
    op.create_index(
        "uq_tasks_open",
        "tasks",
        ["project", "kind", "dedupe"],
        unique=True,
        sqlite_where=text("dedupe <> '' AND state IN ('queued', 'running')"),
        postgresql_where=text("dedupe <> '' AND state IN ('queued', 'running')"),
    )


def _versions() -> None:
    op.create_table(
        "versions",
        Column("project", Key, nullable=False),
        Column("id", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("manifest", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("actor", Key, nullable=False),
        PrimaryKeyConstraint("project", "id", name="pk_versions"),
    )


def _edges() -> None:
    op.create_table(
        "edges",
        Column("project", Key, nullable=False),
        Column("to_id", Key, nullable=False),
        Column("role", Key, nullable=False),
        Column("from_id", Key, nullable=False),
        PrimaryKeyConstraint("project", "to_id", "role", "from_id", name="pk_edges"),
        ForeignKeyConstraint(
            ["project", "from_id"], ["versions.project", "versions.id"], name="fk_edges_project_from_id"
        ),
        ForeignKeyConstraint(["project", "to_id"], ["versions.project", "versions.id"], name="fk_edges_project_to_id"),
    )
    op.create_index("ix_edges_project_from_id", "edges", ["project", "from_id"])


def _numbers() -> None:
    op.create_table(
        "numbers",
        Column("project", Key, nullable=False),
        Column("kind", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("incarnation", Integer, nullable=False),
        Column("number", Integer, nullable=False),
        Column("version", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("actor", Key, nullable=False),
        PrimaryKeyConstraint("project", "kind", "name", "incarnation", "number", name="pk_numbers"),
        ForeignKeyConstraint(
            ["project", "version"], ["versions.project", "versions.id"], name="fk_numbers_project_version"
        ),
        UniqueConstraint(
            "project", "kind", "name", "incarnation", "version", name="uq_numbers_project_kind_name_incarnation_version"
        ),
    )
    op.create_index("ix_numbers_project_version", "numbers", ["project", "version"])


def _refs() -> None:
    op.create_table(
        "refs",
        Column("project", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("target", Key, nullable=False),
        PrimaryKeyConstraint("project", "name", name="pk_refs"),
        ForeignKeyConstraint(["project", "target"], ["versions.project", "versions.id"], name="fk_refs_project_target"),
    )

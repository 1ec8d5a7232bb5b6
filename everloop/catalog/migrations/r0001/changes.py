"""Tables of changes, approvals, comments and check results, as they were at revision 0001."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, ForeignKeyConstraint, Integer, PrimaryKeyConstraint, Text

from everloop.catalog.migrations.r0001.columns import Key, Serial


def create() -> None:
    """Create them."""
    _change_numbers()
    _changes()
    _check_results()
    _environments()
    _approvals()
    _change_comments()


def _change_numbers() -> None:
    op.create_table(
        "change_numbers",
        Column("project", Key, nullable=False),
        Column("last", Integer, nullable=False),
        PrimaryKeyConstraint("project", name="pk_change_numbers"),
    )


def _changes() -> None:
    op.create_table(
        "changes",
        Column("project", Key, nullable=False),
        Column("number", Integer, nullable=False),
        Column("title", Text, nullable=False),
        Column("description", Text, nullable=False),
        Column("source", Key, nullable=False),
        Column("target", Key, nullable=False),
        Column("base", Key, nullable=False),
        Column("head", Key, nullable=False),
        Column("delta", Text, nullable=False),
        Column("delta_id", Key, nullable=False),
        Column("state", Key, nullable=False),
        Column("authors", Text, nullable=False),
        Column("actor", Key, nullable=False),
        Column("reverts", Integer, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("updated", BigInteger, nullable=False),
        Column("merged_at", BigInteger),
        Column("merged_by", Key, nullable=False),
        Column("merge_snapshot", Key, nullable=False),
        Column("approvers", Text, nullable=False),
        Column("statement", Key, nullable=False),
        PrimaryKeyConstraint("project", "number", name="pk_changes"),
    )
    op.create_index("ix_changes_project_merge_snapshot", "changes", ["project", "merge_snapshot"])
    op.create_index("ix_changes_project_state_number", "changes", ["project", "state", "number"])


def _check_results() -> None:
    op.create_table(
        "check_results",
        Column("id", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("check_id", Key, nullable=False),
        Column("objective_id", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("delta_id", Key, nullable=False),
        Column("environment", Key, nullable=False),
        Column("subjects", Text, nullable=False),
        Column("heads", Text, nullable=False),
        Column("evidence", Key, nullable=False),
        Column("state", Key, nullable=False),
        Column("summary", Text, nullable=False),
        Column("figures", Text, nullable=False),
        Column("actor", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("id", name="pk_check_results"),
    )
    op.create_index("ix_check_results_project_check_id_id", "check_results", ["project", "check_id", "id"])
    op.create_index("ix_check_results_project_delta_id_id", "check_results", ["project", "delta_id", "id"])
    op.create_index("ix_check_results_project_evidence", "check_results", ["project", "evidence"])


def _environments() -> None:
    op.create_table(
        "environments",
        Column("project", Key, nullable=False),
        Column("name", Key, nullable=False),
        Column("base", Key, nullable=False),
        Column("base_snapshot", Key, nullable=False),
        Column("actor", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("project", "name", name="pk_environments"),
    )


def _approvals() -> None:
    op.create_table(
        "approvals",
        Column("id", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("number", Integer, nullable=False),
        Column("actor", Key, nullable=False),
        Column("roles", Text, nullable=False),
        Column("service", Boolean, nullable=False),
        Column("delta", Key, nullable=False),
        Column("policy", Key, nullable=False),
        Column("evidence", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("comment", Text, nullable=False),
        PrimaryKeyConstraint("id", name="pk_approvals"),
        ForeignKeyConstraint(
            ["project", "number"], ["changes.project", "changes.number"], name="fk_approvals_project_number"
        ),
    )
    op.create_index("ix_approvals_project_number_id", "approvals", ["project", "number", "id"])


def _change_comments() -> None:
    op.create_table(
        "change_comments",
        Column("id", Serial, nullable=False),
        Column("project", Key, nullable=False),
        Column("number", Integer, nullable=False),
        Column("actor", Key, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("text", Text, nullable=False),
        PrimaryKeyConstraint("id", name="pk_change_comments"),
        ForeignKeyConstraint(
            ["project", "number"], ["changes.project", "changes.number"], name="fk_change_comments_project_number"
        ),
    )
    op.create_index("ix_change_comments_project_number_id", "change_comments", ["project", "number", "id"])

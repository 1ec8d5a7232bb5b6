"""Tables of environments, changes, their approvals and comments, and check results."""

from sqlalchemy import Boolean, Column, ForeignKeyConstraint, Index, Integer, Table, Text

from everloop.catalog.tables.columns import STORED, Key, Moment, Serial, metadata

environments = Table(
    "environments",
    metadata,
    Column("project", Key, primary_key=True),
    Column("name", Key, primary_key=True),
    Column("base", Key, nullable=False),  # the environment that it started from; empty for the first ones
    Column("base_snapshot", Key, nullable=False),
    Column("actor", Key, nullable=False),
    Column("at", Moment, nullable=False),
)

change_numbers = Table(
    "change_numbers",
    metadata,
    Column("project", Key, primary_key=True),
    Column("last", Integer, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("project", Key, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("source", Key, nullable=False),  # environment; empty when a snapshot was proposed
    Column("target", Key, nullable=False),
    Column("base", Key, nullable=False),  # snapshots: common ancestor, and what is proposed
    Column("head", Key, nullable=False),
    Column("delta", Text, nullable=False),  # JSON {key: [old, new]}
    Column("delta_id", Key, nullable=False),
    Column("state", Key, nullable=False),  # open | merged | closed | reverted
    Column("authors", Text, nullable=False),  # JSON list
    Column("actor", Key, nullable=False),
    Column("reverts", Integer, nullable=False),  # the number of the change that this one undoes, or 0
    Column("at", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    Column("merged_at", Moment),
    Column("merged_by", Key, nullable=False),
    Column("merge_snapshot", Key, nullable=False),
    Column("approvers", Text, nullable=False),  # JSON list of those whose approvals counted at the merge
    Column("statement", Key, nullable=False, info=STORED),  # object with the signed outcome
    Index(None, "project", "state", "number"),
    Index(None, "project", "merge_snapshot"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("number", Integer, nullable=False),
    Column("actor", Key, nullable=False),
    Column("roles", Text, nullable=False),  # JSON list
    Column("service", Boolean, nullable=False),
    Column("delta", Key, nullable=False),
    Column("policy", Key, nullable=False),
    Column("evidence", Key, nullable=False),
    Column("at", Moment, nullable=False),
    Column("comment", Text, nullable=False),
    ForeignKeyConstraint(["project", "number"], ["changes.project", "changes.number"]),
    Index(None, "project", "number", "id"),
)

change_comments = Table(
    "change_comments",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("number", Integer, nullable=False),
    Column("actor", Key, nullable=False),
    Column("at", Moment, nullable=False),
    Column("text", Text, nullable=False),
    ForeignKeyConstraint(["project", "number"], ["changes.project", "changes.number"]),
    Index(None, "project", "number", "id"),
)

check_results = Table(
    "check_results",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("check_id", Key, nullable=False),
    Column("objective_id", Key, nullable=False),  # empty when the check has no objective
    Column("name", Key, nullable=False),
    Column("delta_id", Key, nullable=False),
    Column("environment", Key, nullable=False),
    Column("subjects", Text, nullable=False),  # JSON {parameter: version id}
    Column("heads", Text, nullable=False),  # JSON {dataset: version id}
    Column("evidence", Key, nullable=False),
    Column("state", Key, nullable=False),  # passed | failed | error
    Column("summary", Text, nullable=False),
    Column("figures", Text, nullable=False),  # JSON {name: text of a number}
    Column("actor", Key, nullable=False),
    Column("at", Moment, nullable=False),
    Index(None, "project", "delta_id", "id"),
    Index(None, "project", "check_id", "id"),
    Index(None, "project", "evidence"),
)

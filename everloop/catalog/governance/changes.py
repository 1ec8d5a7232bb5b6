"""Rows of changes, their approvals and comments, and of environments. What they mean is said in `everloop.changes`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, desc, insert, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.changes import approvals, change_comments, change_numbers, changes, environments
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, NotFound
from everloop.core.snapshot import Delta

ChangeState = Literal["open", "merged", "closed", "reverted"]


@dataclass(frozen=True, slots=True)
class Change:
    """A proposed move of an environment's pointer: what differs, who made it, where it stands."""

    number: int
    title: str
    description: str
    source: str
    """Environment that it came from; empty when a snapshot was proposed."""
    target: str
    base: str
    head: str
    delta: Delta
    delta_id: str
    state: ChangeState
    authors: tuple[str, ...]
    actor: str
    at: Micros
    updated: Micros
    reverts: int = 0
    merged_at: Micros | None = None
    merged_by: str = ""
    merge_snapshot: str = ""
    approvers: tuple[str, ...] = ()
    """Whose approvals counted at the merge."""
    statement: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """One approval, bound to the delta, policy and evidence that its actor saw."""

    id: int
    number: int
    actor: str
    roles: frozenset[str]
    service: bool
    delta: str
    policy: str
    evidence: str
    at: Micros
    comment: str


@dataclass(frozen=True, slots=True)
class Comment:
    """What somebody said about a change."""

    id: int
    number: int
    actor: str
    at: Micros
    text: str


@dataclass(frozen=True, slots=True)
class EnvironmentRow:
    """Where an environment started: the environment and snapshot that it was made from."""

    name: str
    base: str
    base_snapshot: str
    actor: str
    at: Micros


def take_number(tx: Tx, project: str) -> int:
    """The next change number of the project; numbers of transactions that roll back are given again."""
    statement = insert_into(tx, change_numbers).values(project=project, last=1)
    statement = statement.on_conflict_do_update(index_elements=["project"], set_={"last": change_numbers.c.last + 1})
    return int(tx.execute(statement.returning(change_numbers.c.last)).scalar_one())


def create(tx: Tx, project: str, change: Change) -> None:
    """Write the row of a new change, whose number `take_number` gave in the same transaction."""
    tx.execute(insert(changes).values(project=project, **_columns(change)))


def get(tx: Tx, project: str, number: int) -> Change:
    """The change with this number; raises `NotFound`."""
    row = tx.execute(select(changes).where(changes.c.project == project, changes.c.number == number)).one_or_none()
    if row is None:
        raise NotFound(f"there is no change #{number}", hint="`everloop changes list` lists them")
    return _change(row)


def by_merge(tx: Tx, project: str, snapshot: str) -> Change | None:
    """The change whose merge made this snapshot."""
    if not snapshot:
        return None
    row = tx.execute(
        select(changes).where(changes.c.project == project, changes.c.merge_snapshot == snapshot)
    ).one_or_none()
    return None if row is None else _change(row)


def find(
    tx: Tx,
    project: str,
    *,
    state: str = "",
    target: str = "",
    source: str = "",
    limit: int = 100,
    before: int | None = None,
) -> list[Change]:
    """Changes, newest first; empty `state`, `target` and `source` mean any."""
    query = select(changes).where(changes.c.project == project)
    if state:
        query = query.where(changes.c.state == state)
    if target:
        query = query.where(changes.c.target == target)
    if source:
        query = query.where(changes.c.source == source)
    if before is not None:
        query = query.where(changes.c.number < before)
    return [_change(row) for row in tx.execute(query.order_by(desc(changes.c.number)).limit(limit))]


def touching(tx: Tx, project: str, version_id: str) -> list[Change]:
    """Changes whose delta brings or removes this version, newest first."""
    query = select(changes).where(
        changes.c.project == project, changes.c.delta.contains(f'"{version_id}"', autoescape=True)
    )
    return [_change(row) for row in tx.execute(query.order_by(desc(changes.c.number)))]


def replace(tx: Tx, project: str, old: Change, new: Change) -> None:
    """Write `new` over `old`; raises `Conflict` when the row's state or delta moved meanwhile."""
    done = tx.execute(
        update(changes)
        .where(
            changes.c.project == project,
            changes.c.number == old.number,
            changes.c.state == old.state,
            changes.c.delta_id == old.delta_id,
            changes.c.head == old.head,
        )
        .values(**_columns(new))
    )
    if done.rowcount != 1:
        raise Conflict(f"change #{old.number} was changed meanwhile", hint="look at it again", retry=True)


def add_approval(tx: Tx, project: str, approval: ApprovalRow) -> int:
    """Append an approval and return its id (the row's own `id` is ignored)."""
    values = {
        "project": project,
        "number": approval.number,
        "actor": approval.actor,
        "roles": json.dumps(sorted(approval.roles)),
        "service": approval.service,
        "delta": approval.delta,
        "policy": approval.policy,
        "evidence": approval.evidence,
        "at": approval.at,
        "comment": approval.comment,
    }
    return int(tx.execute(insert(approvals).values(**values).returning(approvals.c.id)).scalar_one())


def approvals_of(tx: Tx, project: str, number: int) -> list[ApprovalRow]:
    """All approvals of a change, dead ones too, oldest first."""
    rows = tx.execute(
        select(approvals).where(approvals.c.project == project, approvals.c.number == number).order_by(approvals.c.id)
    )
    return [
        ApprovalRow(
            r.id, r.number, r.actor, frozenset(json.loads(r.roles)), bool(r.service), r.delta, r.policy, r.evidence,
            r.at, r.comment,
        )
        for r in rows
    ]  # fmt: skip


def add_comment(tx: Tx, project: str, comment: Comment) -> int:
    """Append a comment and return its id (the row's own `id` is ignored)."""
    values = {
        "project": project,
        "number": comment.number,
        "actor": comment.actor,
        "at": comment.at,
        "text": comment.text,
    }
    return int(tx.execute(insert(change_comments).values(**values).returning(change_comments.c.id)).scalar_one())


def comments_of(tx: Tx, project: str, number: int) -> list[Comment]:
    """The comments of a change, oldest first."""
    table = change_comments
    rows = tx.execute(select(table).where(table.c.project == project, table.c.number == number).order_by(table.c.id))
    return [Comment(r.id, r.number, r.actor, r.at, r.text) for r in rows]


def add_environment(tx: Tx, project: str, row: EnvironmentRow) -> None:
    """Remember where an environment started; a second row of the same name is kept as it was."""
    values = {
        "project": project,
        "name": row.name,
        "base": row.base,
        "base_snapshot": row.base_snapshot,
        "actor": row.actor,
        "at": row.at,
    }
    tx.execute(insert_into(tx, environments).values(**values).on_conflict_do_nothing())


def environment(tx: Tx, project: str, name: str) -> EnvironmentRow | None:
    """Where an environment started, or None when it does not exist."""
    row = tx.execute(
        select(environments).where(environments.c.project == project, environments.c.name == name)
    ).one_or_none()
    return None if row is None else EnvironmentRow(row.name, row.base, row.base_snapshot, row.actor, row.at)


def environment_rows(tx: Tx, project: str) -> dict[str, EnvironmentRow]:
    """All environments of a project by name."""
    rows = tx.execute(select(environments).where(environments.c.project == project).order_by(environments.c.name))
    return {r.name: EnvironmentRow(r.name, r.base, r.base_snapshot, r.actor, r.at) for r in rows}


def _columns(change: Change) -> dict[str, Any]:
    return {
        "number": change.number,
        "title": change.title,
        "description": change.description,
        "source": change.source,
        "target": change.target,
        "base": change.base,
        "head": change.head,
        "delta": json.dumps({key: list(pair) for key, pair in change.delta.items()}, sort_keys=True),
        "delta_id": change.delta_id,
        "state": change.state,
        "authors": json.dumps(sorted(change.authors)),
        "actor": change.actor,
        "reverts": change.reverts,
        "at": change.at,
        "updated": change.updated,
        "merged_at": change.merged_at,
        "merged_by": change.merged_by,
        "merge_snapshot": change.merge_snapshot,
        "approvers": json.dumps(sorted(change.approvers)),
        "statement": change.statement,
    }


def _change(row: Row[Any]) -> Change:
    delta: Mapping[str, list[str | None]] = json.loads(row.delta)
    return Change(
        number=row.number,
        title=row.title,
        description=row.description,
        source=row.source,
        target=row.target,
        base=row.base,
        head=row.head,
        delta={key: (pair[0], pair[1]) for key, pair in delta.items()},
        delta_id=row.delta_id,
        state=row.state,
        authors=tuple(json.loads(row.authors)),
        actor=row.actor,
        at=row.at,
        updated=row.updated,
        reverts=row.reverts,
        merged_at=row.merged_at,
        merged_by=row.merged_by,
        merge_snapshot=row.merge_snapshot,
        approvers=tuple(json.loads(row.approvers)),
        statement=row.statement,
    )

"""How operations show a change: the row, its delta in words, checks, approvals and the decision."""

from typing import Any, Literal

from everloop.catalog import versions
from everloop.catalog.engine import Tx
from everloop.catalog.governance import changes as rows
from everloop.catalog.governance.changes import Change, Comment
from everloop.catalog.operation import Answer
from everloop.changes.standing import Standing, standing

State = Literal["open", "merged", "closed", "reverted"]


class DifferenceView(Answer):
    """One key of a delta."""

    key: str
    old: str | None
    new: str | None
    old_label: str
    """`model/delay v6`; empty when there was none."""
    new_label: str


class CheckView(Answer):
    """One required check."""

    label: str
    name: str
    state: Literal["missing", "waiting", "running", "passed", "failed", "error"]
    summary: str
    figures: dict[str, str]
    evidence: str
    origin: Literal["proposal", "target"]
    reason: str
    problems: list[str]
    moved_heads: list[str]
    run_by: str
    at: int


class ApprovalView(Answer):
    """One approval; `alive` says whether it is bound to what the change is now."""

    actor: str
    roles: list[str]
    alive: bool
    author: bool
    """Whether the approver is an author: a self-approval."""
    at: int
    comment: str
    delta: str
    policy: str
    evidence: str


class CommentView(Answer):
    """One comment."""

    actor: str
    at: int
    text: str


class ChangeRow(Answer):
    """A change in a list."""

    number: int
    title: str
    source: str
    target: str
    state: State
    authors: list[str]
    actor: str
    at: int
    updated: int
    reverts: int
    merged_at: int | None
    merged_by: str
    merge_snapshot: str
    approvers: list[str]
    """Whose approvals counted at the merge."""
    keys: list[str]


class ChangeView(ChangeRow):
    """A change with everything that decides about it."""

    description: str
    base: str
    head: str
    statement: str
    """Object with the signed outcome, once merged."""
    delta_id: str
    policy: str
    mode: Literal["solo", "team"]
    evidence: str
    differences: list[DifferenceView]
    checks: list[CheckView]
    approvals: list[ApprovalView]
    comments: list[CommentView]
    mergeable: bool
    reasons: list[str]
    """Why it cannot merge now."""
    notes: list[str]
    """What a reviewer should know though it blocks nothing; a self-approval is said here."""


class ChangeList(Answer):
    """Changes, newest first."""

    changes: list[ChangeRow]


def change_row(change: Change) -> ChangeRow:
    """A change as a list shows it."""
    return ChangeRow(**_row(change))


def change_view(tx: Tx, project: str, number: int) -> ChangeView:
    """A change in full, as it stands now; raises `NotFound`."""
    change = rows.get(tx, project, number)
    now = standing(tx, project, change)
    comments = rows.comments_of(tx, project, number)
    open_ = change.state == "open"
    delta = now.delta if open_ else change.delta
    ids = {i for pair in delta.values() for i in pair if i}
    labels = versions.labels(tx, project, ids)
    return ChangeView(
        **_row(change),
        description=change.description,
        base=change.base,
        head=change.head,
        statement=change.statement,
        delta_id=now.delta_id if open_ else change.delta_id,
        policy=now.policy.id,
        mode=now.policy.policy.mode,
        evidence=now.evidence,
        differences=[
            DifferenceView(
                key=key, old=old, new=new, old_label=labels.get(old or "", ""), new_label=labels.get(new or "", "")
            )
            for key, (old, new) in delta.items()
        ],
        checks=_checks(now),
        approvals=_approvals(now),
        comments=[_comment(c) for c in comments],
        mergeable=open_ and now.decision.allowed,
        reasons=list(now.decision.reasons) if open_ else [f"the change is {change.state}"],
        notes=list(now.decision.notes) if open_ else [],
    )


def _row(change: Change) -> dict[str, Any]:
    return {
        "number": change.number,
        "title": change.title,
        "source": change.source,
        "target": change.target,
        "state": change.state,
        "authors": list(change.authors),
        "actor": change.actor,
        "at": change.at,
        "updated": change.updated,
        "reverts": change.reverts,
        "merged_at": change.merged_at,
        "merged_by": change.merged_by,
        "merge_snapshot": change.merge_snapshot,
        "approvers": list(change.approvers),
        "keys": sorted(change.delta),
    }


def _checks(now: Standing) -> list[CheckView]:
    return [
        CheckView(
            label=c.required.label,
            name=c.required.name,
            state=c.state.state,
            summary=c.result.summary if c.result else c.trouble,
            figures=dict(c.result.figures) if c.result else {},
            evidence=c.result.evidence if c.result else "",
            origin=c.required.origin,
            reason=c.required.reason,
            problems=list(c.required.subjects.problems),
            moved_heads=list(c.stale_heads),
            run_by=c.result.actor if c.result else "",
            at=c.result.at if c.result else 0,
        )
        for c in now.checks
    ]


def _approvals(now: Standing) -> list[ApprovalView]:
    return [
        ApprovalView(
            actor=a.actor,
            roles=sorted(a.roles),
            alive=now.alive(a) if now.change.state == "open" else a.actor in now.change.approvers,
            author=a.actor in now.change.authors,
            at=a.at,
            comment=a.comment,
            delta=a.delta,
            policy=a.policy,
            evidence=a.evidence,
        )
        for a in now.approvals
    ]


def _comment(comment: Comment) -> CommentView:
    return CommentView(actor=comment.actor, at=comment.at, text=comment.text)

"""Reviewing: looking, commenting, asking for checks, approving."""

from typing import Literal

from pydantic import Field

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.governance import changes as rows
from everloop.catalog.governance.changes import ApprovalRow, Comment
from everloop.catalog.operation import Answer, Command, operation
from everloop.changes.proposing import Numbered, enqueue_checks, of_change, open_change
from everloop.changes.standing import standing
from everloop.changes.views import ChangeList, ChangeView, change_row, change_view
from everloop.checks.request import CheckRequest
from everloop.core.errors import Conflict, PermissionDenied, PolicyRefused
from everloop.core.policy import approval_refusal


class ListChanges(Command):
    """Changes of the project."""

    state: Literal["", "open", "merged", "closed", "reverted"] = ""
    target: str = ""
    limit: int = Field(100, ge=1, le=1000)
    before: int | None = None


class AddComment(Command):
    """Say something about a change."""

    number: int
    text: str = Field(min_length=1, max_length=20_000)


class Approve(Command):
    """Approve a change as it stands.

    `delta` and `evidence` are what the approver saw (`ChangeView` names them); when given, an approval of anything
    else is refused, so that nobody approves what was slipped in while they read.
    """

    number: int
    comment: str = ""
    delta: str = ""
    evidence: str = ""


class RunChecks(Command):
    """Ask for the checks of a change; `again`: also for those that failed or raised."""

    number: int
    again: bool = False


class CheckList(Answer):
    """The checks that still have to run, as tasks or by the caller."""

    number: int
    pending: list[dict[str, object]]
    """`CheckRequest.to_json()` of each."""


@operation("changes.show", needs="read", on=of_change, reads=True)
def show(ctx: Context, cmd: Numbered) -> ChangeView:
    """A change as it stands now."""
    with ctx.read() as tx:
        return change_view(tx, ctx.project, cmd.number)


@operation("changes.list", needs="read", reads=True)
def list_changes(ctx: Context, cmd: ListChanges) -> ChangeList:
    """Changes, newest first."""
    with ctx.read() as tx:
        found = rows.find(tx, ctx.project, state=cmd.state, target=cmd.target, limit=cmd.limit, before=cmd.before)
    return ChangeList(changes=[change_row(change) for change in found])


@operation("changes.comment", needs="change.comment", on=of_change)
def comment(ctx: Context, cmd: AddComment) -> ChangeView:
    """Comment on a change, in whatever state."""
    with ctx.write() as tx:
        rows.get(tx, ctx.project, cmd.number)
        rows.add_comment(tx, ctx.project, Comment(0, cmd.number, ctx.actor.name, ctx.now(), cmd.text))
    with ctx.read() as tx:
        return change_view(tx, ctx.project, cmd.number)


@operation("changes.check", needs="check.run", on=of_change)
def check(ctx: Context, cmd: RunChecks) -> CheckList:
    """Queue the required checks that have no result, and name them."""
    pending = pending_checks(ctx, cmd.number, again=cmd.again)
    enqueue_checks(ctx, cmd.number, again=cmd.again)
    return CheckList(number=cmd.number, pending=[request.to_json() for request in pending])


def pending_checks(ctx: Context, number: int, *, again: bool = False) -> tuple[CheckRequest, ...]:
    """The required checks of an open change that have no result yet: for a caller that runs them itself."""
    with ctx.read() as tx:
        return standing(tx, ctx.project, open_change(tx, ctx.project, number)).pending(again=again)


def due_check(ctx: Context, asked: CheckRequest) -> CheckRequest:
    """The request for the same check as the catalog makes it now, for a worker that was asked to run `asked`.

    What to judge, by whose code and objective, is never taken from who asks. Raises `Conflict` when the open change
    does not need such a check: it was updated since, or the request was made up.
    """
    with ctx.read() as tx:
        now = standing(tx, ctx.project, open_change(tx, ctx.project, asked.change))
    wanted = (asked.delta_id, asked.check_id, asked.objective_id, asked.candidate)
    for request in now.requests():
        if (request.delta_id, request.check_id, request.objective_id, request.candidate) == wanted:
            return request
    raise Conflict(
        f"change #{asked.change} does not need this {asked.name}",
        hint="it was updated meanwhile; `everloop check N` queues what it needs now",
    )


@operation("changes.approve", needs="change.approve", on=of_change)
def approve(ctx: Context, cmd: Approve) -> ChangeView:
    """Approve a change: bound to its delta, the target's policy and the evidence of its checks.

    Raises `PermissionDenied` for authors under `team`, for service accounts, and without a session; `PolicyRefused`
    while a check has not passed, because the approval could not outlive its result; `Conflict` when the change is
    not what the approver saw.
    """
    actor = ctx.actor
    if actor.anonymous:
        raise PermissionDenied("approving needs a name", hint="open the link that `everloop up` prints, or sign in")
    with ctx.read() as tx:
        change = open_change(tx, ctx.project, cmd.number)
        now = standing(tx, ctx.project, change)
    refused = approval_refusal(now.policy.policy, actor.name, now.subject, service=actor.kind == "service")
    if refused:
        raise PermissionDenied(refused, hint="ask another person with the role approver")
    if (cmd.delta and cmd.delta != now.delta_id) or (cmd.evidence and cmd.evidence != now.evidence):
        raise Conflict(f"change #{change.number} is not what you saw any more", hint="look at it again")
    if now.conflicts:
        raise Conflict(f"{', '.join(now.conflicts)} moved in {change.target} meanwhile", hint="update the change first")
    if not now.delta:
        raise Conflict(f"{change.target} has all of change #{change.number} already", hint="close it")
    undone = [f"{c.name} is {c.state}" for c in (checked.state for checked in now.checks) if c.state != "passed"]
    if undone:
        raise PolicyRefused(
            f"checks have not passed: {', '.join(undone)}",
            hint=f"an approval binds to their evidence; run them first: everloop check {change.number}",
            reasons=undone,
        )
    row = ApprovalRow(
        0, change.number, actor.name, actor.roles, actor.kind == "service", now.subject.delta, now.subject.policy,
        now.subject.evidence, ctx.now(), cmd.comment,
    )  # fmt: skip
    with ctx.write() as tx:
        rows.add_approval(tx, ctx.project, row)
        payload = {
            "target": change.target,
            "delta": row.delta,
            "policy": row.policy,
            "evidence": row.evidence,
            "roles": sorted(row.roles),
            "self_approved": actor.name in change.authors,
        }
        facts.append(tx, ctx.project, ctx.fact("change.approved", f"#{change.number}", payload))
    with ctx.read() as tx:
        return change_view(tx, ctx.project, change.number)

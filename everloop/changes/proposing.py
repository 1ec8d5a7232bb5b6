"""Proposing: from a source environment or snapshot to a delta on a target, with its authors.

Updating, closing and reverting are here too: they make or unmake proposals.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field

from everloop.catalog import facts, tasks, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import changes as rows
from everloop.catalog.governance.changes import Change
from everloop.catalog.operation import Command, operation
from everloop.changes.ancestry import Relation, relate, snapshot_of
from everloop.changes.heads.contracts import definitions_in, definitions_of, heads_among
from everloop.changes.policies import check_delta, checked_environment, effective_policy, head_of, is_sandbox
from everloop.changes.standing import Standing, standing
from everloop.changes.views import ChangeView, change_view
from everloop.checks import reproduced
from everloop.checks.request import TASK, CheckRequest
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.grants import Target
from everloop.core.ids import is_id
from everloop.core.snapshot import Delta, Snapshot, apply_delta, delta_id, diff, merge

"""Kind of the task that runs one check; its payload is a `CheckRequest`."""


class Propose(Command):
    """Offer what a source holds to a protected environment."""

    source: str
    """An environment, or the id of a snapshot."""
    target: str
    title: str = Field(min_length=1, max_length=200)
    description: str = ""
    on_conflict: Literal["refuse", "source"] = "refuse"
    """What to do with keys that source and target both changed: refuse, or take the source's (reviewers see it)."""
    enqueue: bool = True
    """Whether tasks are made for the checks that it needs."""


class Numbered(Command):
    """A change by its number."""

    number: int


class Revert(Command):
    """Undo a merged change by a new one."""

    number: int
    title: str = ""
    enqueue: bool = True


def of_change(ctx: Context, cmd: Any) -> Target:
    """What an operation on a change touches: the change, in its target environment."""
    with ctx.read() as tx:
        return Target("change", str(cmd.number), rows.get(tx, ctx.project, cmd.number).target)


def _on_target(_ctx: Context, cmd: Propose) -> Target:
    return Target("change", "new", cmd.target)


@operation("changes.propose", needs="change.propose", on=_on_target)
def propose(ctx: Context, cmd: Propose) -> ChangeView:
    """Open a change: the difference that the source would make to the target, three-way against their common past."""
    if is_sandbox(checked_environment(cmd.target)):
        raise InvalidInput(f"{cmd.target} needs no change", hint="commit to a sandbox directly")
    with ctx.read() as tx:
        change = _proposed(tx, ctx, cmd)
    return open_new(ctx, change, enqueue=cmd.enqueue)


def preview(ctx: Context, cmd: Propose) -> Standing:
    """Where the change would stand if it were opened: its delta, and the checks that the target's policy asks for.

    Nothing is written. Raises what `propose` raises; the change in the answer has the number 0.
    """
    with ctx.read() as tx:
        return standing(tx, ctx.project, _proposed(tx, ctx, cmd))


def _proposed(tx: Tx, ctx: Context, cmd: Propose) -> Change:
    head = cmd.source if is_id(cmd.source) else head_of(tx, ctx.project, cmd.source)
    found = _difference(tx, ctx.project, head, cmd.target, cmd.on_conflict)
    authors = _authors(tx, ctx.project, found) | {ctx.actor.name}
    return proposal_of(
        ctx,
        title=cmd.title,
        description=cmd.description,
        source="" if is_id(cmd.source) else cmd.source,
        target=cmd.target,
        base=found.base,
        head=head,
        delta=found.delta,
        authors=authors,
    )


def proposal_of(
    ctx: Context,
    *,
    title: str,
    description: str,
    target: str,
    base: str,
    head: str,
    delta: Delta,
    authors: Collection[str],
    source: str = "",
    reverts: int = 0,
) -> Change:
    """An open change by the actor, now, that has no number yet."""
    return Change(
        number=0,
        title=title,
        description=description,
        source=source,
        target=target,
        base=base,
        head=head,
        delta=delta,
        delta_id=delta_id(delta),
        state="open",
        authors=tuple(sorted(authors)),
        actor=ctx.actor.name,
        at=ctx.now(),
        updated=ctx.now(),
        reverts=reverts,
    )


@operation("changes.update", needs="change.propose", on=of_change)
def update(ctx: Context, cmd: Numbered) -> ChangeView:
    """Take up what the source holds now; when that differs, approvals die and the checks run again."""
    with ctx.read() as tx:
        old = open_change(tx, ctx.project, cmd.number)
        if not old.source:
            raise InvalidInput(f"change #{old.number} proposes a fixed snapshot", hint="close it and propose another")
        head = head_of(tx, ctx.project, old.source)
        found = _difference(tx, ctx.project, head, old.target, "refuse")
        authors = {*old.authors, *_authors(tx, ctx.project, found), ctx.actor.name}
    new = replace(
        old,
        head=head,
        base=found.base,
        delta=found.delta,
        delta_id=delta_id(found.delta),
        authors=tuple(sorted(authors)),
        updated=ctx.now(),
    )
    with ctx.write() as tx:
        rows.replace(tx, ctx.project, old, new)
        facts.append(tx, ctx.project, ctx.fact("change.updated", f"#{new.number}", {"delta": new.delta_id}))
    enqueue_checks(ctx, new.number)
    with ctx.read() as tx:
        return change_view(tx, ctx.project, new.number)


@operation("changes.close", needs="change.propose", on=of_change)
def close(ctx: Context, cmd: Numbered) -> ChangeView:
    """Give up an open change."""
    with ctx.read() as tx:
        old = open_change(tx, ctx.project, cmd.number)
    with ctx.write() as tx:
        rows.replace(tx, ctx.project, old, replace(old, state="closed", updated=ctx.now()))
        facts.append(tx, ctx.project, ctx.fact("change.closed", f"#{old.number}", {"target": old.target}))
    with ctx.read() as tx:
        return change_view(tx, ctx.project, old.number)


@operation("changes.revert", needs="change.propose", on=of_change)
def revert(ctx: Context, cmd: Revert) -> ChangeView:
    """Open a change that takes back what a merged one did; reviewed and merged like any other.

    Its author is who reverts: what comes back was in the target before. Raises `Conflict` when a key moved since.
    """
    with ctx.read() as tx:
        old = rows.get(tx, ctx.project, cmd.number)
        if old.state not in ("merged", "reverted"):
            raise Conflict(f"change #{old.number} is {old.state}: there is nothing to undo", hint="close it instead")
        base = head_of(tx, ctx.project, old.target)
        entries = {
            **snapshot_of(tx, ctx.project, base).entries,
            **heads_among(tx, ctx.project, old.target, old.delta),
        }
        wanted: Delta = {key: (after, before) for key, (before, after) in old.delta.items()}
        moved = sorted(key for key, (now, _) in wanted.items() if entries.get(key) != now)
        if moved:
            raise Conflict(
                f"{', '.join(moved)} moved since change #{old.number}", hint="revert the later change first", keys=moved
            )
        check_delta(tx, ctx.project, definitions_in(wanted), old.target)
    title = cmd.title or f'Revert "{old.title}" (#{old.number})'
    snapshot = Snapshot(definitions_of(apply_delta(entries, wanted)), (base,), title, (ctx.actor.name,))
    with ctx.write() as tx:
        versions.put(tx, ctx.project, snapshot.version(), actor=ctx.actor.name, at=ctx.now())
    change = proposal_of(
        ctx,
        title=title,
        description=f"Takes back what #{old.number} changed in {old.target}.",
        target=old.target,
        base=base,
        head=snapshot.id,
        delta=wanted,
        authors=(ctx.actor.name,),
        reverts=old.number,
    )
    return open_new(ctx, change, enqueue=cmd.enqueue)


def open_change(tx: Tx, project: str, number: int) -> Change:
    """The change, which must be open; raises `NotFound`, `Conflict`."""
    change = rows.get(tx, project, number)
    if change.state != "open":
        raise Conflict(f"change #{number} is {change.state}", hint="only an open change can be worked on")
    return change


def enqueue_checks(ctx: Context, number: int, *, again: bool = False) -> int:
    """Make a task for every check that `Standing.pending` names; returns how many are wanted."""
    with ctx.read() as tx:
        now = standing(tx, ctx.project, rows.get(tx, ctx.project, number))
    wanted = now.pending(again=again)
    if wanted or now.policy.policy.reproduced:
        with ctx.write() as tx:
            _enqueue(ctx, tx, wanted)
            _reproduce(ctx, tx, now)
    return len(wanted)


def _reproduce(ctx: Context, tx: Tx, now: Standing) -> None:
    """Have workers reproduce the models of which the policy wants that, unless they have."""
    for key in reproduced.missing(tx, ctx.project, now.delta, now.policy.policy.reproduced):
        body = {"version": now.delta[key][1]}
        tasks.enqueue(
            tx, ctx.project, reproduced.TASK, body, actor=ctx.actor.name, now=ctx.wall(), dedupe=str(body["version"])
        )


def _enqueue(ctx: Context, tx: Tx, wanted: Sequence[CheckRequest]) -> None:
    for request in wanted:
        body = request.to_json()
        tasks.enqueue(tx, ctx.project, TASK, body, actor=ctx.actor.name, now=ctx.wall(), dedupe=request.key)


@dataclass(frozen=True, slots=True)
class _Difference:
    """What a source would change in a target, and the snapshots that led there."""

    base: str
    delta: Delta
    relation: Relation


def _difference(tx: Tx, project: str, head: str, target: str, on_conflict: str) -> _Difference:
    effective_policy(tx, project, target)  # a target without one takes no proposals
    onto = head_of(tx, project, target)
    related = relate(tx, project, head, onto)
    if related.base is None:
        raise InvalidInput("source and target share no history", hint="start from a sandbox of this project")
    base, ours, theirs = (snapshot_of(tx, project, i).entries for i in (related.base, onto, head))
    merged = merge(base, ours, theirs)
    entries = dict(merged.entries)
    if merged.conflicts and on_conflict == "refuse":
        raise Conflict(
            f"{', '.join(merged.conflicts)} changed in {target} and in the source since they parted",
            hint=f"start again from {target}, or propose with on_conflict=source to take the source's",
            keys=list(merged.conflicts),
        )
    for key in merged.conflicts:
        if key in theirs:
            entries[key] = theirs[key]
        else:
            entries.pop(key, None)
    delta = diff(ours, entries)
    if not delta:
        raise Conflict(
            f"{target} has everything that the source holds",
            hint="if it was reverted there, revert the revert: changes.revert",
        )
    check_delta(tx, project, delta, target)
    return _Difference(related.base, delta, related)


def _authors(tx: Tx, project: str, found: _Difference) -> set[str]:
    """Who made it: the authors of the snapshots since the base, and who trained the models that come with it.

    The merger of an earlier change is no author of what was merged, though they wrote the snapshot.
    """
    authors: set[str] = set()
    for row in found.relation.ahead:
        authors.update(row.manifest["authors"])
        if rows.by_merge(tx, project, row.id) is None:
            authors.add(row.actor)
    models = [new for key, (_, new) in found.delta.items() if key.startswith("model/") and new is not None]
    authors.update(versions.get(tx, project, identity).actor for identity in models)
    return authors


def open_new(ctx: Context, change: Change, *, enqueue: bool) -> ChangeView:
    """Give a proposal its number and record it, with the tasks for the checks that it needs."""
    with ctx.write() as tx:
        change = replace(change, number=rows.take_number(tx, ctx.project))
        rows.create(tx, ctx.project, change)
        payload = {"title": change.title, "target": change.target, "delta": change.delta_id, "reverts": change.reverts}
        facts.append(tx, ctx.project, ctx.fact("change.proposed", f"#{change.number}", payload))
        if enqueue:  # in the same transaction: a change that came through a crash has its checks
            now = standing(tx, ctx.project, change)
            _enqueue(ctx, tx, now.pending(again=False))
            _reproduce(ctx, tx, now)
    with ctx.read() as tx:
        return change_view(tx, ctx.project, change.number)

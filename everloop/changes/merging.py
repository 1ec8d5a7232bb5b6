"""Merging: one transaction that moves the target, after everything was validated against what it holds now.

A lost race (somebody else merged first) is retried with a full re-validation: when no key of the delta moved, its
id is unchanged and the approvals still count; otherwise the merge is refused.
"""

import json
from dataclasses import replace
from typing import Any

from everloop.catalog import facts, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import changes as rows
from everloop.catalog.governance.changes import Change
from everloop.catalog.operation import operation
from everloop.changes import environments
from everloop.changes.heads.contracts import definitions_of, move_heads
from everloop.changes.proposing import Numbered, of_change, open_change
from everloop.changes.standing import Standing, standing
from everloop.changes.views import ChangeView, change_view
from everloop.core.errors import Conflict, PolicyRefused
from everloop.core.snapshot import Snapshot

APPROVAL_TYPE = "urn:everloop:approval/v1"
"""Predicate type of the signed outcome of a review."""
_ATTEMPTS = 20


@operation("changes.merge", needs="change.merge", on=of_change)
def merge(ctx: Context, cmd: Numbered) -> ChangeView:
    """Merge an open change whose checks and approvals hold.

    Raises `PolicyRefused` with every reason when they do not, and `Conflict` when the change is not open any more.
    """
    for _ in range(_ATTEMPTS):
        with ctx.read() as tx:
            change = open_change(tx, ctx.project, cmd.number)
            now = standing(tx, ctx.project, change)
        _refuse_unless_allowed(now)
        try:
            _commit(ctx, now)
        except Conflict:
            continue
        with ctx.read() as tx:
            return change_view(tx, ctx.project, cmd.number)
    raise Conflict(f"{change.target} kept moving while change #{cmd.number} was merged", hint="try again")


def _refuse_unless_allowed(now: Standing) -> None:
    if not now.decision.allowed:
        number = now.change.number
        raise PolicyRefused(
            f"change #{number} cannot be merged into {now.change.target}: {'; '.join(now.decision.reasons)}",
            hint=f"everloop changes show {number} says what is missing",
            reasons=list(now.decision.reasons),
        )


def _commit(ctx: Context, now: Standing) -> None:
    """Write the merge: snapshot, row, pointer, facts. Raises `Conflict` when anything moved since `now` was read."""
    change = now.change
    snapshot = Snapshot(
        definitions_of(now.entries),
        (now.target_snapshot, change.head),
        f"#{change.number} {change.title}",
        change.authors,
    )
    merged = replace(
        change,
        state="merged",
        delta=now.delta,
        delta_id=now.delta_id,
        updated=ctx.now(),
        merged_at=ctx.now(),
        merged_by=ctx.actor.name,
        merge_snapshot=snapshot.id,
        approvers=now.decision.counted,
        statement=_signed(ctx, now, snapshot.id),
    )
    with ctx.write() as tx:
        versions.put(tx, ctx.project, snapshot.version(), actor=ctx.actor.name, at=ctx.now())
        rows.replace(tx, ctx.project, change, merged)
        if change.reverts:
            _mark_reverted(ctx, tx, change.reverts)
        environments.move(
            tx,
            ctx,
            change.target,
            old=now.target_snapshot,
            new=snapshot.id,
            reason=snapshot.message,
            change=str(change.number),
        )
        move_heads(tx, ctx, change.target, now.delta, change.number)
        payload = {
            "target": change.target,
            "delta": now.delta_id,
            "snapshot": snapshot.id,
            "policy": now.policy.id,
            "mode": now.policy.policy.mode,
            "evidence": now.evidence,
            "approvers": list(now.decision.counted),
            "notes": list(now.decision.notes),
            "statement": merged.statement,
        }
        facts.append(tx, ctx.project, ctx.fact("change.merged", f"#{change.number}", payload))


def _mark_reverted(ctx: Context, tx: Any, number: int) -> None:
    old = rows.get(tx, ctx.project, number)
    if old.state == "merged":
        rows.replace(tx, ctx.project, old, replace(old, state="reverted", updated=ctx.now()))


def outcome(change: Change, now: Standing, snapshot: str) -> dict[str, Any]:
    """The predicate of the signed statement: what was approved, under which policy, on which evidence, by whom."""
    counted = set(now.decision.counted)
    return {
        "environment": change.target,
        "change": change.number,
        "delta": now.delta_id,
        "snapshot": snapshot,
        "previous": now.target_snapshot,
        "policy": {"id": now.policy.id, "mode": now.policy.policy.mode},
        "evidence": now.evidence,
        "checks": [
            {"name": c.required.label, "check": c.required.check_id, "evidence": c.result.evidence}
            for c in now.checks
            if c.result is not None
        ],
        "authors": sorted(change.authors),
        "approvals": [
            {"actor": a.actor, "roles": sorted(a.roles), "at": a.at}
            for a in now.approvals
            if a.actor in counted and now.alive(a)
        ],
        "notes": list(now.decision.notes),
    }


def _signed(ctx: Context, now: Standing, snapshot: str) -> str:
    """Sign the outcome and store it; the id of the object, or "" in a workspace without a key."""
    if ctx.key is None:
        return ""
    subjects = {"snapshot": snapshot, "delta": now.delta_id}
    envelope = ctx.key.sign(APPROVAL_TYPE, subjects, outcome(now.change, now, snapshot))
    return ctx.store.put(json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode())

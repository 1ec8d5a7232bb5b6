"""How an environment came to hold what it holds; going back; and what was live at a given time."""

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import changes as rows
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.refs import Move, env_ref
from everloop.changes.ancestry import snapshot_of
from everloop.changes.environments import EnvironmentView, live_snapshot, move, view
from everloop.changes.policies import checked_environment, head_of, is_sandbox, policy_key
from everloop.core.clock import iso, parse_time
from everloop.core.errors import Conflict, InvalidInput, NotFound, PolicyRefused
from everloop.core.grants import Target
from everloop.core.ids import short
from everloop.core.snapshot import Snapshot

_LOG_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Provenance:
    """Why an environment may hold its snapshot."""

    environment: str
    snapshot: str
    via: Literal["merge", "rollback", "genesis", "sandbox"]
    """`rollback`: the pointer went back to a snapshot that a merge had put there before."""
    change: int = 0
    delta: str = ""
    approvers: tuple[str, ...] = ()
    merged_by: str = ""
    at: int = 0
    statement: str = ""
    """Object with the DSSE envelope of the outcome; empty in a workspace without a key."""
    merged: str = ""
    """The snapshot that the merge made; not `snapshot` where a roll-back went there under a newer policy."""
    envelope: dict[str, Any] | None = None
    """The envelope itself, for those who will verify it without the catalog."""


class Rollback(Command):
    """Go back; `to` is `previous`, the id (or 12 digits) of a snapshot that was live here, or an ISO 8601 time."""

    environment: str
    to: str = "previous"
    reason: str = ""


class LiveAt(Command):
    """What an environment held at a time (ISO 8601; without a zone it means UTC)."""

    environment: str
    time: str


class LiveView(Answer):
    """What was live, since when, and who let it in."""

    environment: str
    time: str
    snapshot: str
    entries: dict[str, str]
    labels: dict[str, str]
    since: str
    moved_by: str
    reason: str
    change: int
    approvers: list[str]


def _on(_ctx: Context, cmd: Any) -> Target:
    return Target("environment", cmd.environment, cmd.environment)


@operation("environments.rollback", needs="environment.rollback", on=_on)
def rollback(ctx: Context, cmd: Rollback) -> EnvironmentView:
    """Move the pointer back to a snapshot that was live here, by one compare-and-swap.

    Only to such a snapshot: anything else would pass by review. The policy in force stays: where the earlier
    snapshot holds another one, the pointer goes to a new snapshot with its entries and today's policy.
    Raises `NotFound` when there is nothing to go back to, `Conflict` when the pointer moved meanwhile.
    """
    environment = checked_environment(cmd.environment)
    with ctx.read() as tx:
        head = head_of(tx, ctx.project, environment)
        wanted = _wanted(tx, ctx.project, environment, head, cmd.to)
        restored = _with_policy(tx, ctx, environment, head=head, wanted=wanted)
    if restored.id == head:
        raise Conflict(f"{environment} holds that already", hint="`everloop env log` shows what was live before")
    words = f"rollback to {short(wanted)}" + (f": {cmd.reason}" if cmd.reason else "")
    with ctx.write() as tx:
        if restored.id != wanted:
            versions.put(tx, ctx.project, restored.version(), actor=ctx.actor.name, at=ctx.now())
        move(tx, ctx, environment, old=head, new=restored.id, reason=words)
        payload = {"from": head, "to": wanted, "snapshot": restored.id, "reason": cmd.reason}
        facts.append(tx, ctx.project, ctx.fact("environment.rolled_back", environment, payload))
    with ctx.read() as tx:
        return view(tx, ctx.project, environment)


@operation("environments.live_at", needs="read", on=_on, reads=True)
def live_at(ctx: Context, cmd: LiveAt) -> LiveView:
    """What was live in an environment at a time, by event time, from the pointer's log."""
    try:
        time = parse_time(cmd.time)
    except ValueError as error:
        raise InvalidInput(f"{cmd.time!r} is not a time", hint="ISO 8601, as 2013-07-04T18:00Z") from error
    with ctx.read() as tx:
        snapshot = live_snapshot(tx, ctx.project, cmd.environment, time)
        entries = dict(snapshot_of(tx, ctx.project, snapshot).entries)
        moves = refs.log(tx, ctx.project, env_ref(cmd.environment), _LOG_LIMIT)
        last = max((m for m in moves if m.at <= time and m.new == snapshot), key=lambda m: (m.at, m.id))
        labels = versions.labels(tx, ctx.project, set(entries.values()))
        known = None if is_sandbox(cmd.environment) else _provenance(tx, ctx.project, cmd.environment, snapshot)
    return LiveView(
        environment=cmd.environment,
        time=iso(time),
        snapshot=snapshot,
        entries=entries,
        labels=labels,
        since=iso(last.at),
        moved_by=last.actor,
        reason=last.reason,
        change=known.change if known else 0,
        approvers=list(known.approvers) if known else [],
    )


def provenance_of(ctx: Context, environment: str, snapshot: str = "") -> Provenance:
    """How the environment came to its snapshot (or to `snapshot`, which must have been live there).

    Raises `PolicyRefused` when a protected environment holds what no merge put there: nothing may serve from that.
    """
    with ctx.read() as tx:
        identity = snapshot or head_of(tx, ctx.project, environment)
        found = _provenance(tx, ctx.project, environment, identity)
    if found.statement:
        found = replace(found, envelope=json.loads(ctx.store.get(found.statement)))
    return found


def _provenance(tx: Tx, project: str, environment: str, snapshot: str) -> Provenance:
    if is_sandbox(environment):
        return Provenance(environment, snapshot, "sandbox")
    change = rows.by_merge(tx, project, snapshot)
    if change is not None and change.target == environment:
        back = refs.get(tx, project, env_ref(environment)) == snapshot and _went_back(tx, project, environment)
        return Provenance(
            environment,
            snapshot,
            "rollback" if back else "merge",
            change.number,
            change.delta_id,
            change.approvers,
            change.merged_by,
            change.merged_at or 0,
            change.statement,
            snapshot,
        )
    held = snapshot_of(tx, project, snapshot)
    first = _first_move(tx, project, environment)
    if first is not None and first.new == snapshot:
        return Provenance(environment, snapshot, "genesis", merged_by=first.actor, at=first.at)
    if len(held.parents) == 1:  # a roll-back that kept the policy: its parent was live here, and only that differs
        before = snapshot_of(tx, project, held.parents[0])
        key = policy_key(environment)
        if {**before.entries, key: held.entries.get(key)} == dict(held.entries):
            found = _provenance(tx, project, environment, held.parents[0])
            return replace(found, snapshot=snapshot, via="rollback")
    raise PolicyRefused(
        f"{environment} holds {short(snapshot)}, which no merge put there",
        hint=f"somebody moved the pointer by hand; roll {environment} back: everloop rollback {environment}",
    )


def _first_move(tx: Tx, project: str, environment: str) -> Move | None:
    moves = refs.log(tx, project, env_ref(environment), _LOG_LIMIT)
    return moves[-1] if moves else None


def _went_back(tx: Tx, project: str, environment: str) -> bool:
    moves = refs.log(tx, project, env_ref(environment), 1)
    return bool(moves) and not moves[0].change


def _wanted(tx: Tx, project: str, environment: str, head: str, to: str) -> str:
    """The snapshot to go back to: it must stand in the environment's log."""
    moves = refs.log(tx, project, env_ref(environment), _LOG_LIMIT)
    if to == "previous":
        return _previous(tx, project, environment, head, moves)
    held = [m.new for m in moves if m.new]
    digits = to.removeprefix("b3:")
    matches = {i for i in held if len(digits) >= 6 and i.removeprefix("b3:").startswith(digits)}
    if len(matches) == 1:
        return matches.pop()
    try:
        return live_snapshot(tx, project, environment, parse_time(to))
    except ValueError:
        raise NotFound(
            f"{to!r} was never live in {environment}", hint="previous, a snapshot of its log, or an ISO 8601 time"
        ) from None


def _previous(tx: Tx, project: str, environment: str, head: str, moves: list[Move]) -> str:
    """What was live before the head was first put there, so that going back twice goes back two steps.

    A head that a roll-back made (to keep the policy) stands for the snapshot that it restored, its parent.
    """
    if is_sandbox(environment):  # its moves are commits: what the head was made from, as far as it was here
        parents = snapshot_of(tx, project, head).parents
        if not parents or not any(m.new == parents[0] for m in moves):
            raise NotFound(f"{environment} held nothing before", hint="this is the snapshot that it started from")
        return parents[0]
    installed = [m for m in moves if m.new == head and m.change]
    if not installed and any(m.new == head for m in moves):
        parents = snapshot_of(tx, project, head).parents
        if parents and any(m.new == parents[0] for m in moves):
            return _previous(tx, project, environment, parents[0], moves)
    old = installed[-1].old if installed else None
    if old is None:
        raise NotFound(f"{environment} held nothing before", hint="there is no earlier snapshot to go back to")
    return old


def _with_policy(tx: Tx, ctx: Context, environment: str, *, head: str, wanted: str) -> Snapshot:
    """The wanted snapshot, or one with its entries and the policy in force, where that differs."""
    snapshot = snapshot_of(tx, ctx.project, wanted)
    if is_sandbox(environment):
        return snapshot
    key = policy_key(environment)
    in_force = snapshot_of(tx, ctx.project, head).entries.get(key)
    if in_force is None or snapshot.entries.get(key) == in_force:
        return snapshot
    message = f"Back to {short(wanted)} under the policy in force"
    return Snapshot({**snapshot.entries, key: in_force}, (wanted,), message, (ctx.actor.name,))

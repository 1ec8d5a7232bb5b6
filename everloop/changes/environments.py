"""Environments: named pointers to snapshots. Sandboxes move freely; protected ones only by merge and roll-back."""

from typing import Any

from pydantic import Field

from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import changes as rows
from everloop.catalog.governance.changes import EnvironmentRow
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.refs import Move, env_ref, head_ref
from everloop.catalog.tracking import registered
from everloop.changes.ancestry import snapshot_of
from everloop.changes.policies import PROTECTED, check_delta, checked_environment, head_of, is_sandbox, policy_in
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.core.policy import Mode, genesis
from everloop.core.snapshot import Snapshot, diff
from everloop.core.version import Version
from everloop.models.webhooks import events

GENESIS = "genesis"
"""Reason of the first move of a protected environment."""
_ATTEMPTS = 8
AUTO = "sandbox/auto"


class Named(Command):
    """An environment."""

    environment: str


class ListEnvironments(Command):
    """All environments of the project."""

    sandboxes: bool = True


class CreateSandbox(Command):
    """A new sandbox; the name `sandbox/auto` takes the next free `sandbox/auto/<n>`."""

    environment: str
    base: str = "production"


class Commit(Command):
    """A new snapshot on a sandbox: keys to set, or to remove (None)."""

    environment: str
    entries: dict[str, str | None]
    message: str = ""
    expected: str = ""
    """The snapshot that the sandbox must hold; empty: whichever it holds, the entries go on top."""


class LogQuery(Command):
    """The moves of an environment."""

    environment: str
    limit: int = Field(50, ge=1, le=1000)
    before: int | None = None


class EnvironmentView(Answer):
    """An environment as it is now."""

    name: str
    protected: bool
    snapshot: str
    number: int
    message: str
    authors: list[str]
    base: str
    base_snapshot: str
    mode: str
    """`solo` or `team`; empty for a sandbox."""
    policy: str
    entries: dict[str, str]
    labels: dict[str, str]
    """How people call each entry's version: `model/delay v7`, by id."""
    heads: dict[str, str]
    moved_at: int
    moved_by: str
    change: str


class EnvironmentList(Answer):
    """Environments: protected ones first, then sandboxes by name."""

    environments: list[EnvironmentView]


class MoveView(Answer):
    """One move of a pointer."""

    id: int
    old: str | None
    new: str | None
    actor: str
    at: int
    reason: str
    change: str


class MoveList(Answer):
    """Moves, newest first."""

    moves: list[MoveView]


def _on(_ctx: Context, cmd: Any) -> Target:
    return Target("environment", cmd.environment, cmd.environment)


def create_workspace_environments(ctx: Context, mode: Mode) -> str:
    """Write the genesis snapshot (the policies of staging and production) and point both to it; idempotent.

    Returns the id of production's snapshot.
    """
    policies = {name: Version("policy", name, genesis(mode).manifest()) for name in PROTECTED}
    first = Snapshot(
        {version.key: version.id for version in policies.values()},
        message=f"Genesis: {mode} policy for {' and '.join(PROTECTED)}",
        authors=(ctx.actor.name,),
    )
    with ctx.write() as tx:
        for name in PROTECTED:
            if refs.get(tx, ctx.project, env_ref(name)) is not None:
                continue
            versions.put_many(
                tx, ctx.project, [*policies.values(), first.version()], actor=ctx.actor.name, at=ctx.now()
            )
            _create(tx, ctx, name, base="", snapshot=first.id, reason=GENESIS)
        found = refs.get(tx, ctx.project, env_ref("production"))
    assert found is not None
    return found


@operation("environments.create_sandbox", needs="sandbox.write", on=_on)
def create_sandbox(ctx: Context, cmd: CreateSandbox) -> EnvironmentView:
    """Start a sandbox from the snapshot that its base holds now."""
    with ctx.read() as tx:
        start = head_of(tx, ctx.project, cmd.base)
    if cmd.environment.rstrip("/") != AUTO and not is_sandbox(checked_environment(cmd.environment)):
        raise InvalidInput(f"{cmd.environment} is no sandbox", hint="sandbox/<person>/<topic>")
    for _ in range(_ATTEMPTS):
        name = _next_auto(ctx) if cmd.environment.rstrip("/") == AUTO else cmd.environment
        try:
            with ctx.write() as tx:
                _create(tx, ctx, name, base=cmd.base, snapshot=start, reason=f"from {cmd.base}")
        except Conflict:
            if name == cmd.environment:
                raise Conflict(f"{name} exists already", hint="choose another topic, or go on in it") from None
            continue
        with ctx.read() as tx:
            return view(tx, ctx.project, name)
    raise Conflict("other sandboxes took every number", hint="try again")


@operation("environments.commit", needs="sandbox.write", on=_on)
def commit(ctx: Context, cmd: Commit) -> EnvironmentView:
    """Put definitions on a sandbox: a new snapshot on top of the one it holds."""
    if not is_sandbox(checked_environment(cmd.environment)):
        raise InvalidInput(
            f"{cmd.environment} is protected: it moves by changes only", hint="commit to a sandbox, then propose"
        )
    for _ in range(_ATTEMPTS):
        with ctx.read() as tx:
            head = head_of(tx, ctx.project, cmd.environment)
            if cmd.expected and head != cmd.expected:
                raise Conflict(f"{cmd.environment} moved meanwhile", hint="look at what it holds now", current=head)
            before = snapshot_of(tx, ctx.project, head).entries
            wanted = {**before, **{k: v for k, v in cmd.entries.items() if v is not None}}
            wanted = {k: v for k, v in wanted.items() if cmd.entries.get(k, v) is not None}
            delta = diff(before, wanted)
            check_delta(tx, ctx.project, delta)
            if not delta:
                return view(tx, ctx.project, cmd.environment)
        after = Snapshot(wanted, (head,), cmd.message or ", ".join(sorted(delta)[:5]), (ctx.actor.name,))
        try:
            with ctx.write() as tx:
                versions.put(tx, ctx.project, after.version(), actor=ctx.actor.name, at=ctx.now())
                move(tx, ctx, cmd.environment, old=head, new=after.id, reason=after.message)
        except Conflict:
            continue
        with ctx.read() as tx:
            return view(tx, ctx.project, cmd.environment)
    raise Conflict(f"{cmd.environment} kept moving", hint="somebody else works in this sandbox; use one of your own")


@operation("environments.reset", needs="sandbox.write", on=_on)
def reset(ctx: Context, cmd: CreateSandbox) -> EnvironmentView:
    """Point a sandbox at what its base holds now, as if it were new; what it held stays in its log."""
    if not is_sandbox(checked_environment(cmd.environment)):
        raise InvalidInput(f"{cmd.environment} is protected: it moves by changes only", hint="reset a sandbox")
    with ctx.read() as tx:
        old, new = (head_of(tx, ctx.project, name) for name in (cmd.environment, cmd.base))
    if old != new:
        with ctx.write() as tx:
            move(tx, ctx, cmd.environment, old=old, new=new, reason=f"reset to {cmd.base}")
    with ctx.read() as tx:
        return view(tx, ctx.project, cmd.environment)


@operation("environments.list", needs="read", reads=True)
def list_environments(ctx: Context, cmd: ListEnvironments) -> EnvironmentList:
    """All environments and what they hold."""
    with ctx.read() as tx:
        names = [name.removeprefix("env/") for name in refs.all(tx, ctx.project, "env/")]
        order = [n for n in PROTECTED if n in names] + [n for n in names if is_sandbox(n) and cmd.sandboxes]
        return EnvironmentList(environments=[view(tx, ctx.project, name) for name in order])


@operation("environments.show", needs="read", on=_on, reads=True)
def show(ctx: Context, cmd: Named) -> EnvironmentView:
    """One environment and what it holds."""
    with ctx.read() as tx:
        return view(tx, ctx.project, cmd.environment)


@operation("environments.log", needs="read", on=_on, reads=True)
def log(ctx: Context, cmd: LogQuery) -> MoveList:
    """How an environment's pointer moved: by whom, when, through which change."""
    with ctx.read() as tx:
        head_of(tx, ctx.project, cmd.environment)
        moves = refs.log(tx, ctx.project, env_ref(cmd.environment), cmd.limit, cmd.before)
    return MoveList(moves=[move_view(m) for m in moves])


def move(tx: Tx, ctx: Context, environment: str, *, old: str | None, new: str, reason: str, change: str = "") -> None:
    """Move an environment's pointer and write the fact that the rollout controller follows. Raises `Conflict`."""
    refs.move(
        tx, ctx.project, env_ref(environment), old=old, new=new, actor=ctx.actor.name, at=ctx.now(), reason=reason,
        change=change,
    )  # fmt: skip
    payload = {"old": old, "new": new, "reason": reason, "change": change}
    facts.append(tx, ctx.project, ctx.fact("environment.moved", environment, payload))
    if not is_sandbox(environment):
        _tell_aliases(tx, ctx, environment, old, new)


def _tell_aliases(tx: Tx, ctx: Context, environment: str, old: str | None, new: str) -> None:
    """Tell webhooks which model versions the environment's name, as an alias, points to from now on."""
    manifests = versions.manifests(tx, ctx.project, [one for one in (old, new) if one])
    before, after = (manifests.get(one or "", {}).get("entries", {}) for one in (old, new))
    for key in sorted({*before, *after}):
        kind, _, asset = key.partition("/")
        if kind != "model" or before.get(key) == after.get(key):
            continue
        name, prompt = registered.told_as(tx, ctx.project, asset)
        if key in after:
            number = str(dict(versions.known_as(tx, ctx.project, after[key]))[key])
            events.record(ctx, tx, "alias", "created", name, prompt=prompt, alias=environment, version=number)
        else:
            events.record(ctx, tx, "alias", "deleted", name, prompt=prompt, alias=environment)


def heads_of(tx: Tx, project: str, environment: str, source: str = "") -> dict[str, str]:
    """The data heads of an environment by dataset; where it has none, those of `source`."""
    found: dict[str, str] = {}
    for place in (source, environment):
        if place:
            prefix = head_ref(place, "")
            found.update({name.removeprefix(prefix): at for name, at in refs.all(tx, project, prefix).items()})
    return found


def view(tx: Tx, project: str, name: str) -> EnvironmentView:
    """An environment as it is now; raises `NotFound`."""
    head = versions.get(tx, project, head_of(tx, project, name))
    snapshot = Snapshot.from_manifest(head.manifest)
    row = rows.environment(tx, project, name) or EnvironmentRow(name, "", "", "", 0)
    in_force = None if is_sandbox(name) else policy_in(tx, project, name, snapshot.entries)
    last = refs.log(tx, project, env_ref(name), 1)
    return EnvironmentView(
        name=name,
        protected=not is_sandbox(name),
        snapshot=head.id,
        number=head.number,
        message=snapshot.message,
        authors=list(snapshot.authors),
        base=row.base,
        base_snapshot=row.base_snapshot,
        mode=in_force.policy.mode if in_force else "",
        policy=in_force.id if in_force else "",
        entries=dict(snapshot.entries),
        labels=versions.labels(tx, project, set(snapshot.entries.values())),
        heads=heads_of(tx, project, name),
        moved_at=last[0].at if last else row.at,
        moved_by=last[0].actor if last else row.actor,
        change=last[0].change if last else "",
    )


def move_view(entry: Move) -> MoveView:
    """A log entry as operations answer it."""
    return MoveView(
        id=entry.id,
        old=entry.old,
        new=entry.new,
        actor=entry.actor,
        at=entry.at,
        reason=entry.reason,
        change=entry.change,
    )


def live_snapshot(tx: Tx, project: str, environment: str, time: Micros) -> str:
    """What the environment pointed to at that event time; raises `NotFound` when it did not exist then."""
    found = refs.at(tx, project, env_ref(environment), time)
    if found is None:
        raise NotFound(f"{environment} did not exist at that time", hint="its log says when it was created")
    return found


def _create(tx: Tx, ctx: Context, name: str, *, base: str, snapshot: str, reason: str) -> None:
    move(tx, ctx, name, old=None, new=snapshot, reason=reason)
    rows.add_environment(tx, ctx.project, EnvironmentRow(name, base, snapshot, ctx.actor.name, ctx.now()))


def _next_auto(ctx: Context) -> str:
    with ctx.read() as tx:
        taken = refs.all(tx, ctx.project, env_ref(AUTO) + "/")
    numbers = [int(n) for name in taken if (n := name.rpartition("/")[2]).isdigit()]
    return f"{AUTO}/{max(numbers, default=0) + 1}"

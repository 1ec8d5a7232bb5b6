"""Operations about the workspace itself: tasks, facts, lineage, verification, the replay's clock."""

from typing import Any

from pydantic import Field

from everloop.catalog import chain, facts, tasks, versions
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.verify import verify
from everloop.core.clock import parse_time
from everloop.core.errors import InvalidInput
from everloop.core.grants import Target
from everloop.workspace.home import HomeClock


class Nothing(Command):
    """No arguments."""


class TaskQuery(Command):
    """One task."""

    task: str


class TaskView(Answer):
    """A task as it stands."""

    id: str
    kind: str
    state: str
    actor: str
    created: int
    finished: int | None
    attempt: int
    result: Any = None
    error: str | None = None


class TaskList(Answer):
    """Tasks, newest first."""

    tasks: list[TaskView]


class Enqueue(Command):
    """Something for a worker to do."""

    kind: str
    payload: dict[str, Any] = Field(default_factory=dict)
    dedupe: str = ""


class FactQuery(Command):
    """Sealed facts, newest first; empty texts match everything, a kind may end in `.*`."""

    kind: str = ""
    subject: str = ""
    limit: int = Field(100, ge=1, le=1000)
    before: int | None = None


class FactView(Answer):
    """One fact of the chain."""

    position: int | None
    kind: str
    subject: str
    actor: str
    at: int
    payload: dict[str, Any]


class FactList(Answer):
    """Facts, newest first."""

    facts: list[FactView]


class LineageQuery(Command):
    """A version by id, prefix, `kind/name` or `kind/name@7`."""

    version: str
    depth: int = Field(16, ge=1, le=64)


class NodeView(Answer):
    """A version in a lineage."""

    id: str
    label: str
    kind: str
    at: int


class EdgeView(Answer):
    """`to` was made from `source`, which played `role`."""

    source: str
    to: str
    role: str


class Lineage(Answer):
    """What led to a version and what came of it."""

    subject: str
    nodes: list[NodeView]
    edges: list[EdgeView]


class FindingView(Answer):
    """Something that does not hold."""

    project: str
    area: str
    subject: str
    reason: str


class Verified(Answer):
    """What a walk over everything found; nothing is good."""

    findings: list[FindingView]
    head: str
    """The chain's newest record, signed: keep it elsewhere, and a cut tail shows."""


class SetTime(Command):
    """The event time of a replay, ISO 8601."""

    at: str


class Time(Answer):
    """The event time now."""

    at: int


def _everything(_ctx: Context, _cmd: Any) -> Target:
    return Target("project", "*")


@operation("tasks.list", needs="read", reads=True)
def list_tasks(ctx: Context, cmd: Nothing) -> TaskList:  # noqa: ARG001 - every operation has a command
    """The newest tasks of the project."""
    with ctx.read() as tx:
        return TaskList(tasks=[_task(task) for task in tasks.list(tx, ctx.project, limit=100)])


@operation("tasks.show", needs="read", reads=True)
def show_task(ctx: Context, cmd: TaskQuery) -> TaskView:
    """One task, with its result or error."""
    with ctx.read() as tx:
        return _task(tasks.get(tx, ctx.project, cmd.task))


@operation("tasks.enqueue", needs="task.write", on=_everything)
def enqueue_task(ctx: Context, cmd: Enqueue) -> TaskView:
    """Have a worker do something: `data.refresh`, `watch.tick`, `flow.retrain`, `checks.run`."""
    with ctx.write() as tx:
        identity = tasks.enqueue(
            tx, ctx.project, cmd.kind, cmd.payload, actor=ctx.actor.name, now=ctx.wall(), dedupe=cmd.dedupe
        )
    with ctx.read() as tx:
        return _task(tasks.get(tx, ctx.project, identity))


@operation("tasks.cancel", needs="task.write", on=_everything)
def cancel_task(ctx: Context, cmd: TaskQuery) -> TaskView:
    """Stop a task; whoever works on it finds out at its next heartbeat."""
    with ctx.write() as tx:
        return _task(tasks.cancel(tx, ctx.project, cmd.task, now=ctx.wall()))


@operation("audit.facts", needs="audit.read", on=lambda _ctx, _cmd: Target("audit", "*"), reads=True)
def list_facts(ctx: Context, cmd: FactQuery) -> FactList:
    """The log of facts: every act and every change of state, in the order of the chain."""
    with ctx.read() as tx:
        kinds = (cmd.kind,) if cmd.kind else ()
        subject = cmd.subject or None
        found = facts.tail(tx, ctx.project, kinds=kinds, subject=subject, limit=cmd.limit, before=cmd.before)
    return FactList(facts=[_fact(fact) for fact in found])


@operation("lineage.show", needs="read", reads=True)
def show_lineage(ctx: Context, cmd: LineageQuery) -> Lineage:
    """What led to a version, and what was made from it."""
    with ctx.read() as tx:
        subject = versions.find(tx, ctx.project, cmd.version)
        edges = versions.upstream(tx, ctx.project, subject.id, cmd.depth)
        edges += versions.downstream(tx, ctx.project, subject.id, cmd.depth)
        ids = dict.fromkeys([subject.id, *(i for edge in edges for i in (edge.from_id, edge.to_id))])
        rows = [versions.get(tx, ctx.project, identity) for identity in ids]
    return Lineage(
        subject=subject.id,
        nodes=[NodeView(id=r.id, label=f"{r.kind}/{r.name} v{r.number}", kind=r.kind, at=r.at) for r in rows],
        edges=[EdgeView(source=e.from_id, to=e.to_id, role=e.role) for e in dict.fromkeys(edges)],
    )


@operation("system.verify", needs="audit.read", on=_everything, reads=True)
def verify_all(ctx: Context, cmd: Nothing) -> Verified:  # noqa: ARG001 - every operation has a command
    """Walk objects, manifests, lineage, pointers and the chain of facts; the first broken link comes first."""
    found = verify(ctx.catalog, ctx.store, key=ctx.key.public if ctx.key is not None else None)
    head = ""
    if ctx.key is not None:
        with ctx.read() as tx:
            envelope = chain.signed_head(tx, ctx.project, ctx.key, at=ctx.wall())
        head = str(envelope["payload"]) if envelope else ""
    views = [FindingView(project=f.project, area=f.area, subject=f.subject, reason=f.reason) for f in found]
    return Verified(findings=views, head=head)


@operation("clock.set", needs="system.write", on=_everything)
def set_time(ctx: Context, cmd: SetTime) -> Time:
    """Move the event time of a replay workspace forward; any other workspace refuses."""
    clock = ctx.ports.get("clock")
    if not isinstance(clock, HomeClock):
        raise InvalidInput("this workspace takes its time from the machine", hint="start it with --replay")
    try:
        clock.advance(parse_time(cmd.at))
    except ValueError as error:
        raise InvalidInput(f"{cmd.at!r} is not a time", hint="ISO 8601, for example 2013-05-01T00:00:00Z") from error
    return Time(at=clock.now())


def _task(task: tasks.Task) -> TaskView:
    return TaskView(
        id=task.id,
        kind=task.kind,
        state=task.state,
        actor=task.actor,
        created=task.created,
        finished=task.finished,
        attempt=task.attempt,
        result=task.result,
        error=task.error,
    )


def _fact(fact: facts.SealedFact) -> FactView:
    return FactView(
        position=fact.position,
        kind=fact.kind,
        subject=fact.subject,
        actor=fact.actor,
        at=fact.at,
        payload=dict(fact.payload),
    )

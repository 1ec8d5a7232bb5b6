"""The operations `flows.list`, `flows.show`, `flows.cancel` and `flows.decide`. Running is where the code is."""

from typing import Any, Literal

from pydantic import Field

from everloop.catalog import facts, tasks, versions
from everloop.catalog.context import Context
from everloop.catalog.making import flows, uses
from everloop.catalog.making.flows import Flow, FlowStep
from everloop.catalog.making.uses import UseRow
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from everloop.core.grants import Target
from everloop.flows.compute.operations import CostRow, summed
from everloop.flows.running.approving import go_on
from everloop.flows.why.caching import reason

RESUMED = ("lost", "failed", "stopped")
"""States of a run that can be gone on with."""


class ListFlows(Command):
    """Runs of flows, newest first."""

    state: Literal["", "running", "parked", "done", "failed", "cancelled", "stopped"] = ""
    limit: int = Field(50, ge=1, le=500)


class OfFlow(Command):
    """A run of a flow."""

    flow: str


class ShowFlow(OfFlow):
    """A run, and what more is to be said of its steps."""

    reasons: bool = False
    """Say of each step that ran which part of its recipe is another one than before (of the first 60 steps)."""


class Decide(Command):
    """Approve or refuse a step that waits for a person."""

    flow: str
    step: str
    """The approval, by key or bare name."""
    approved: bool
    comment: str = Field("", max_length=20_000)


class FlowRow(Answer):
    """A run in a list. Times in microseconds."""

    id: str
    title: str
    environment: str
    actor: str
    state: str
    """running, parked, done, failed, cancelled, stopped (by a budget); or lost: it says that it runs, and its process
    is dead."""
    created: int
    ended: int | None
    error: str
    counts: dict[str, int]
    """How many steps are in each state."""


class StepView(Answer):
    """A step, or an item of one."""

    step: str
    state: str
    needs: list[str]
    recipe: str
    output: str
    label: str
    """How people call the output."""
    run: str
    why: str
    attempt: int
    began: int | None
    ended: int | None
    cpu_seconds: float
    peak_memory: int
    decision: dict[str, Any]
    reason: str = ""
    """Why it was not reused, where that was asked for."""
    profile: str = ""
    """The compute profile that it ran on."""
    used: tuple[CostRow, ...] = ()
    """What all of its attempts in this run used and cost, items of a list with their step."""


class FlowView(Answer):
    """A run with its steps, in their order; items of a list behind their step."""

    flow: FlowRow
    steps: list[StepView]
    resumable: bool
    """Whether another process can go on with it."""
    used: tuple[CostRow, ...] = ()
    """What all of it used and cost, a row for each currency."""


class FlowList(Answer):
    """Runs, newest first."""

    flows: list[FlowRow]


@operation("flows.list", needs="read", reads=True)
def list_flows(ctx: Context, cmd: ListFlows) -> FlowList:
    """Runs of flows with their state and how many steps are how far."""
    with ctx.read() as tx:
        found = flows.recent(tx, ctx.project, states=[cmd.state] if cmd.state else (), limit=cmd.limit)
        counts = flows.counts(tx, ctx.project, [one.id for one in found]) if found else {}
    return FlowList(flows=[_row(ctx, one, counts.get(one.id, {})) for one in found])


@operation("flows.show", needs="read", reads=True)
def show_flow(ctx: Context, cmd: ShowFlow) -> FlowView:
    """A run with every step: state, timings, why it ran or was reused, what it made."""
    found = _view(ctx, cmd.flow)
    if not cmd.reasons:
        return found
    ran = [one for one in found.steps if one.state == "done" and one.recipe and "[" not in one.step][:_EXPLAINED]
    told = {one.step: reason(ctx, one.step, one.recipe, one.output) for one in ran}
    steps = [one.model_copy(update={"reason": told.get(one.step, "")}) for one in found.steps]
    return found.model_copy(update={"steps": steps})


_EXPLAINED = 60
"""Steps whose reasons are told at most: each costs some reads."""


def _view(ctx: Context, identity: str) -> FlowView:
    with ctx.read() as tx:
        flow = flows.get(tx, ctx.project, identity)
        rows = flows.steps_of(tx, ctx.project, flow.id)
        counts = flows.counts(tx, ctx.project, [flow.id]).get(flow.id, {})
        labels = versions.labels(tx, ctx.project, [row.output for row in rows if row.output])
        held = uses.of_flow(tx, ctx.project, flow.id)
    needs = {one["step"]: list(one["needs"]) for one in flow.plan}
    row, used = _row(ctx, flow, counts), _by_step(held)
    return FlowView(
        flow=row,
        steps=[_step(one, needs.get(one.step.partition("[")[0], []), labels, used.get(one.step, [])) for one in rows],
        resumable=row.state in RESUMED and bool(flow.request),
        used=summed(held),
    )


def _target(ctx: Context, identity: str) -> Target:
    with ctx.read() as tx:
        flow = flows.get(tx, ctx.project, identity)
    return Target("flow", flow.id, flow.environment)


def _of_flow(ctx: Context, cmd: OfFlow) -> Target:
    return _target(ctx, cmd.flow)


def _decided(ctx: Context, cmd: Decide) -> Target:
    return _target(ctx, cmd.flow)


@operation("flows.cancel", needs="run.write", on=_of_flow)
def cancel_flow(ctx: Context, cmd: OfFlow) -> FlowView:
    """End a run: its steps are ended within about a second, nothing more is committed, what was made stays reusable.

    One whose process is dead, or that waits for a person, ends at once. Raises `Conflict` when it has ended.
    """
    with ctx.write() as tx:
        flow = flows.cancel(tx, ctx.project, cmd.flow, now=ctx.wall())
        if flow.state == "cancelled":
            flows.close_steps(tx, ctx.project, flow.id)
        elif is_lost(ctx, flow):
            flows.abandon(tx, ctx.project, flow, now=ctx.wall())
        facts.append(tx, ctx.project, ctx.fact("flow.cancelled", flow.id, {"title": flow.title}))
    return _view(ctx, cmd.flow)


@operation("flows.resume", needs="run.write", on=_of_flow)
def resume_flow(ctx: Context, cmd: OfFlow) -> FlowView:
    """Have a worker go on with a run that was lost, failed or was stopped by a budget; what it committed is reused.

    Raises `Conflict` for a run that goes on, has ended or was cancelled, `InvalidInput` for one that only its own
    process can go on with.
    """
    with ctx.write() as tx:
        flow = flows.get(tx, ctx.project, cmd.flow)
        state = "lost" if is_lost(ctx, flow) else flow.state
        if state not in RESUMED:
            raise Conflict(f"the run {flow.id} is {state}", hint="what was lost, failed or stopped can be gone on with")
        if not flow.request:
            raise InvalidInput(f"the run {flow.id} cannot be gone on with from here", hint="ask whoever started it")
        go_on(tx, ctx, flow, again=True)
        facts.append(tx, ctx.project, ctx.fact("flow.resumed", flow.id, {"title": flow.title}))
    return _view(ctx, cmd.flow)


@operation("flows.decide", needs="flow.approve", on=_decided)
def decide(ctx: Context, cmd: Decide) -> FlowView:
    """Approve or refuse a step of a run that waits for it; the run goes on, or ends, in a worker.

    Raises `PermissionDenied` for somebody who does not count as the approver that the step asks for, or who started
    the run where the step does not allow that; `Conflict` when the step waits no more.
    """
    with ctx.read() as tx:
        flow = flows.get(tx, ctx.project, cmd.flow)
    mark = next((one for one in flow.plan if cmd.step in (one["step"], one["step"].partition("/")[2])), None)
    if mark is None or "role" not in mark:
        raise NotFound(f"run {flow.id} has no approval {cmd.step}", hint="everloop flows show " + flow.id)
    if mark["role"] not in ctx.actor.roles or ctx.actor.kind != "person":
        raise PermissionDenied(f"{mark['step']} is decided by a person who is {mark['role']}", hint="ask one of them")
    if ctx.actor.name == flow.actor and not mark["own"]:
        raise PermissionDenied(
            f"{ctx.actor.name} started this run", hint="somebody else decides; el.Approval(own=True)"
        )
    said = {"approved": cmd.approved, "by": ctx.actor.name, "at": ctx.wall(), "comment": cmd.comment}
    with ctx.write() as tx:
        flows.decide(tx, ctx.project, flow.id, str(mark["step"]), said)
        facts.append(tx, ctx.project, ctx.fact("flow.decided", flow.id, {"step": mark["step"], **said}))
        go_on(tx, ctx, flow)
    return _view(ctx, flow.id)


def is_lost(ctx: Context, flow: Flow) -> bool:
    """Whether the process that drives a run is dead, or was not heard of for long."""
    return flow.state == "running" and (tasks.is_dead(flow.owner) or ctx.wall() > flow.beat + flows.STALE)


def _row(ctx: Context, flow: Flow, counts: dict[str, int]) -> FlowRow:
    return FlowRow(
        id=flow.id,
        title=flow.title,
        environment=flow.environment,
        actor=flow.actor,
        state="lost" if is_lost(ctx, flow) else flow.state,
        created=flow.created,
        ended=flow.ended,
        error=flow.error,
        counts=counts,
    )


def _by_step(held: list[UseRow]) -> dict[str, list[UseRow]]:
    """The uses of each step, and of each item of one."""
    found: dict[str, list[UseRow]] = {}
    for one in held:
        whole = one.step.partition("[")[0]
        for step in dict.fromkeys((whole, one.step)):
            found.setdefault(step, []).append(one)
    return found


def _step(row: FlowStep, needs: list[str], labels: dict[str, str], used: list[UseRow]) -> StepView:
    values = {name: getattr(row, name) for name in FlowStep.__slots__ if name not in ("place", "decision")}
    return StepView(
        **values,
        needs=needs,
        label=labels.get(row.output, ""),
        decision=dict(row.decision),
        profile=used[-1].profile if used else "",
        used=summed(used),
    )

"""Runs of flows: the list; one with its graph, its times and its steps; and what a step printed and why it ran."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from everloop.catalog.context import Context
from everloop.catalog.operation import invoke
from everloop.core.errors import EverloopError, NotFound
from everloop.flows.running.operations import FlowView, ShowFlow, StepView
from everloop.server.web import dag
from everloop.server.web.views.explaining.costs import hours, money
from everloop.server.web.visit import Visit

WIDTH, ROW, LEFT = 760, 26, 210
_MOST_BARS = 60
"""Rows of the Gantt; of more items the longest are drawn."""
_OPEN = frozenset({"running", "lost", "parked"})
_COLOURS = {"done": "ok", "reused": "soft", "failed": "bad", "refused": "bad", "parked": "warn", "running": "live"}


@dataclass(frozen=True, slots=True)
class Span:
    """One row of the Gantt, in pixels."""

    step: str
    state: str
    x: float
    width: float
    y: int
    text: str


def index(visit: Visit) -> Response:
    """Runs, newest first."""
    state = visit.query("state")
    found = visit.ask("flows.list", state=state, limit=100).flows
    return visit.page("flows.html", title="Flows", here="/flows", flows=found, state=state)


def show(visit: Visit) -> Response:
    """One run."""
    found = visit.ask("flows.show", flow=visit.part("flow"), reasons=True)
    whole = [one for one in found.steps if "[" not in one.step]
    now = visit.ctx.wall()
    spans = gantt(found, now)
    return visit.page(
        "flow.html",
        title=found.flow.title,
        here="/flows",
        flow=found.flow,
        used=found.used,
        money=money,
        hours=hours,
        steps=whole,
        items=_items(found.steps),
        graph=_graph(visit, whole),
        spans=spans,
        width=WIDTH,
        left=LEFT,
        row=ROW,
        height=len(spans) * ROW + 24,
        ticks=ticks(found, now),
        open=found.flow.state in _OPEN,
        may_end=found.flow.state in _OPEN and visit.may("flows.cancel", flow=found.flow.id),
        may_resume=found.resumable and visit.may("flows.resume", flow=found.flow.id),
        may_decide=visit.may("flows.decide", flow=found.flow.id, step="", approved=True),
    )


def act(visit: Visit) -> Response:
    """Cancel a run, have it go on, or decide a step that waits."""
    flow, wanted = visit.part("flow"), visit.part("act")
    if wanted in ("cancel", "resume"):
        visit.ask(f"flows.{wanted}", flow=flow)
    elif wanted in ("approve", "refuse"):
        step, comment = visit.form.get("step", ""), visit.form.get("comment", "")
        visit.ask("flows.decide", flow=flow, step=step, approved=wanted == "approve", comment=comment)
    else:
        raise NotFound(f"nothing can be done to a run by {wanted!r}", hint="use the buttons of its page")
    return visit.go("flows", flow)


def step(visit: Visit) -> Response:
    """One step of a run: what it printed, and what of its recipe is another one than before."""
    found = visit.ask("flows.show", flow=visit.part("flow"))
    wanted = visit.part("step")
    one = next((step for step in found.steps if step.step == wanted), None)
    if one is None:
        raise NotFound(f"run {found.flow.id} has no step {wanted!r}", hint="its page lists them")
    return visit.page(
        "flow_step.html",
        title=wanted,
        here="/flows",
        flow=found.flow,
        step=one,
        printed=_printed(visit, one),
        changes=_changes(visit, one),
        open=found.flow.state in _OPEN,
    )


def _printed(visit: Visit, one: StepView) -> Any:
    """The end of what a step printed; None when nothing was kept."""
    owner = one.run or one.recipe
    try:
        return visit.ask("runs.console", run=owner, tail=True, limit=500) if owner else None
    except NotFound:
        return None


def state(ctx: Context, flow: str) -> str:
    """What an open page of a run watches; nothing once the run has ended."""
    found: FlowView = invoke(ctx, "flows.show", ShowFlow(flow=flow))
    if found.flow.state not in _OPEN:
        return ""
    newest = max((one.ended or one.began or 0 for one in found.steps), default=0)
    return f"{found.flow.state} {sorted(found.flow.counts.items())} {newest} {len(found.steps)}"


def gantt(found: FlowView, now: int) -> list[Span]:
    """When each step ran, as bars over the time of the run; steps that were only looked up have a line."""
    timed = [one for one in found.steps if one.began and one.state != "parked"]  # people take days
    if len(timed) > _MOST_BARS:
        longest = sorted(timed, key=lambda one: (one.ended or now) - (one.began or 0), reverse=True)[:_MOST_BARS]
        chosen = {one.step for one in longest}
        timed = [one for one in timed if one.step in chosen]
    first, span = _range(found, now)
    spans = []
    for number, one in enumerate(timed):
        began, ended = one.began or 0, one.ended or now
        x = LEFT + (began - first) / span * (WIDTH - LEFT - 90)
        width = max(2.0, (ended - began) / span * (WIDTH - LEFT - 90))
        said = "reused" if one.state == "reused" else seconds((ended - began) / 1e6)
        spans.append(Span(one.step, _COLOURS.get(one.state, "soft"), round(x, 1), round(width, 1), number * ROW, said))
    return spans


def ticks(found: FlowView, now: int) -> list[tuple[float, str]]:
    """Times below the Gantt, as (pixel, text)."""
    _, span = _range(found, now)
    return [(LEFT + share * (WIDTH - LEFT - 90), seconds(span * share / 1e6)) for share in (0, 0.25, 0.5, 0.75, 1)]


def seconds(amount: float) -> str:
    """A duration for people."""
    if amount < 1:
        return f"{amount * 1000:.0f} ms"
    return f"{amount:.1f} s" if amount < 120 else f"{amount / 60:.1f} min"


def _range(found: FlowView, now: int) -> tuple[int, int]:
    ran = [one for one in found.steps if one.began and one.state != "parked"]
    starts = [one.began or 0 for one in ran] or [found.flow.created]
    ends = [one.ended or now for one in ran] or [now]
    return min(starts), max(1, max(ends) - min(starts))


def _graph(visit: Visit, steps: Sequence[StepView]) -> str:
    known = {one.step for one in steps}
    given = sorted({need for one in steps for need in one.needs} - known)
    nodes = [dag.Node(key, key.partition("/")[2], "given") for key in given]
    nodes += [
        dag.Node(
            one.step,
            one.step.partition("/")[2],
            _note(one),
            visit.at("flows", visit.part("flow"), "steps", one.step),
            f"state-{_COLOURS.get(one.state, 'soft')}",
        )
        for one in steps
    ]
    return dag.svg(nodes, [(need, one.step) for one in steps for need in one.needs])


def _note(one: StepView) -> str:
    if one.state == "done" and one.began and one.ended:
        return f"done in {seconds((one.ended - one.began) / 1e6)}"
    return one.state


def _items(steps: Sequence[StepView]) -> dict[str, dict[str, Any]]:
    """Of steps over lists: how many items are in each state, and those that failed."""
    found: dict[str, dict[str, Any]] = {}
    for one in steps:
        key, bracket, _ = one.step.partition("[")
        if bracket:
            held = found.setdefault(key, {"counts": {}, "failed": []})
            held["counts"][one.state] = held["counts"].get(one.state, 0) + 1
            if one.state == "failed":
                held["failed"].append(one)
    return found


def _changes(visit: Visit, one: StepView) -> list[Any]:
    """Which parts of the recipe are others than those of the execution before; none where that is not known."""
    if one.state != "done" or not one.recipe:
        return []
    try:
        return list(visit.ask("cache.explain", step=one.step.partition("[")[0], recipe=one.recipe).changes)
    except EverloopError:
        return []

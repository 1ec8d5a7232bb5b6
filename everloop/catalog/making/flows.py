"""Runs of flows: what is asked, who drives it, how far it is; and the one who may go on with it.

A run is driven by one process at a time. The *token* counts its drivers: whoever takes a run over counts it up, and
every transaction of a driver begins with `hold`, which an older token does not pass. So an output is committed by one
driver, and by none after the run was cancelled.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal

from sqlalchemy import Executable, Row, bindparam, func, select, update

from everloop.catalog.engine import Tx, insert_for
from everloop.catalog.tables.core import flow_steps, flows
from everloop.core.clock import SECOND, Micros
from everloop.core.errors import Cancelled, Conflict, NotFound
from everloop.core.ids import fresh_id

State = Literal["running", "parked", "done", "failed", "cancelled", "stopped"]
OPEN = ("running", "parked")
STALE = 30 * SECOND
"""A driver that has not been heard of for so long is taken for dead."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A run of a flow. Times are wall time."""

    id: str
    title: str
    environment: str
    actor: str
    state: State
    token: int
    owner: str
    wanted: str
    request: Mapping[str, Any]
    """What it takes to go on with it in another process."""
    plan: Sequence[Mapping[str, Any]]
    """Its steps: `{step, needs, …}` in the order of the plan."""
    created: Micros
    beat: Micros
    ended: Micros | None
    error: str


@dataclass(frozen=True, slots=True)
class FlowStep:
    """How far a step of a run is."""

    step: str
    place: int
    state: str
    """waiting, running, done, reused, failed, skipped, parked, refused, cancelled, or stopped by a budget."""
    recipe: str = ""
    output: str = ""
    run: str = ""
    why: str = ""
    """Why it ran or was reused, was skipped, waits, or failed."""
    attempt: int = 0
    began: Micros | None = None
    ended: Micros | None = None
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    decision: Mapping[str, Any] = field(default_factory=dict)


def create(
    tx: Tx,
    project: str,
    *,
    title: str,
    environment: str,
    actor: str,
    owner: str,
    request: Mapping[str, Any],
    plan: Sequence[Mapping[str, Any]],
    now: Micros,
) -> Flow:
    """Open a run, driven by `owner` with the token 1."""
    row: dict[str, Any] = {
        "project": project,
        "id": fresh_id("flow"),
        "title": title,
        "environment": environment,
        "actor": actor,
        "state": "running",
        "token": 1,
        "owner": owner,
        "wanted": "",
        "request": json.dumps(dict(request), sort_keys=True),
        "plan": json.dumps(list(plan), sort_keys=True),
        "created": now,
        "beat": now,
        "ended": None,
        "error": "",
    }
    tx.execute(_CREATE, row)
    return Flow(**{name: row[name] for name in Flow.__slots__} | {"request": dict(request), "plan": list(plan)})


def get(tx: Tx, project: str, identity: str) -> Flow:
    """The run with this id; raises `NotFound`."""
    row = tx.execute(select(flows).where(flows.c.project == project, flows.c.id == identity)).first()
    if row is None:
        raise NotFound(f"no run {identity} of a flow in project {project}", hint="everloop flows list")
    return _flow(row)


def recent(tx: Tx, project: str, *, states: Collection[str] = (), limit: int = 50) -> list[Flow]:
    """Runs, newest first."""
    query = select(flows).where(flows.c.project == project)
    if states:
        query = query.where(flows.c.state.in_(sorted(states)))
    return [_flow(row) for row in tx.execute(query.order_by(flows.c.created.desc(), flows.c.id).limit(limit))]


def asked(tx: Tx, project: str, word: str, limit: int = 100) -> list[Mapping[str, Any]]:
    """Requests of runs in which a word stands, newest first: who asked for a code version, and of which commit."""
    query = select(flows.c.request).where(flows.c.project == project, flows.c.request.contains(word, autoescape=True))
    rows = tx.execute(query.order_by(flows.c.created.desc(), flows.c.id).limit(limit)).scalars()
    return [json.loads(text) for text in rows]


def hold(tx: Tx, project: str, flow: Flow, *, now: Micros) -> None:
    """Be sure that this driver still has the run, and say that it lives. First in every transaction of a driver.

    Raises `Conflict` when another driver took it over, `Cancelled` when somebody wants it to end.
    """
    if tx.execute(_HOLD, {"p": project, "i": flow.id, "t": flow.token, "beat": now}).rowcount == 1:
        return
    there = get(tx, project, flow.id)
    if there.token == flow.token and (there.wanted == "cancel" or there.state == "cancelled"):
        raise Cancelled(f"the run {flow.id} was cancelled", hint="what it had finished is reused by the next run")
    raise Conflict(
        f"the run {flow.id} is {there.state} and in other hands", hint="another process went on with it: leave it"
    )


def end(tx: Tx, project: str, flow: Flow, state: State, *, now: Micros, error: str = "") -> bool:
    """Close or park a run; False when this driver does not hold it any more, and nothing changed."""
    values = {"state": state, "beat": now, "error": error, "ended": None if state == "parked" else now}
    return tx.execute(_END, {"p": project, "i": flow.id, "t": flow.token, **values}).rowcount == 1


def take_over(tx: Tx, project: str, flow: Flow, *, owner: str, now: Micros) -> Flow:
    """Go on with a run in the place of its last driver; the token counts up.

    Raises `Conflict` when it moved since `flow` was read, or was cancelled.
    """
    mine = (flows.c.project == project, flows.c.id == flow.id, flows.c.token == flow.token)
    values = {"token": flow.token + 1, "owner": owner, "state": "running", "beat": now, "ended": None, "error": ""}
    taken = update(flows).where(*mine, flows.c.state != "cancelled", flows.c.wanted == "").values(**values)
    row = tx.execute(taken.returning(flows)).first()
    if row is None:
        raise Conflict(f"the run {flow.id} cannot be taken over", hint="look at it again: it moved, or was cancelled")
    return _flow(row)


def cancel(tx: Tx, project: str, identity: str, *, now: Micros) -> Flow:
    """Want a run to end; one that nobody drives ends now. Raises `Conflict` when it has ended."""
    flow = get(tx, project, identity)
    mine = (flows.c.project == project, flows.c.id == identity)
    parked = update(flows).where(*mine, flows.c.state == "parked").values(state="cancelled", wanted="cancel", ended=now)
    if tx.execute(parked).rowcount == 0:
        running = update(flows).where(*mine, flows.c.state == "running").values(wanted="cancel")
        if tx.execute(running).rowcount == 0:
            raise Conflict(f"the run {identity} is {flow.state}", hint="only one that runs or waits can be cancelled")
    return get(tx, project, identity)


def abandon(tx: Tx, project: str, flow: Flow, *, now: Micros) -> None:
    """Close a run that was to end and whose driver is dead."""
    mine = (flows.c.project == project, flows.c.id == flow.id, flows.c.token == flow.token)
    values = {"state": "cancelled", "token": flow.token + 1, "ended": now}
    tx.execute(update(flows).where(*mine, flows.c.state == "running").values(**values))
    close_steps(tx, project, flow.id)


def close_steps(tx: Tx, project: str, flow: str, state: str = "cancelled") -> None:
    """Steps of a run that ended before they did: they will not be made."""
    mine = (flow_steps.c.project == project, flow_steps.c.flow == flow)
    closing = update(flow_steps).where(*mine, flow_steps.c.state.in_(("running", "waiting", "parked")))
    tx.execute(closing.values(state=state))


def save(tx: Tx, project: str, flow: str, rows: Collection[FlowStep]) -> None:
    """Write down how far steps are, in the place of what was known; a decision that was taken stays."""
    if not rows:
        return
    tx.execute(_saving(tx.dialect.name), [{"project": project, "flow": flow, **_values(row)} for row in rows])


def steps_of(tx: Tx, project: str, flow: str) -> list[FlowStep]:
    """The steps of a run, in their order; items of a list by their number, behind their step."""
    mine = (flow_steps.c.project == project, flow_steps.c.flow == flow)
    ordered = (flow_steps.c.place, func.length(flow_steps.c.step), flow_steps.c.step)
    return [_step(row) for row in tx.execute(select(flow_steps).where(*mine).order_by(*ordered))]


def counts(tx: Tx, project: str, ids: Collection[str]) -> dict[str, dict[str, int]]:
    """How many steps of each run are in each state."""
    mine = (flow_steps.c.project == project, flow_steps.c.flow.in_(sorted(ids)))
    query = select(flow_steps.c.flow, flow_steps.c.state, func.count()).where(*mine)
    found: dict[str, dict[str, int]] = {}
    for flow, state, count in tx.execute(query.group_by(flow_steps.c.flow, flow_steps.c.state)):
        found.setdefault(flow, {})[state] = count
    return found


def decide(tx: Tx, project: str, flow: str, step: str, decision: Mapping[str, Any]) -> None:
    """Take the decision that a parked step waits for; raises `Conflict` when it does not wait, or was decided."""
    mine = (flow_steps.c.project == project, flow_steps.c.flow == flow, flow_steps.c.step == step)
    waits = (flow_steps.c.state == "parked", flow_steps.c.decision == "{}")
    done = tx.execute(update(flow_steps).where(*mine, *waits).values(decision=json.dumps(dict(decision))))
    if done.rowcount != 1:
        raise Conflict(f"{step} of run {flow} waits for no decision", hint="everloop flows show " + flow)


# Built once: building a statement costs more than running it, and every run needs these.
_CREATE = flows.insert()
_MINE = (
    flows.c.project == bindparam("p"),
    flows.c.id == bindparam("i"),
    flows.c.token == bindparam("t"),
    flows.c.state == "running",
)
_HOLD = update(flows).where(*_MINE, flows.c.wanted == "").values(beat=bindparam("beat"))
_ENDING: dict[str, Any] = {name: bindparam(name) for name in ("state", "beat", "error", "ended")}
_END = update(flows).where(*_MINE).values(**_ENDING)
_STEP = tuple(FlowStep.__slots__)
_FIELDS = attrgetter(*_STEP)


@lru_cache(maxsize=2)
def _saving(dialect: str) -> Executable:
    """Writes steps in the place of what was known of them, their decisions aside."""
    made = insert_for(dialect, flow_steps)
    kept = {"project", "flow", "step", "decision"}
    new = {column.name: made.excluded[column.name] for column in flow_steps.c if column.name not in kept}
    return made.on_conflict_do_update(index_elements=["project", "flow", "step"], set_=new)


def _values(row: FlowStep) -> dict[str, Any]:
    values = dict(zip(_STEP, _FIELDS(row), strict=True))
    values["decision"] = json.dumps(dict(row.decision)) if row.decision else "{}"
    return values


def _flow(row: Row[Any]) -> Flow:
    values = {name: getattr(row, name) for name in Flow.__slots__}
    return Flow(**values | {"request": json.loads(row.request), "plan": json.loads(row.plan)})


def _step(row: Row[Any]) -> FlowStep:
    values = {name: getattr(row, name) for name in FlowStep.__slots__}
    return FlowStep(**values | {"decision": json.loads(row.decision)})

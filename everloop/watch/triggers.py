"""From alarms, schedules and new rows to tasks: what sets retraining off, each cause once.

Time is the context's, so a replay sets schedules off as the months go by. A broken sensor blocks: while an alarm
that names a fault is open on a rule's endpoints, nothing retrains the model on what the sensor said.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everloop.catalog import facts, refs, tasks, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operating import alarms as rows
from everloop.catalog.operating import predictions
from everloop.catalog.operating.alarms import Alarm, Firing
from everloop.catalog.versions import VersionRow
from everloop.core.clock import Micros, iso
from everloop.core.errors import NotFound
from everloop.core.ids import short
from everloop.watch.definitions import MonitorDef, RetrainDef, Trigger, Window, duration

TASK = "flow.retrain"
"""The kind of task that a firing makes; payload {model, reason, environment, from}."""
AUTO = "sandbox/auto/"
_MOST_WINDOWS = 100
"""Windows that one tick catches up with, of each monitor."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a rule would go off now; `fire` names the cause, so that it is acted upon once."""

    fire: str
    reason: str


@dataclass(frozen=True, slots=True)
class Situation:
    """What triggers look at: the time, the live model, open and past alarms, rows of data."""

    now: Micros
    trained: Micros
    """When the live model was made."""
    last: Micros | None
    """When the rule last made a task."""
    alarms: Sequence[Alarm]
    """Alarms that were opened since the live model was made."""
    rows: Mapping[str, tuple[str, int]]
    """Dataset -> (its newest version, rows more than the live model saw)."""

    @property
    def faults(self) -> tuple[Alarm, ...]:
        """Open alarms that name a broken sensor."""
        return tuple(a for a in self.alarms if a.blocks_retraining and a.state in ("alarm", "acknowledged"))


def causes(rule: RetrainDef, seen: Situation) -> list[Cause]:
    """What sets the rule off now, by its triggers in their order. Pure; knows nothing of cool-down and faults."""
    return [cause for trigger in rule.when for cause in _causes(trigger, seen)]


def _causes(trigger: Trigger, seen: Situation) -> Iterator[Cause]:
    if trigger.when == "every":
        due = max(seen.trained, seen.last or 0) + duration(trigger.period)
        if due <= seen.now:
            yield Cause(f"every/{trigger.period}/{due}", f"{trigger}: due at {iso(due)}")
    elif trigger.when == "alarm":
        for alarm in seen.alarms:
            ours = alarm.endpoint == trigger.subject and alarm.state in ("alarm", "acknowledged")
            if ours and alarm.real is not False and not alarm.blocks_retraining:
                yield Cause(f"alarm/{alarm.id}", f"{trigger}: {alarm.title}")
    else:
        identity, more = seen.rows.get(trigger.subject, ("", 0))
        if more >= trigger.rows:
            yield Cause(f"rows/{trigger.subject}/{short(identity)}", f"{trigger}: {more:,} since the live model")


def fire(ctx: Context, environment: str = "production") -> list[Firing]:
    """Make a task for every retrain rule of the environment that a cause sets off, and say what was blocked.

    Calling it again changes nothing: a cause fires once for a rule. Within a rule's cool-down nothing fires; the cause
    is looked at again afterwards.
    """
    with ctx.read() as tx:
        held = entries(tx, ctx.project, environment)
        rules = {
            key: RetrainDef.from_manifest(versions.get(tx, ctx.project, identity).manifest)
            for key, identity in held.items()
            if key.startswith("retrain/")
        }
    fired = []
    for rule in rules.values():
        with ctx.write() as tx:
            live = held.get(f"model/{rule.model}")
            if live is None:
                continue
            seen = _situation(ctx, tx, rule, versions.get(tx, ctx.project, live), environment)
            fired.extend(_fire(ctx, tx, rule, seen))
    return fired


def _fire(ctx: Context, tx: Tx, rule: RetrainDef, seen: Situation) -> list[Firing]:
    if seen.faults:
        return [firing for alarm in seen.faults if (firing := _block(ctx, tx, rule, alarm, seen.now))]
    if seen.last is not None and seen.last + duration(rule.cooldown) > seen.now:
        return []
    for cause in causes(rule, seen):
        firing = rows.fire(tx, ctx.project, Firing(rule.name, cause.fire, seen.now, cause.reason, "enqueued"))
        if firing is None:
            continue
        sandbox = f"{AUTO}{firing.number}"
        payload = {"model": rule.model, "reason": cause.reason, "environment": sandbox, "number": firing.number}
        task = tasks.enqueue(
            tx, ctx.project, TASK, payload, actor=ctx.actor.name, now=ctx.wall(), dedupe=f"{rule.name}/{firing.number}"
        )
        rows.set_task(tx, ctx.project, firing, task)
        facts.append(tx, ctx.project, ctx.fact("retrain.fired", rule.model, {**payload, "task": task}))
        return [firing]  # one task answers all causes of now: the next pass starts from its time
    return []


def _block(ctx: Context, tx: Tx, rule: RetrainDef, alarm: Alarm, now: Micros) -> Firing | None:
    reason = f"not retrained while a sensor is broken: {alarm.title}"
    firing = rows.fire(tx, ctx.project, Firing(rule.name, f"blocked/{alarm.id}", now, reason, "blocked"))
    if firing is not None:
        payload = {"model": rule.model, "reason": reason, "alarm": alarm.id}
        facts.append(tx, ctx.project, ctx.fact("retrain.blocked", rule.model, payload))
    return firing


def _situation(ctx: Context, tx: Tx, rule: RetrainDef, live: VersionRow, environment: str) -> Situation:
    watched = {t.subject for t in rule.when if t.when == "alarm"} or _endpoints(tx, ctx.project, environment)
    opened = [
        alarm
        for endpoint in sorted(watched)
        for alarm in rows.find(tx, ctx.project, endpoint=endpoint, states=rows.OPEN, opened_only=True)
        # A fault blocks however old it is; drift that an earlier model saw is no reason to train this one again.
        if alarm.blocks_retraining or (alarm.opened or 0) > live.at
    ]
    datasets = [t.subject for t in rule.when if t.when == "rows"]
    return Situation(
        ctx.now(),
        live.at,
        rows.last_fired(tx, ctx.project, rule.name),
        opened,
        {dataset: _new_rows(tx, ctx.project, live, dataset, environment) for dataset in datasets},
    )


def _endpoints(tx: Tx, project: str, environment: str) -> set[str]:
    return {key.partition("/")[2] for key in entries(tx, project, environment) if key.startswith("endpoint/")}


def _new_rows(tx: Tx, project: str, live: VersionRow, dataset: str, environment: str) -> tuple[str, int]:
    """The head of a dataset, and how many rows more it has than the version that the live model came from."""
    head = refs.get(tx, project, refs.head_ref(environment, dataset))
    if head is None:
        return "", 0
    now = int(versions.get(tx, project, head).manifest.get("rows", 0))
    origins = {edge.from_id for edge in versions.upstream(tx, project, live.id)}
    before = [
        int(row.manifest.get("rows", 0))
        for row in versions.history(tx, project, "data", dataset, limit=1000)
        if row.id in origins
    ]
    return head, now - max(before, default=0)


def due_windows(ctx: Context, monitor: MonitorDef) -> list[Window]:
    """Whole windows (aligned to the epoch) that ended and were not looked at, oldest first."""
    with ctx.read() as tx:
        done = rows.evaluated_until(tx, ctx.project, monitor.name)
        if done is None:
            first = predictions.window(tx, ctx.project, monitor.endpoint, 0, ctx.now(), limit=1)
            # a window that the endpoint was not asked in from its start is not like the others
            done = -(-first[0].at // monitor.length) * monitor.length if first else ctx.now()
    ended = ctx.now() // monitor.length * monitor.length
    starts = range(done, ended, monitor.length)[:_MOST_WINDOWS]
    return [Window(start, start + monitor.length) for start in starts]


def entries(tx: Tx, project: str, environment: str) -> dict[str, str]:
    """The definitions that an environment holds, `kind/name` -> version id; empty for an environment that is not."""
    snapshot = refs.get(tx, project, refs.env_ref(environment))
    if snapshot is None:
        return {}
    found: Mapping[str, str] = versions.get(tx, project, snapshot).manifest["entries"]
    return dict(found)


def defined(tx: Tx, project: str, environment: str, key: str) -> Mapping[str, Any]:
    """The manifest of a definition in an environment; raises `NotFound`."""
    identity = entries(tx, project, environment).get(key)
    if identity is None:
        raise NotFound(f"{environment} holds no {key}", hint="`everloop env show` says what it holds")
    return versions.get(tx, project, identity).manifest

"""The operations of watching: look at one window now; do everything that is due. What computes loads when called."""

import json
import re

from everloop import watch
from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operating import alarms
from everloop.catalog.operating.alarms import Evaluation, Firing
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.clock import Micros
from everloop.core.grants import Target
from everloop.data.sensitive.masking import hidden_of
from everloop.watch.definitions import MonitorDef, Window
from everloop.watch.triggers import defined, due_windows, entries, fire
from everloop.watch.views import asking
from everloop.watch.views.asking import OfView


class Evaluate(Command):
    """Which window of which monitor; times in microseconds. Without times: the newest whole window."""

    monitor: str
    environment: str = "production"
    start: int | None = None
    until: int | None = None


def _monitor(_ctx: Context, cmd: Evaluate) -> Target:
    return Target("monitor", cmd.monitor, cmd.environment)


class ReportView(Answer):
    """What a look at a window found."""

    monitor: str
    start: int
    until: int
    state: str
    summary: str
    evidence: str
    alarms: tuple[str, ...]


@operation("watch.evaluate", needs="check.run", on=_monitor)
def evaluate_window(ctx: Context, cmd: Evaluate) -> ReportView:
    """Look at one window of a monitor now."""
    with ctx.read() as tx:
        manifest = defined(tx, ctx.project, cmd.environment, f"monitor/{cmd.monitor}")
    monitor = MonitorDef.from_manifest(cmd.monitor, manifest)
    until = cmd.until if cmd.until is not None else ctx.now() // monitor.length * monitor.length
    start = cmd.start if cmd.start is not None else until - monitor.length
    report = watch.evaluate.evaluate(
        ctx, monitor, Window(start, until), environment=cmd.environment, score=ctx.ports.get("scorer")
    )
    return ReportView(
        monitor=cmd.monitor,
        start=start,
        until=until,
        state=report.state,
        summary=report.summary,
        evidence=report.evidence,
        alarms=tuple(alarm.id for alarm in report.alarms),
    )


def tick(
    ctx: Context, environment: str = "production", score: "watch.baseline.Scorer | None" = None
) -> "tuple[list[watch.evaluate.Report], list[Firing]]":
    """Look at every window that is due, then let the rules fire. What `everloop worker` does every so often."""
    with ctx.read() as tx:
        held = entries(tx, ctx.project, environment)
        monitors = [
            MonitorDef.from_manifest(key.partition("/")[2], versions.get(tx, ctx.project, identity).manifest)
            for key, identity in held.items()
            if key.startswith("monitor/")
        ]
    reports = [
        watch.evaluate.evaluate(ctx, monitor, window, environment=environment, score=score)
        for monitor in monitors
        for window in due_windows(ctx, monitor)
    ]
    return reports, fire(ctx, environment)


class Tick(Command):
    """Everything that is due in an environment."""

    environment: str = "production"


class Ticked(Answer):
    """What a tick did."""

    evaluated: tuple[str, ...]
    """Evidence ids."""
    fired: tuple[str, ...]
    """Reasons of the tasks that were made."""
    blocked: tuple[str, ...]


def _watched(ctx: Context, cmd: Tick) -> Target:
    return Target("project", ctx.project, cmd.environment)


@operation("watch.tick", needs="check.run", on=_watched)
def tick_now(ctx: Context, cmd: Tick) -> Ticked:
    """Look at every window that is due, then let the retrain rules fire."""
    reports, fired = tick(ctx, cmd.environment, ctx.ports.get("scorer"))
    return Ticked(
        evaluated=tuple(report.evidence for report in reports),
        fired=tuple(f.reason for f in fired if f.outcome == "enqueued"),
        blocked=tuple(f.reason for f in fired if f.outcome == "blocked"),
    )


class Distribution(Answer):
    """How a column of a view looked online against training, when a monitor looked last. Pairs: training, online."""

    column: str
    """A model's input: a feature, or one place of a list."""
    monitor: str
    endpoint: str
    until: Micros
    rows: int
    state: str
    text: str
    """The verdict in words; without values for whoever may not see them."""
    severity: float
    """The largest effect in multiples of the least that counts."""
    nulls: tuple[float, ...] = ()
    """Shares."""
    quantiles: tuple[tuple[float, ...], ...] = ()
    probabilities: tuple[float, ...] = ()
    levels: tuple[tuple[str, float, float], ...] = ()
    """The most frequent values of a text, with their shares."""
    others: tuple[float, ...] = ()
    """Shares of all other values."""


class Distributions(Answer):
    """Of every column that a monitor has looked at."""

    columns: list[Distribution]


@operation("features.distributions", needs="read", on=asking.target, reads=True)
def distributions(ctx: Context, cmd: OfView) -> Distributions:
    """Show how the features of a view look online against training: nulls and values, as the monitors saw them last."""
    with ctx.read() as tx:
        held, view = asking.held(tx, ctx.project, cmd)
        names = [key.partition("/")[2] for key in held if key.startswith("monitor/")]
        looks = [look for name in names if (look := _newest(tx, ctx.project, name)) is not None]
        objects = [versions.get(tx, ctx.project, e.evidence).manifest["object"] for e in looks]
    hidden = hidden_of(ctx, view, cmd.environment)
    found = []
    for evaluation, identity in zip(looks, objects, strict=True):
        body = json.loads(ctx.store.get(identity))
        for column in body.get("columns", []):
            name = column["column"].removeprefix(f"{cmd.view}__")
            if name == column["column"]:
                continue
            said = {"monitor": evaluation.monitor, "endpoint": body.get("endpoint", ""), "until": evaluation.until}
            shut = bool(hidden & {name, _PLACE.sub("", name)})
            keys = ("column", "state", "severity", *(_NULLS if shut else _SEEN))
            told = {key: column[key] for key in keys if key in column}
            text = column.get("bare", column["state"]) if shut else column["text"]
            found.append(Distribution(**said, **told, text=text, rows=body["rows"]))
    return Distributions(columns=found)


def _newest(tx: Tx, project: str, monitor: str) -> Evaluation | None:
    """The newest look at a window that had traffic."""
    looks = alarms.evaluations(tx, project, monitor, limit=50)
    return next((look for look in looks if look.evidence and look.state != "no traffic"), None)


_PLACE = re.compile(r"_\d{3}$")
"""What stands behind the name of a list in the column of one of its places."""
_NULLS = ("nulls",)
_SEEN = (*_NULLS, "quantiles", "probabilities", "levels", "others")

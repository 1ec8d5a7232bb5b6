"""The operations of watching: look at one window now; do everything that is due. What computes loads when called."""

from everloop import watch
from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.operating.alarms import Firing
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.grants import Target
from everloop.watch.definitions import MonitorDef, Window
from everloop.watch.triggers import defined, due_windows, entries, fire


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

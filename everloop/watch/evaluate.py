"""One look at one window of an endpoint: drift, performance, estimates; the evidence of it; and its alarms."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from everloop.catalog import facts, versions
from everloop.catalog.context import Context
from everloop.catalog.operating import alarms as rows
from everloop.catalog.operating.alarms import Alarm, Evaluation
from everloop.checks.definitions import ObjectiveDef
from everloop.core.errors import NotFound
from everloop.core.version import Version
from everloop.data.sensitive.masking import in_force
from everloop.watch import alarms
from everloop.watch.alarms import Sight, Signal
from everloop.watch.baseline import Scorer, baseline_of, body_of
from everloop.watch.budget import alpha
from everloop.watch.definitions import MonitorDef, Window
from everloop.watch.drift import ColumnDrift, Limits, compare
from everloop.watch.judged import Judged, judge, metric_of
from everloop.watch.observed import Observed, observe
from everloop.watch.reference import SCORE, beside
from everloop.watch.triggers import defined


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `body` is JSON and is stored as the object that the evidence names."""

    monitor: str
    window: Window
    state: str
    """fault, drift, breach, ok, cannot tell, or no traffic; the worst that holds."""
    summary: str
    columns: tuple[ColumnDrift, ...]
    judged: Judged
    body: Mapping[str, Any]
    evidence: str = ""
    alarms: tuple[Alarm, ...] = ()
    """Alarms that this window made or changed."""


def evaluate(
    ctx: Context, monitor: MonitorDef, window: Window, *, environment: str = "production", score: Scorer | None = None
) -> Report:
    """Look at a window, keep the evidence, and bring the monitor's alarms up to date.

    A window may be looked at again when more labels came: the evaluation is appended, and alarms do not count it twice.
    `score` scores a model version on a frame; without it (and without a stored baseline that has them) scores are
    not compared. Raises `NotFound` when the window's predictions or their model are not here.
    """
    seen = observe(ctx, monitor.endpoint, window.start, window.until)
    revision = seen.revision()
    if not revision:
        nothing = Sight(monitor.name, monitor.endpoint, window.start, window.until, ())
        return _keep(ctx, monitor, _quiet(monitor, window), nothing)
    seen = seen.answered_by(revision)
    model = _model_of(ctx, revision)
    baseline = baseline_of(ctx, model, monitor.length, monitor.alarms_per_quarter, score)
    level = alpha(monitor.alarms_per_quarter, monitor.length, seen.rows, baseline.reference.rows)
    counts = baseline.reference.count({**seen.columns, SCORE: seen.scores})
    closed = in_force(ctx, model)  # what is written here goes into evidence, alarms and facts, for anybody to read
    verdicts = compare(baseline.reference, counts, Limits(alpha=level), baseline.inflation(seen.rows))
    columns = tuple(c.masked() if c.column in closed else c for c in verdicts)
    objective = _objective(ctx, monitor, environment)
    judged = judge(ctx, monitor, window, objective, (revision, baseline, level))
    shapes = {
        name: beside(baseline.reference.columns[name], part, values=name not in closed) for name, part in counts.items()
    }
    found = [c.body() | shapes[c.column] for c in columns]
    report = _report(monitor, (window, seen), (columns, found), judged, body_of(baseline, monitor.alarms_per_quarter))
    sight = Sight(
        monitor.name,
        monitor.endpoint,
        window.start,
        window.until,
        _signals(columns, judged, objective),
        frozenset(c.column for c in columns if c.state == "cannot tell")
        | (frozenset({metric_of(objective)}) if judged.standing == "unknown" else frozenset()),
    )
    return _keep(ctx, monitor, report, sight, inputs=(("model", model), ("revision", revision)))


def _signals(columns: tuple[ColumnDrift, ...], judged: Judged, objective: ObjectiveDef | None) -> tuple[Signal, ...]:
    found = [
        Signal("fault" if c.state == "fault" else "drift", c.column, c.text, c.severity, blocks=c.state == "fault")
        for c in columns
        if c.state in ("drift", "fault")
    ]
    if judged.standing == "breached":
        found.append(Signal("performance", metric_of(objective), judged.text, judged.severity))
    return tuple(found)


def _report(
    monitor: MonitorDef,
    seen: tuple[Window, Observed],
    compared: tuple[tuple[ColumnDrift, ...], list[dict[str, Any]]],
    judged: Judged,
    baseline: Mapping[str, Any],
) -> Report:
    (window, observed), (columns, bodies) = seen, compared
    states = [c.state for c in columns]
    told = [c for c in columns if c.state in ("fault", "drift")]
    state = next((s for s in ("fault", "drift") if s in states), "")
    if not state:
        blind = bool(states) and all(s == "cannot tell" for s in states)
        state = "breach" if judged.standing == "breached" else "cannot tell" if blind else "ok"
    moved = f"{len(told)} of {len(columns)} columns moved, most: {told[0].column} ({told[0].text})" if told else ""
    blind_text = columns[0].text if state == "cannot tell" else ""
    said = [moved or blind_text or "inputs and scores as in training", judged.text]
    summary = "; ".join(part for part in said if part)
    body = {
        "schema": 1,
        "monitor": monitor.name,
        "endpoint": monitor.endpoint,
        "start": window.start,
        "until": window.until,
        "state": state,
        "summary": summary,
        "rows": observed.rows,
        "revision": observed.revision(),
        "baseline": baseline,
        "columns": bodies,
        "performance": judged.body,
    }
    return Report(monitor.name, window, state, summary, columns, judged, body)


def _quiet(monitor: MonitorDef, window: Window) -> Report:
    body = {
        "schema": 1,
        "monitor": monitor.name,
        "endpoint": monitor.endpoint,
        "start": window.start,
        "until": window.until,
        "state": "no traffic",
        "rows": 0,
    }
    return Report(monitor.name, window, "no traffic", "nobody asked", (), Judged(), body)


def _keep(
    ctx: Context, monitor: MonitorDef, report: Report, sight: Sight, inputs: tuple[tuple[str, str], ...] = ()
) -> Report:
    """Store the report, then write evidence, evaluation, alarms and fact in one transaction."""
    identity = ctx.store.put(json.dumps(report.body, sort_keys=True, allow_nan=False).encode())
    manifest = {
        "about": "window",
        "monitor": monitor.manifest(),
        "start": report.window.start,
        "until": report.window.until,
        "state": report.state,
        "object": identity,
    }
    version = Version("evidence", f"watch.{monitor.name}", manifest, inputs)
    told = {c.column: c.severity for c in report.columns}
    figures = {**report.judged.figures, "flagged": float(len([s for s in sight.signals if s.kind != "performance"]))}
    figures |= {"severity": round(max(told.values(), default=0.0), 4), "rows": float(report.body["rows"])}
    evaluation = Evaluation(
        monitor.name,
        report.window.start,
        report.window.until,
        ctx.now(),
        ctx.wall(),
        report.state,
        version.id,
        report.summary,
        figures,
    )
    with ctx.write() as tx:
        versions.put(tx, ctx.project, version, actor=ctx.actor.name, at=ctx.now())
        rows.record_evaluation(tx, ctx.project, evaluation)
        changed = alarms.record(ctx, tx, replace(sight, evidence=version.id)) if report.state != "no traffic" else []
        payload = {"monitor": monitor.name, "evidence": version.id, "state": report.state, "summary": report.summary}
        facts.append(tx, ctx.project, ctx.fact("watch.evaluated", monitor.endpoint, payload))
    return replace(report, evidence=version.id, alarms=tuple(changed))


def _model_of(ctx: Context, revision: str) -> str:
    with ctx.read() as tx:
        models = versions.get(tx, ctx.project, revision).manifest.get("models", {})
    model = models.get("champion") or next(iter(models.values()), None)
    if model is None:
        raise NotFound(f"revision {revision} pins no model", hint="it was not made by `everloop`")
    return str(model)


def _objective(ctx: Context, monitor: MonitorDef, environment: str) -> ObjectiveDef | None:
    if not monitor.objective:
        return None
    with ctx.read() as tx:
        manifest = defined(tx, ctx.project, environment, f"objective/{monitor.objective}")
    return ObjectiveDef.from_manifest(manifest)

"""What late labels say of a cohort, and what its scores alone would have said."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from everloop.catalog.context import Context
from everloop.catalog.operating import alarms as rows
from everloop.checks.definitions import ObjectiveDef
from everloop.core.clock import Micros
from everloop.watch.baseline import Baseline
from everloop.watch.definitions import MonitorDef, Window
from everloop.watch.observed import Observed, labels_of, observe
from everloop.watch.statistics import performance
from everloop.watch.statistics.estimated import Calibrator, Estimate, estimate_accuracy, estimate_auc
from everloop.watch.statistics.performance import Figure, Standing

DEFAULT_METRIC = "roc_auc"
_MOST_SLICES = 20
_LEAST_SCORES = 30
_SEED = 7
"""Bootstrap draws: a window looked at twice gives the same interval."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What labels (or, without them, the scores) say about a cohort."""

    standing: Standing = "unknown"
    body: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    severity: float = 0.0


def metric_of(objective: ObjectiveDef | None) -> str:
    """The metric that a monitor watches: its objective's, or AUC."""
    return objective.metric if objective else DEFAULT_METRIC


def judge(
    ctx: Context,
    monitor: MonitorDef,
    window: Window,
    objective: ObjectiveDef | None,
    against: tuple[str, Baseline, float],
) -> Judged:
    """The cohort that became mature during the window: its predictions are older than the label's delay at the end."""
    if monitor.label is None:
        return Judged()
    revision, baseline, level = against
    cohort_window = window.earlier(monitor.label.length)
    seen = observe(ctx, monitor.endpoint, cohort_window.start, cohort_window.until).answered_by(revision)
    body: dict[str, Any] = {"cohort": str(cohort_window), "rows": seen.rows}
    figures: dict[str, float] = {}
    then = _known(ctx, monitor, seen, window.until)
    now = _known(ctx, monitor, seen, max(window.until, ctx.now()))
    metric = metric_of(objective)
    rng = np.random.default_rng(_SEED)
    measured: dict[str, Figure | None] = {}
    for name, known in (("then", then), ("now", now)):
        keep = known.judged & ~np.isnan(known.scores)
        figure = performance.measure(metric, known.labels[keep], known.scores[keep], rng=rng, level=1 - 2 * level)
        measured[name] = figure
        body[f"known_{name}"] = {
            "coverage": None if np.isnan(known.coverage) else round(known.coverage, 4),
            "figure": figure.body() if figure else None,
        }
    keep = now.judged & ~np.isnan(now.scores)
    body["slices"] = _slices(monitor, seen, now, metric, rng)
    if baseline.chances is not None and metric in ("roc_auc", "accuracy"):
        drifted = performance.calibration(now.labels[keep], now.scores[keep])
        body["calibration"] = drifted.body() if drifted else None
        estimates = _estimates(seen, baseline.chances, _past_error(ctx, monitor))
        body["estimates"] = [estimate.body() for estimate in estimates]
        real = measured["now"]
        for estimate in estimates:
            figures[f"estimated_{estimate.metric}"] = estimate.value
            if estimate.metric == "roc_auc" and real is not None and real.metric == "roc_auc":
                figures["estimate_error"] = abs(estimate.value - real.value)
    figure = measured["now"]
    bounds = {"at_least": objective.at_least, "at_most": objective.at_most} if objective else {}
    standing = performance.standing(figure, **bounds) if objective else "unknown"
    body["objective"] = str(objective) if objective else None
    body["standing"] = standing
    if figure is None:
        return Judged("unknown", body, figures, "too few labels to judge")
    figures[metric] = figure.value
    text = f"{metric} {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f}, {figure.rows:,} labels)"
    severity = abs(figure.value - objective.bound) / max(1e-9, figure.high - figure.low) if objective else 0.0
    return Judged(standing, body, figures, text + (f" against {objective}" if objective else ""), 1 + severity)


def _known(ctx: Context, monitor: MonitorDef, seen: Observed, at: Micros) -> performance.Cohort:
    assert monitor.label is not None
    labels, moments = labels_of(ctx, seen, at)
    return performance.cohort(seen.at, seen.scores, labels, moments, delay=monitor.label.length, known=at)


def _estimates(seen: Observed, chances: Calibrator, error: float) -> list[Estimate]:
    """What scores alone say of a cohort; `error` is the mean error of earlier estimates of AUC."""
    scores = seen.scores[~np.isnan(seen.scores)]
    if scores.size < _LEAST_SCORES:
        return []
    likely = chances(scores)
    return [estimate_auc(scores, likely, error=error), estimate_accuracy(likely, float(chances(0.5)))]


def _past_error(ctx: Context, monitor: MonitorDef) -> float:
    with ctx.read() as tx:
        past = [e.figures.get("estimate_error") for e in rows.evaluations(tx, ctx.project, monitor.name, limit=12)]
    errors = [error for error in past if error is not None]
    return float(np.mean(errors)) if errors else 0.0


def _slices(
    monitor: MonitorDef, seen: Observed, cohort: performance.Cohort, metric: str, rng: np.random.Generator
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for column in monitor.slices:
        values = seen.columns.get(column)
        if values is None:
            continue
        text = np.array([str(v) for v in values])
        names, counts = np.unique(text, return_counts=True)
        for name in names[np.argsort(-counts)][:_MOST_SLICES]:
            keep = cohort.judged & (text == name) & ~np.isnan(cohort.scores)
            figure = performance.measure(metric, cohort.labels[keep], cohort.scores[keep], rng=rng)
            found.append({"slice": f"{column}={name}", "figure": figure.body() if figure else None})
    return found

"""The report on a set of first models, as it was recorded."""

import json
from typing import Any

from everloop.catalog import steps, versions
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import experiments, querying
from everloop.core.errors import NotFound
from everloop.models.baseline.definitions import missing

PARENT, STATE, WHY = "mlflow.parentRunId", "everloop.trial.state", "everloop.trial.why"


class ShowBaseline(Command):
    """The name of the model that `everloop baseline` made."""

    name: str


class Tried(Answer):
    """One algorithm, as cross-validation judged it."""

    algorithm: str
    state: str
    run: str
    chosen: bool
    score: float | None
    spread: float | None
    """Standard deviation over the folds."""
    interval: tuple[float, float] | None
    """95 %, by Student's t over the folds: about right, for folds share training rows."""
    folds: tuple[float, ...]
    metrics: dict[str, float]
    why: str


class BaselineView(Answer):
    """A report: what was tried, how good the model is on rows that nothing was chosen by, what matters, warnings."""

    name: str
    model: str
    label: str
    """The model's version, as people say it."""
    report: dict[str, Any]
    tried: tuple[Tried, ...]
    """The best first."""
    missing: dict[str, str]
    """Algorithms that are not installed here, with the distribution that each needs."""


@operation("baselines.show", needs="read", reads=True)
def show_baseline(ctx: Context, cmd: ShowBaseline) -> BaselineView:
    """Show the report on a set of first models. Raises `NotFound`."""
    with ctx.read() as tx:
        row = versions.find(tx, ctx.project, f"value/{cmd.name}_report")
        edges = {edge.role: edge.from_id for edge in versions.upstream(tx, ctx.project, row.id, 1)}
        model = edges.get("model", "")
        behind = {edge.role: edge.from_id for edge in versions.upstream(tx, ctx.project, model, 1)} if model else {}
        label = versions.labels(tx, ctx.project, [model]).get(model, "")
        made = steps.of_output(tx, ctx.project, behind.get("search", ""))
        home = next((i for i, n in experiments.names(tx, ctx.project).items() if n == f"{cmd.name}_search"), "")
        if not made or not home:
            raise NotFound(f"{cmd.name} was not made by `everloop baseline`", hint="everloop baseline TABLE --label …")
        wanted = f"tags.`{PARENT}` = '{made[0].run}'"
        runs = querying.search(tx, ctx.project, {home: cmd.name}, filter_text=wanted, limit=50).rows
        chosen = json.loads(ctx.store.get(str(versions.get(tx, ctx.project, made[0].output or "").manifest["object"])))
    report = json.loads(ctx.store.get(str(row.manifest["object"])))
    best = chosen["params"]["algorithm"]
    tried = [_tried(one, report["metric"], best) for one in runs]
    sign = -1.0 if report["way"] == "max" else 1.0
    tried.sort(key=lambda one: (one.score is None, sign * (one.score or 0.0), one.algorithm))
    return BaselineView(name=cmd.name, model=model, label=label, report=report, tried=tuple(tried), missing=missing())


def _tried(run: Any, metric: str, best: str) -> Tried:
    figures = {point.key: point.value for point in run.metrics}
    folds = [figures[key] for key in sorted(figures) if key.startswith("fold_") and key.endswith(f"/{metric}")]
    score, spread = figures.get(metric), figures.get(f"{metric}_spread")
    interval = None
    if score is not None and spread is not None and len(folds) > 1:
        half = _T.get(len(folds) - 1, 1.96) * spread / len(folds) ** 0.5
        interval = (score - half, score + half)
    return Tried(
        algorithm=run.params.get("algorithm", ""),
        state=run.tags.get(STATE, run.status.lower()),
        run=run.id,
        chosen=run.params.get("algorithm") == best,
        score=score,
        spread=spread,
        interval=interval,
        folds=tuple(folds),
        metrics={name: value for name, value in figures.items() if not name.startswith("fold_")},
        why=run.tags.get(WHY, ""),
    )


_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""The 97.5 % point of Student's t by degrees of freedom."""

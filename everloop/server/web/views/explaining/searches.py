"""Searches and first models: how the best was found, what it depends on, every trial; and the report on a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from everloop.catalog.context import Context
from everloop.catalog.operation import invoke
from everloop.flows.search.operations import SearchDetail, ShowSearch, TrialView
from everloop.server.web.charts import Chart, Row, Thing, bar_chart, line_chart, parallel_chart, scatter_chart
from everloop.server.web.views.tracking.compare import brushes_of, within
from everloop.server.web.visit import Visit

_AXES = 12
"""Columns of the parallel coordinates at most."""
_ROWS = 200
"""Trials of the table; the best first."""


def index(visit: Visit) -> Response:
    """Searches, newest first."""
    found = visit.ask("searches.list", limit=100).searches
    return visit.page("searches.html", title="Searches", here="/flows", searches=found)


def show(visit: Visit) -> Response:
    """One search."""
    found: SearchDetail = visit.ask("searches.show", search=visit.part("search"))
    metrics = [name for name, _ in found.search.metrics]
    metric = visit.query("metric")
    metric = metric if metric in metrics else metrics[0]
    way = dict(found.search.metrics)[metric]
    brushes = brushes_of(visit, [*found.space, *metrics])
    ranked = _ranked(found.trials, metric, way)
    return visit.page(
        "search_run.html",
        title=found.search.name,
        here="/flows",
        found=found,
        search=found.search,
        metrics=metrics,
        metric=metric,
        way=way,
        history=_history(found, metric, way),
        importance=_importance(found.importance.get(metric, {}), metric),
        parallel=_parallel(visit, found, metric, brushes),
        brushes=brushes,
        front=_front(visit, found, metrics) if len(metrics) > 1 else None,
        trials=ranked[:_ROWS],
        more=max(0, len(ranked) - _ROWS),
        open=found.search.status == "RUNNING",
        shorter=shorter,
    )


def baseline(visit: Visit) -> Response:
    """The report on a first model."""
    found = visit.ask("baselines.show", name=visit.part("name"))
    report = found.report
    losses = [(one["column"], max(one["loss"], 0.0)) for one in report["importance"][:12]]
    scores = report["scores"]
    return visit.page(
        "baseline.html",
        title=found.name,
        here="/models",
        found=found,
        report=report,
        importance=bar_chart({"loss": losses}, x="column", y=f"loss of {report['metric']} when shuffled"),
        scores=[(name, values, scores["trivial"].get(name)) for name, values in scores["model"].items()],
    )


def state(ctx: Context, search: str) -> str:
    """What an open page of a search watches; nothing once it has ended."""
    found: SearchDetail = invoke(ctx, "searches.show", ShowSearch(search=search))
    one = found.search
    return f"{one.trials} {one.done} {one.pruned} {one.failed}" if one.status == "RUNNING" else ""


def _ranked(trials: Sequence[TrialView], metric: str, way: str) -> list[TrialView]:
    """Trials with a value first, the best of them leading."""
    sign = -1.0 if way == "max" else 1.0
    return sorted(trials, key=lambda t: (t.state != "done", sign * t.metrics.get(metric, 0.0), t.number))


def _history(found: SearchDetail, metric: str, way: str) -> Chart | None:
    """The value of every trial, and the best so far."""
    values = [(float(t.number), t.metrics[metric]) for t in found.trials if t.state == "done" and metric in t.metrics]
    if not values:
        return None
    best: list[tuple[float, float]] = []
    for number, value in values:
        held = best[-1][1] if best else value
        best.append((number, max(held, value) if way == "max" else min(held, value)))
    series = {"best so far": best, "trial": values}
    return line_chart(series, x="trial", y=metric, kind="whole", title=f"{metric} by trial")


def _importance(shares: Mapping[str, float], metric: str) -> Chart | None:
    if not shares:
        return None
    ordered = sorted(shares.items(), key=lambda one: (-one[1], one[0]))[:_AXES]
    return bar_chart({"share": ordered}, x="parameter", y="share", title=f"What the best {metric} depends on")


def _parallel(visit: Visit, found: SearchDetail, metric: str, brushes: Mapping[str, Any]) -> Chart | None:
    """One axis a parameter and metric, one line a finished trial, coloured by the rank of the metric."""
    done = [one for one in found.trials if one.state == "done" and metric in one.metrics]
    if len(done) < 2:
        return None
    ways = dict(found.search.metrics)
    columns = [*list(found.space)[: _AXES - len(ways)], *ways]
    order = sorted({one.metrics[metric] for one in done}, reverse=ways[metric] == "min")
    place = {value: number / max(len(order) - 1, 1) for number, value in enumerate(order)}
    rows = []
    for one in done:
        values = {name: _plain(one.params.get(name)) for name in found.space} | dict(one.metrics)
        out = any(not within(values.get(column), bounds) for column, bounds in brushes.items())
        shade = None if out else place[one.metrics[metric]]
        rows.append(Row(f"trial {one.number}", values, visit.at("runs", one.run), shade, out))
    zoom = visit.zoom("brush", read=False)
    return parallel_chart(rows, columns, title=f"{len(rows)} trials", brushes=brushes, zoom=zoom)


def _front(visit: Visit, found: SearchDetail, metrics: list[str]) -> Chart | None:
    """Two metrics against each other; those that no other trial is better than in all are coloured."""
    x, y = metrics[:2]
    things = [
        Thing(
            f"trial {t.number}",
            t.metrics.get(x),
            t.metrics.get(y),
            visit.at("runs", t.run),
            1.0 if t.best else 0.0,
        )
        for t in found.trials
        if t.state == "done"
    ]
    return scatter_chart(things, x=x, y=y, title="Pareto front") if things else None


def shorter(text: str) -> str:
    """A parameter in six digits at most, where it is a number."""
    value = _plain(text)
    return f"{value:.6g}" if isinstance(value, float) else text


def _plain(text: str | None) -> float | str | None:
    """A parameter as the tracking store holds it, as a number where it is one."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text

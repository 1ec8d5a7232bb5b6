"""Searches and first models: what was tried, and what was best."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from everloop.cli.assets import Cluster, opened, shown
from everloop.cli.output import output
from everloop.cli.session import session
from everloop.workspace.direct import user_name
from everloop.workspace.flows import baselines
from everloop.workspace.flows.baselines import Asked

searches = typer.Typer(help="Searches: the best of many trials of a step.", no_args_is_help=True)
_COLUMNS = ["name", "status", "trials", "done", "pruned", "failed", "reused", "best", "started", "run"]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(searches, name="searches")
    app.command()(baseline)


@searches.command("list")
def list_searches(
    name: Annotated[str, typer.Argument(help="A step; empty lists all.")] = "",
    limit: Annotated[int, typer.Option("--limit", help="How many, newest first.")] = 20,
) -> None:
    """Searches, newest first."""
    with session.client() as client:
        found = client.call("searches.list", name=name, limit=limit).searches
    rows = [one.model_dump(mode="json") | {"best": _numbers(one.best)} for one in found]
    output.rows(rows, _COLUMNS, empty="nothing was searched yet")


@searches.command("show")
def show(
    search: Annotated[str, typer.Argument(help="The name of a step, or the id of a search's run.")],
    limit: Annotated[int, typer.Option("--limit", help="How many trials, the best first.")] = 20,
) -> None:
    """A search: its trials, the best first, and which parameters matter."""
    with session.client() as client:
        found = client.call("searches.show", search=search)
    if output.as_json:
        output.show(found)
        return
    one = found.search
    ways = ", ".join(f"{name} ({'more' if way == 'max' else 'less'} is better)" for name, way in one.metrics)
    output.say(f"[bold]{one.name}[/] {one.status.lower()}: {one.trials} trials by {one.sampler}; {ways}")
    names = [name for name, _ in one.metrics]
    sign = -1.0 if one.metrics[0][1] == "max" else 1.0
    ranked = sorted(found.trials, key=lambda t: (t.state != "done", sign * t.metrics.get(names[0], 0.0), t.number))
    rows = [
        {
            "trial": f"{t.number}{' *' if t.best else ''}",
            "state": t.state + (", reused" if t.reused else ""),
            **{name: t.metrics.get(name) for name in names},
            "parameters": ", ".join(f"{k}={v}" for k, v in t.params.items()),
            "why": t.why,
        }
        for t in ranked[:limit]
    ]
    output.rows(rows, ["trial", "state", *names, "parameters", "why"], empty="no trial yet")
    for metric, shares in found.importance.items():
        told = ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda s: -s[1]))
        output.say(f"what {metric} depends on: {told}")


def baseline(
    table: Annotated[str, typer.Argument(help="A file, a pattern of files, or a dataset of the workspace.")],
    *,
    label: Annotated[str, typer.Option("--label", help="The column to predict.")],
    time: Annotated[str, typer.Option("--time", help="When a row's question is asked: splits go by time.")] = "",
    group: Annotated[str, typer.Option("--group", help="Rows of one value stay on one side of every split.")] = "",
    name: Annotated[str, typer.Option("--name", help="Of the model; else table and label.")] = "",
    task: Annotated[str, typer.Option("--task", help="binary, classes or numbers; else read off the label.")] = "",
    on: Annotated[str, typer.Option("--on", help="The sandbox to build on; by default your own.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of splits and models.")] = 0,
    try_: Annotated[
        list[str] | None, typer.Option("--try", help="An algorithm to try; all that are installed when left out.")
    ] = None,
    ray: Cluster = "",
) -> None:
    """A first model of a table, to be beaten: every algorithm cross-validated, the best kept, a report."""
    how: dict[str, Any] = {"time": time, "group": group, "name": name, "task": task, "seed": seed}
    asked = Asked(table, label, on or f"sandbox/{user_name()}/main", **how, algorithms=tuple(try_ or ()), cluster=ray)
    with opened() as (workspace, _):
        ctx = session.context(workspace, asked.environment)
        with output.progress("looking at the table") as steps:
            made = baselines.baseline(ctx, asked, root=session.root, progress=shown(steps), say=steps.step)
        with session.client() as client:
            found = client.call("baselines.show", name=made.name)
    if output.as_json:
        output.show(found)
        return
    _tell(found)
    output.say(f"[bold]{asked.environment}[/] holds model/{made.name}; its page: /baselines/{made.name}")


def _tell(found: Any) -> None:
    report = found.report
    metric, rows = report["metric"], report["rows"]
    output.say(
        f"[bold]{found.label}[/]: {report['label']} ({report['task']}), {rows['training']} rows to train on, "
        f"{rows['holdout']} held out"
    )
    tried = [
        {
            "algorithm": one.algorithm + (" *" if one.chosen else ""),
            metric: one.score,
            "interval": _between(one.interval),
            "spread": one.spread,
            "state": one.state + (f": {one.why}" if one.why else ""),
        }
        for one in found.tried
    ]
    output.rows(tried, ["algorithm", metric, "interval", "spread", "state"], empty="nothing was tried")
    scores = [
        {"metric": measure, "model": _of(values), "trivial": _of(report["scores"]["trivial"].get(measure))}
        for measure, values in report["scores"]["model"].items()
    ]
    output.rows(scores, ["metric", "model", "trivial"], empty="")
    matters = [one for one in report["importance"] if one["loss"] > 0][:8]
    output.say("what matters: " + (", ".join(f"{one['column']} {one['loss']:.4f}" for one in matters) or "nothing"))
    for warning in report["warnings"]:
        output.say(f"[yellow]{escape(warning)}[/]")
    for algorithm, package in found.missing.items():
        output.say(f"[dim]{algorithm} was not tried: {package} is not installed[/]")


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _between(interval: Any) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _of(values: Any) -> str:
    return "" if not values or values[1] is None else f"{values[1]:.4f} ({values[0]:.4f} to {values[2]:.4f})"

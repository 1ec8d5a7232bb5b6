"""Runs as operations, for pages, the CLI and the SDK: what was tried, with which parameters, and how it went.

MLflow's protocol is in `server.mlflow`; both read the same storage. A value that JSON cannot say as a number is the
text `NaN`, `Infinity` or `-Infinity`.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import artifacts, experiments, points, querying, runs
from everloop.catalog.tracking.rows import Experiment, Run
from everloop.core.clock import iso
from everloop.core.grants import Target

Number = float | str
"""A measured value; the three that JSON lacks are texts."""


class ListExperiments(Command):
    """Which experiments to list."""

    view: Literal["active", "deleted", "all"] = "active"
    limit: int = Field(default=100, ge=1, le=1000)
    token: str = ""


class ListRuns(Command):
    """Which runs to list, in MLflow's filter language."""

    experiment: str = ""
    """Its id or its name; empty means every experiment."""
    filter: str = ""
    order_by: tuple[str, ...] = ()
    view: Literal["active", "deleted", "all"] = "active"
    limit: int = Field(default=100, ge=1, le=1000)
    token: str = ""


class RunNamed(Command):
    """A run, by its id."""

    run: str


class ReadSeries(Command):
    """One metric of some runs, thinned in one of two ways.

    `thin="steps"` takes about `most` steps that are the same for all runs, for comparing them step by step;
    `thin="shape"` takes at most `most` points of each run: the first, last, least and greatest of every stretch, so
    that no spike is lost and the ends are exact, for drawing curves.
    """

    runs: tuple[str, ...] = Field(min_length=1, max_length=100)
    metric: str
    start: int | None = None
    end: int | None = None
    most: int = Field(default=320, ge=2, le=2500)
    thin: Literal["steps", "shape"] = "steps"


class ExperimentView(Answer):
    """An experiment, as people see it."""

    id: str
    name: str
    stage: str
    created: str
    updated: str
    tags: dict[str, str]


class ExperimentPage(Answer):
    """Some experiments, and the token of the next page; empty when this was the last."""

    experiments: tuple[ExperimentView, ...]
    token: str


class RunView(Answer):
    """A run, as people see it. `metrics` holds the newest value of each."""

    id: str
    name: str
    experiment: str
    experiment_name: str
    status: str
    stage: str
    actor: str
    start: str
    end: str | None
    seconds: float | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, Number]


class RunPage(Answer):
    """Some runs, and the token of the next page; empty when this was the last."""

    runs: tuple[RunView, ...]
    token: str


class ArtifactView(Answer):
    """A file that a run left."""

    path: str
    object: str
    size: int


class DatasetView(Answer):
    """A dataset that a run read, as its client described it."""

    name: str
    digest: str
    source_type: str
    tags: dict[str, str]


class RunDetail(Answer):
    """A run with its files, the datasets that it read, and the logged models that it read and wrote."""

    run: RunView
    artifacts: tuple[ArtifactView, ...]
    datasets: tuple[DatasetView, ...]
    models_in: tuple[str, ...]
    models_out: tuple[str, ...]


class Series(Answer):
    """One metric of one run, by step: lists of one length. Times are microseconds."""

    run: str
    steps: tuple[int, ...]
    times: tuple[int, ...]
    values: tuple[Number, ...]


class SeriesList(Answer):
    """One metric of some runs, in the order in which they were asked for."""

    metric: str
    series: tuple[Series, ...]


def _run(_ctx: Context, cmd: RunNamed) -> Target:
    return Target("run", cmd.run)


def _runs(_ctx: Context, cmd: ReadSeries) -> Target:
    return Target("run", cmd.runs[0] if len(cmd.runs) == 1 else "*")


@operation("experiments.list", needs="read", on=lambda _ctx, _cmd: Target("experiment"), reads=True)
def list_experiments(ctx: Context, cmd: ListExperiments) -> ExperimentPage:
    """List experiments, those that changed last first."""
    with ctx.read() as tx:
        found = experiments.search(tx, ctx.project, view=cmd.view, limit=cmd.limit, token=cmd.token)
    return ExperimentPage(experiments=tuple(_experiment_view(one) for one in found.rows), token=found.token)


@operation("runs.list", needs="read", on=lambda _ctx, _cmd: Target("run"), reads=True)
def list_runs(ctx: Context, cmd: ListRuns) -> RunPage:
    """List runs, the newest first unless told otherwise."""
    with ctx.read() as tx:
        names = _meant(tx, ctx.project, cmd.experiment)
        found = querying.search(
            tx,
            ctx.project,
            names,
            filter_text=cmd.filter,
            order_by=cmd.order_by,
            view=cmd.view,
            limit=cmd.limit,
            token=cmd.token,
        )
    return RunPage(runs=tuple(run_view(one, names[one.experiment]) for one in found.rows), token=found.token)


@operation("runs.show", needs="read", on=_run, reads=True)
def show_run(ctx: Context, cmd: RunNamed) -> RunDetail:
    """Show one run with all that it holds."""
    with ctx.read() as tx:
        found = runs.get(tx, ctx.project, cmd.run)
        home = experiments.get(tx, ctx.project, found.experiment)
        files = artifacts.tree(tx, ctx.project, found.id)
    return RunDetail(
        run=run_view(found, home.name),
        artifacts=tuple(ArtifactView(path=one.path, object=one.object, size=one.size) for one in files),
        datasets=tuple(
            DatasetView(name=one.name, digest=one.digest, source_type=one.source_type, tags=dict(one.tags))
            for one in found.datasets
        ),
        models_in=tuple(link.model for link in found.models_in),
        models_out=tuple(link.model for link in found.models_out),
    )


@operation("runs.series", needs="read", on=_runs, reads=True)
def read_series(ctx: Context, cmd: ReadSeries) -> SeriesList:
    """Read one metric of some runs, thinned for a chart."""
    between: dict[str, Any] = {"start": cmd.start, "end": cmd.end, "most": cmd.most}
    with ctx.read() as tx:
        if cmd.thin == "steps":
            found = points.history_at_steps(tx, ctx.project, cmd.runs, cmd.metric, **between)
        else:
            each = (
                points.history_thinned(tx, ctx.project, run, cmd.metric, **between) for run in dict.fromkeys(cmd.runs)
            )
            found = [point for many in each for point in many]
    series = []
    for run in dict.fromkeys(cmd.runs):
        mine = [point for point in found if point.run == run]
        series.append(
            Series(
                run=run,
                steps=tuple(point.step for point in mine),
                times=tuple(point.at for point in mine),
                values=tuple(json_number(point.value) for point in mine),
            )
        )
    return SeriesList(metric=cmd.metric, series=tuple(series))


def _meant(tx: Tx, project: str, experiment: str) -> Mapping[str, str]:
    """Name by id of the experiments that are meant; raises `NotFound`."""
    if not experiment:
        return experiments.names(tx, project)
    if experiment.isdigit():
        found = experiments.get(tx, project, experiment)
    else:
        found = experiments.by_name(tx, project, experiment)
    return {found.id: found.name}


def _experiment_view(one: Experiment) -> ExperimentView:
    return ExperimentView(
        id=one.id,
        name=one.name,
        stage=one.stage,
        created=iso(one.created),
        updated=iso(one.updated),
        tags=dict(one.tags),
    )


def run_view(run: Run, experiment: str) -> RunView:
    """The run as people see it, in the experiment of that name."""
    return RunView(
        id=run.id,
        name=run.name,
        experiment=run.experiment,
        experiment_name=experiment,
        status=run.status,
        stage=run.stage,
        actor=run.actor,
        start=iso(run.start),
        end=None if run.end is None else iso(run.end),
        seconds=None if run.end is None else (run.end - run.start) / 1_000_000,
        params=dict(run.params),
        tags=dict(run.tags),
        metrics={point.key: json_number(point.value) for point in run.metrics},
    )


def json_number(value: float) -> Number:
    """The value as JSON can say it."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"

"""Runs as operations."""

import json
import math

import pytest

from everloop.catalog.operation import invoke
from everloop.catalog.tracking import artifacts, experiments, points, runs
from everloop.catalog.tracking.rows import Point
from everloop.core.errors import InvalidInput, NotFound, PermissionDenied
from everloop.core.ids import object_id
from everloop.models import runs as operations


@pytest.fixture
def made(context):
    """Three runs of the experiment `tuning`, with a metric of different values."""
    with context.write() as tx:
        home = experiments.create(tx, context.project, "tuning", at=1)
        found = []
        for index, value in enumerate((0.5, math.nan, math.inf)):
            run = runs.create(tx, context.project, experiment=home, actor="ada", at=1_000_000 * index)
            points.log(tx, context.project, run.number, [Point("auc", value, step, step) for step in range(1000)])
            found.append(run.id)
        artifacts.put(tx, context.project, found[0], "a/b", identity=object_id(b"x"), size=1, at=1)
        runs.finish(tx, context.project, found[0], status="FINISHED", at=2_500_000)
    return found


def test_runs_are_listed_by_experiment_and_filter(context, made):
    every = invoke(context, "runs.list", operations.ListRuns())
    assert [run.id for run in every.runs] == made[::-1]
    assert every.runs[0].experiment_name == "tuning"
    for experiment in ("tuning", "1"):
        found = invoke(context, "runs.list", operations.ListRuns(experiment=experiment, filter="metrics.auc < 1"))
        assert [run.id for run in found.runs] == made[:1]
    first = invoke(context, "runs.list", operations.ListRuns(limit=2))
    rest = invoke(context, "runs.list", operations.ListRuns(limit=2, token=first.token))
    assert [run.id for run in (*first.runs, *rest.runs)] == made[::-1]
    assert rest.token == ""
    with pytest.raises(NotFound):
        invoke(context, "runs.list", operations.ListRuns(experiment="nothing"))
    with pytest.raises(InvalidInput):
        invoke(context, "runs.list", operations.ListRuns(filter="nonsense"))


def test_a_run_is_shown_with_its_files(context, made):
    found = invoke(context, "runs.show", operations.RunNamed(run=made[0]))
    assert (found.run.status, found.run.seconds) == ("FINISHED", 2.5)
    assert [(file.path, file.size) for file in found.artifacts] == [("a/b", 1)]


def test_series_are_thinned_and_every_number_is_json(context, made):
    found = invoke(context, "runs.series", operations.ReadSeries(runs=made, metric="auc", most=10))
    assert [series.run for series in found.series] == made
    assert {len(series.steps) for series in found.series} == {10}
    assert [series.values[0] for series in found.series] == [0.5, "NaN", "Infinity"]
    assert json.loads(found.model_dump_json())["series"][1]["values"][0] == "NaN"


def test_experiments_are_listed(context, made):
    found = invoke(context, "experiments.list", operations.ListExperiments())
    assert [one.name for one in found.experiments] == ["tuning", "Default"]


def test_who_may_not_read_is_refused(context_of, sqlite_catalog):
    stranger = context_of(sqlite_catalog, roles=[])
    with pytest.raises(PermissionDenied):
        invoke(stranger, "runs.list", operations.ListRuns())

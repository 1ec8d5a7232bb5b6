"""Several runs at once: what each was given, measured and made from, so that one can see in what they differ."""

from pydantic import Field

from everloop.catalog import steps, versions
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.steps import StepRow
from everloop.catalog.tracking import experiments, runs
from everloop.catalog.tracking.rows import Run
from everloop.core.grants import Target
from everloop.models.runs import RunView, run_view

MOST = 100
"""Runs that are compared at once."""
_COMMIT, _SOURCE, _RECIPE = "mlflow.source.git.commit", "mlflow.source.name", "everloop.recipe"


class CompareRuns(Command):
    """Which runs to compare."""

    runs: tuple[str, ...] = Field(min_length=1, max_length=MOST)


class ComparedRun(Answer):
    """A run, and where it came from as far as that was recorded: names of versions, commits, digests."""

    run: RunView
    code: dict[str, str]
    environment: dict[str, str]
    inputs: dict[str, str]


class Comparison(Answer):
    """The runs in the order asked for, each once."""

    runs: tuple[ComparedRun, ...]


@operation("runs.compare", needs="read", on=lambda _ctx, _cmd: Target("run", "*"), reads=True)
def compare_runs(ctx: Context, cmd: CompareRuns) -> Comparison:
    """Read several runs with their code, environment and data inputs."""
    with ctx.read() as tx:
        found = runs.get_many(tx, ctx.project, cmd.runs)
        names = experiments.names(tx, ctx.project)
        recipes = {run.id: run.tags[_RECIPE] for run in found if _RECIPE in run.tags}
        ran = steps.behind(tx, ctx.project, recipes)
        pinned = {i for step in ran.values() for i in (step.code, step.runtime, *step.inputs.values())}
        labels = versions.labels(tx, ctx.project, pinned - {""})
    return Comparison(runs=tuple(_compared(run, names, ran.get(run.id), labels) for run in found))


def _compared(run: Run, names: dict[str, str], step: StepRow | None, labels: dict[str, str]) -> ComparedRun:
    code = {key: run.tags[tag] for key, tag in (("commit", _COMMIT), ("source", _SOURCE)) if tag in run.tags}
    environment: dict[str, str] = {}
    inputs = {f"{one.name}": one.digest for one in run.datasets}
    if step is not None:
        code |= {"code": labels.get(step.code, step.code)}
        environment |= {"environment": labels.get(step.runtime, step.runtime)}
        inputs |= {name: labels.get(identity, identity) for name, identity in step.inputs.items()}
    return ComparedRun(
        run=run_view(run, names.get(run.experiment, run.experiment)), code=code, environment=environment, inputs=inputs
    )

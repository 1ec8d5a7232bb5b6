"""Running checks: their parameters resolved to models, frames and tables, their function taken from the proposal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.changes.heads.contracts import is_contract
from everloop.changes.heads.judging import judge_contract
from everloop.changes.reviewing import due_check
from everloop.checks.execute import execute
from everloop.checks.record import ResultView, record_finding
from everloop.checks.request import CheckRequest, Finding
from everloop.core.errors import NotFound
from everloop.core.ids import short
from everloop.data.reading.forms import read
from everloop.models.predictor import Predictor, load, materialize
from everloop.workspace.code import project_of


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as a check function sees it (`checks.definitions.Candidate`)."""

    name: str
    id: str
    manifest: Mapping[str, Any]
    predictor: Predictor

    @property
    def label(self) -> str:
        """The column that it predicts."""
        return str(self.manifest["label"])

    def predict(self, frame: Any) -> Any:
        """One value a row of a Polars frame."""
        names = [field.name for field in self.predictor.inputs]
        return self.predictor.scores({name: frame[name].to_numpy() for name in names})


def run_change_check(ctx: Context, asked: CheckRequest) -> ResultView:
    """Execute one check of a change as the catalog asks for it now, and record the result. Only workers may.

    The check function is user code and runs here: call this in a task's process. Raises `Conflict` when the change
    does not need the check that was asked for.
    """
    request = due_check(ctx, asked)
    return record_finding(ctx, request, examine(ctx, request))


def examine(ctx: Context, request: CheckRequest) -> Finding:
    """Execute one check with the code of its snapshot and record nothing; user code runs in this process."""
    if is_contract(request):
        return judge_contract(ctx, request)
    module = request.function.partition(":")[0]
    project, _ = project_of(ctx, request.origin_snapshot or request.head, module)
    check = project.checks.get(request.name)
    if check is None:
        raise NotFound(
            f"the code of this snapshot defines no check {request.name!r}",
            hint="was the project built with another module?",
        )
    return execute(request, check.function, resolver(ctx))


def resolver(ctx: Context) -> Callable[[str, CheckRequest], Any]:
    """Gives the value of a check's parameter: a loaded model, a frame, a lazy table, a manifest, or None."""

    def resolve(parameter: str, request: CheckRequest) -> Any:
        if parameter in request.heads:
            return read(ctx, request.heads[parameter])
        identity = request.subjects[parameter]
        return value_of(ctx, identity) if identity else None

    return resolve


def value_of(ctx: Context, identity: str) -> Any:
    """A version as a check sees it."""
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, identity)
    if row.kind == "model":
        folder = materialize(row.manifest, ctx.store, model_folder(ctx, identity))
        return LoadedModel(row.name, identity, row.manifest, load(folder))
    if row.kind == "frame":
        return read(ctx, identity).collect()
    return read(ctx, identity) if row.kind == "data" else row.manifest


def model_folder(ctx: Context, identity: str) -> Path:
    """Where a model's files lie once they were needed on this machine."""
    return ctx.home / "cache" / "models" / short(identity)

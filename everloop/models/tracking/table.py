"""Tables of runs: a page of rows with chosen columns, and which columns there are to choose from."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from everloop.catalog.browsing import cells
from everloop.catalog.browsing.cells import Kind
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import experiments, inputs, querying
from everloop.catalog.tracking.runs import run_of
from everloop.core.clock import iso
from everloop.core.errors import InvalidInput
from everloop.core.grants import Target
from everloop.models.runs import Number, json_number

COUNTED = 20_000
"""Matches are counted up to here; beyond, the answer says that there are more."""
LOOKED_AT = 2_000
"""Runs whose keys are counted for the choice of columns: the newest."""
MOST_COLUMNS = 60
_CODE, _COMMIT, _PARENT = "everloop.code", "mlflow.source.git.commit", "mlflow.parentRunId"


class TableOfRuns(Command):
    """Which runs, in which order, and what to show of each."""

    experiments: tuple[str, ...] = Field(default=(), max_length=1000)
    """Ids or names; none means every experiment that is not deleted."""
    filter: str = ""
    """In MLflow's filter language."""
    order_by: tuple[str, ...] = ()
    columns: tuple[str, ...] = Field(default=(), max_length=MOST_COLUMNS)
    """`metrics.<key>`, `params.<key>` or `tags.<key>`."""
    view: Literal["active", "deleted", "all"] = "active"
    limit: int = Field(default=100, ge=1, le=1000)
    token: str = ""
    count: bool = True
    """Whether to count all that match; a following page need not."""


class DatasetNamed(Answer):
    """A dataset that a run read."""

    name: str
    digest: str


class RunRow(Answer):
    """A run in a table; `cells` holds one value a column, None where the run has none."""

    id: str
    name: str
    experiment: str
    experiment_name: str
    status: str
    stage: str
    actor: str
    start: str
    seconds: float | None
    code: str
    """The code version's id or the commit, where one was recorded."""
    parent: str
    inputs: tuple[DatasetNamed, ...]
    cells: tuple[Number | None, ...]


class RunTable(Answer):
    """A page of runs, the token of the next (empty after the last), and how many runs match in all."""

    rows: tuple[RunRow, ...]
    token: str
    total: int | None
    """None when it was not asked for."""
    more: bool
    """Whether more match than `total`, which is where counting stopped."""


class ColumnsOfRuns(Command):
    """Of which experiments' runs to list the keys."""

    experiments: tuple[str, ...] = Field(default=(), max_length=1000)


class KeyCount(Answer):
    """A key and how many of the runs have it."""

    key: str
    runs: int


class Columns(Answer):
    """The keys that runs have, the commonest first."""

    runs: int
    """How many runs were looked at: the newest ones."""
    whole: bool
    """Whether there are no others."""
    metrics: tuple[KeyCount, ...]
    params: tuple[KeyCount, ...]
    tags: tuple[KeyCount, ...]


@operation("runs.table", needs="read", on=lambda _ctx, _cmd: Target("run"), reads=True)
def table_of_runs(ctx: Context, cmd: TableOfRuns) -> RunTable:
    """List runs with chosen columns, the newest first unless told otherwise."""
    chosen = [_column(one) for one in cmd.columns]
    with ctx.read() as tx:
        names = meant(tx, ctx.project, cmd.experiments)
        found = querying.search_rows(
            tx,
            ctx.project,
            names,
            filter_text=cmd.filter,
            order_by=cmd.order_by,
            view=cmd.view,
            limit=cmd.limit,
            token=cmd.token,
        )
        total = None
        if cmd.count:
            total = querying.count(tx, ctx.project, names, filter_text=cmd.filter, view=cmd.view, most=COUNTED)
        plain = [run_of(row) for row in found.rows]
        numbers = [run.number for run in plain]
        values: dict[tuple[int, str], Number] = {
            (number, f"metrics.{key}"): json_number(value)
            for (number, key), value in cells.metrics_of(tx, numbers, _keys(chosen, "metrics")).items()
        }
        for kind in ("params", "tags"):
            texts = cells.texts_of(tx, kind, numbers, _keys(chosen, kind))
            values |= {(number, f"{kind}.{key}"): text for (number, key), text in texts.items()}
        told = cells.texts_of(tx, "tags", numbers, (_CODE, _COMMIT, _PARENT))
        datasets = inputs.datasets_of(tx, numbers)
    rows = tuple(
        RunRow(
            id=run.id,
            name=run.name,
            experiment=run.experiment,
            experiment_name=names[run.experiment],
            status=run.status,
            stage=run.stage,
            actor=run.actor,
            start=iso(run.start),
            seconds=None if run.end is None else (run.end - run.start) / 1_000_000,
            code=told.get((run.number, _CODE)) or told.get((run.number, _COMMIT), ""),
            parent=told.get((run.number, _PARENT), ""),
            inputs=tuple(DatasetNamed(name=one.name, digest=one.digest) for one in datasets.get(run.number, ())),
            cells=tuple(values.get((run.number, column)) for column in cmd.columns),
        )
        for run in plain
    )
    more = total is not None and total > COUNTED
    return RunTable(rows=rows, token=found.token, total=COUNTED if more else total, more=more)


@operation("runs.columns", needs="read", on=lambda _ctx, _cmd: Target("run"), reads=True)
def columns_of_runs(ctx: Context, cmd: ColumnsOfRuns) -> Columns:
    """List the parameters, metrics and tags that runs have, with how many have each."""
    with ctx.read() as tx:
        found = cells.keys(tx, ctx.project, meant(tx, ctx.project, cmd.experiments), most=LOOKED_AT)
    return Columns(
        runs=found.runs,
        whole=found.whole,
        metrics=_counted(found.metrics),
        params=_counted(found.params),
        tags=_counted(found.tags),
    )


def meant(tx: Tx, project: str, wanted: tuple[str, ...]) -> Mapping[str, str]:
    """Name by id of the experiments that are meant; raises `NotFound`."""
    if not wanted:
        return experiments.names(tx, project)
    found = {}
    for one in wanted:
        home = experiments.get(tx, project, one) if one.isdigit() else experiments.by_name(tx, project, one)
        found[home.id] = home.name
    return found


def _column(text: str) -> tuple[Kind, str]:
    kind, dot, key = text.partition(".")
    for known in cells.KINDS:
        if known == kind and dot and key:
            return known, key
    raise InvalidInput(f"{text!r} is no column", hint="metrics.<key>, params.<key> or tags.<key>")


def _keys(chosen: list[tuple[Kind, str]], kind: Kind) -> list[str]:
    return [key for of, key in chosen if of == kind]


def _counted(counts: Mapping[str, int]) -> tuple[KeyCount, ...]:
    return tuple(KeyCount(key=key, runs=held) for key, held in counts.items())

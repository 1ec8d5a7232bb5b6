"""Runs: mutable rows with parameters, tags and the newest point of each metric."""

import math
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Executable, Row, Table, bindparam, delete, select, update

from everloop.catalog.engine import Tx, insert_for
from everloop.catalog.keeping import removal
from everloop.catalog.tables.tracking import run_params, run_tags, runs
from everloop.catalog.tracking import experiments, inputs, points
from everloop.catalog.tracking.rows import STATUSES, Point, Run
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, InvalidInput, NotFound

NAME_TAG = "mlflow.runName"
"""MLflow keeps a run's name twice; whoever sets one of the two sets both."""

_ID = re.compile(r"[0-9a-f]{32}")
_ADJECTIVES = (
    "able amber bold brisk calm clear deft early fair fleet keen lucid mild neat prime quick rare sharp sure wise"
)
_NOUNS = "ash birch cove crane delta elm fjord gull heron isle kite lark mesa otter pine reef swift tern vale wren"


_BY_ID = select(runs).where(runs.c.project == bindparam("project"), runs.c.id == bindparam("id"))  # built once


def create(
    tx: Tx,
    project: str,
    *,
    experiment: str,
    actor: str,
    at: Micros,
    name: str = "",
    tags: Mapping[str, str] | None = None,
    identity: str = "",
) -> Run:
    """Open a run in an active experiment; without a name it is given one.

    Raises `NotFound` or `InvalidInput` for the experiment, `InvalidInput` for two different names,
    `Conflict` when `identity` is taken.
    """
    root = experiments.artifact_root(tx, project, experiment)
    identity = identity or secrets.token_hex(16)
    if _ID.fullmatch(identity) is None:
        raise InvalidInput(f"{identity!r} is not a run id", hint="32 hexadecimal digits")
    named = dict(tags or {})
    if name and named.get(NAME_TAG, name) != name:
        raise InvalidInput(
            f"Both 'run_name' argument and '{NAME_TAG}' tag are specified, but with different values "
            f"(run_name='{name}', {NAME_TAG}='{named[NAME_TAG]}').",
            hint="give one of them",
        )
    named[NAME_TAG] = name or named.get(NAME_TAG) or invented_name(identity)
    row = {
        "project": project,
        "id": identity,
        "experiment": int(experiment),
        "name": named[NAME_TAG],
        "status": "RUNNING",
        "actor": actor,
        "stage": "active",
        "start": at,
        "artifact_uri": f"{root.rstrip('/')}/{identity}/artifacts",
    }
    made = tx.execute(_opening(tx.dialect.name), row).scalar()
    if made is None:
        raise Conflict(f"a run {identity} exists already", hint="resume it")
    put_values(tx, run_tags, made, named)
    return Run(
        number=made,
        id=identity,
        experiment=str(int(experiment)),
        name=named[NAME_TAG],
        status="RUNNING",
        actor=actor,
        stage="active",
        start=at,
        end=None,
        artifact_uri=str(row["artifact_uri"]),
        tags=named,
    )


def invented_name(identity: str) -> str:
    """A name for people, made from the digits of the id."""
    digits = int(identity, 16)
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    first, digits = adjectives[digits % len(adjectives)], digits // len(adjectives)
    return f"{first}-{nouns[digits % len(nouns)]}-{digits % 997}"


def get(tx: Tx, project: str, identity: str) -> Run:
    """The run with all that it holds, deleted or not; raises `NotFound`."""
    return loaded(tx, [_find(tx, project, identity)])[0]


def get_many(tx: Tx, project: str, identities: Sequence[str]) -> list[Run]:
    """These runs with all that they hold, deleted or not, in this order and each once; raises `NotFound`."""
    wanted = list(dict.fromkeys(identities))
    rows = {
        row.id: row
        for part in points.chunks(wanted)
        for row in tx.execute(select(runs).where(runs.c.project == project, runs.c.id.in_(part)))
    }
    for identity in wanted:
        if identity not in rows:
            raise NotFound(f"Run with id={identity} not found", hint="is it a run of this project?")
    return loaded(tx, [rows[identity] for identity in wanted])


def find(tx: Tx, project: str, identity: str) -> Run:
    """The run's own row, without parameters, tags and metrics; raises `NotFound`."""
    return run_of(_find(tx, project, identity))


def active(tx: Tx, project: str, identity: str) -> Run:
    """The run's own row, which must not be deleted; raises `NotFound` or `InvalidInput`."""
    found = find(tx, project, identity)
    if found.stage != "active":
        raise InvalidInput(
            f"The run {identity} must be in the 'active' state. Current state is {found.stage}.",
            hint="restore it first",
        )
    return found


def change(tx: Tx, project: str, identity: str, *, status: str = "", end: Micros | None = None, name: str = "") -> Run:
    """Set status, end or name of an active run; an empty value leaves it as it is. Raises `InvalidInput`."""
    run = active(tx, project, identity)
    if status and status not in STATUSES:
        raise InvalidInput(f"Invalid value '{status}' for parameter 'status' supplied", hint=", ".join(STATUSES))
    values: dict[str, Any] = {}
    if status:
        values["status"] = status
    if end is not None:
        values["end"] = end
    if name:
        values["name"] = name
        put_values(tx, run_tags, run.number, {NAME_TAG: name})
    if values:
        tx.execute(update(runs).where(runs.c.number == run.number).values(**values))
    return replace(run, **values)


def open_with(tx: Tx, project: str, key: str, value: str) -> list[str]:
    """Ids of running, active runs whose tag `key` holds `value`."""
    tagged = select(run_tags.c.parent).where(run_tags.c.key == key, run_tags.c.value == value)
    which = [runs.c.project == project, runs.c.status == "RUNNING", runs.c.stage == "active", runs.c.number.in_(tagged)]
    return list(tx.execute(select(runs.c.id).where(*which)).scalars())


def finish(tx: Tx, project: str, identity: str, *, status: str, at: Micros) -> Run:
    """Close a run with `FINISHED`, `FAILED` or `KILLED`."""
    return change(tx, project, identity, status=status, end=at)


def delete_run(tx: Tx, project: str, identity: str, *, at: Micros) -> None:
    """Hide a run; hiding it twice changes nothing."""
    mine = runs.c.number == find(tx, project, identity).number
    tx.execute(update(runs).where(mine, runs.c.stage == "active").values(stage="deleted", deleted=at))


def restore(tx: Tx, project: str, identity: str) -> None:
    """Show a hidden run again; raises `InvalidInput` when its files were freed since."""
    mine = runs.c.number == find(tx, project, identity).number
    if removal.is_freed(tx, project, f"run/{identity}"):
        raise InvalidInput(
            f"The run {identity} was deleted longer ago than the grace period, and its files are gone.",
            hint="its parameters, tags and metrics stay readable",
        )
    tx.execute(update(runs).where(mine).values(stage="active", deleted=None))


def log_params(tx: Tx, run: Run, params: Sequence[tuple[str, str]]) -> None:
    """Write parameters; the same value again is accepted, another one raises `InvalidInput` and writes nothing."""
    wanted: dict[str, str] = {}
    for key, value in params:
        if wanted.setdefault(key, value) != value:
            raise _param_differs(run, key, wanted[key], value)
    if not wanted:
        return
    rows = [{"parent": run.number, "key": key, "value": value} for key, value in sorted(wanted.items())]
    tx.execute(_adding(tx.dialect.name), rows)
    held = select(run_params).where(run_params.c.parent == run.number, run_params.c.key.in_(wanted))
    for row in tx.execute(held):
        if row.value != wanted[row.key]:
            raise _param_differs(run, row.key, row.value, wanted[row.key])


def set_tags(tx: Tx, run: Run, tags: Mapping[str, str]) -> None:
    """Set tags, replacing values; `mlflow.runName` renames the run."""
    put_values(tx, run_tags, run.number, tags)
    if tags.get(NAME_TAG):
        tx.execute(update(runs).where(runs.c.number == run.number).values(name=tags[NAME_TAG]))


def delete_tag(tx: Tx, run: Run, key: str) -> None:
    """Remove a tag; raises `NotFound` when it is not set."""
    gone = tx.execute(delete(run_tags).where(run_tags.c.parent == run.number, run_tags.c.key == key))
    if gone.rowcount == 0:
        raise NotFound(f"No tag with name: {key} in run with id {run.id}", hint="it may be gone already")


def loaded(tx: Tx, rows: Collection[Row[Any]]) -> list[Run]:
    """Runs of rows of the table, with parameters, tags, newest points and inputs, in a few queries for all of them."""
    return [replace(one.run, metrics=tuple(_newest(one.run.id, row) for row in one.metrics)) for one in bare(tx, rows)]


@dataclass(frozen=True, slots=True)
class Bare:
    """A run without its metrics, and the newest points as rows."""

    run: Run
    metrics: Sequence[points.Newest]


def bare(tx: Tx, rows: Collection[Row[Any]]) -> list[Bare]:
    """The same for who writes many runs into one answer: no value is made of each point."""
    numbers = [row.number for row in rows]
    params, tags = values_below(tx, run_params, numbers), values_below(tx, run_tags, numbers)
    metrics = points.newest_bare(tx, numbers)
    datasets, models = inputs.datasets_of(tx, numbers), inputs.models_of(tx, numbers)
    return [
        Bare(
            replace(
                run_of(row),
                params=params.get(row.number, {}),
                tags=tags.get(row.number, {}),
                datasets=datasets.get(row.number, ()),
                models_in=models.get((row.number, "in"), ()),
                models_out=models.get((row.number, "out"), ()),
            ),
            metrics.get(row.number, ()),
        )
        for row in rows
    ]


def _newest(run: str, row: points.Newest) -> Point:
    key, step, at, value, nan = row
    return Point(key, math.nan if nan else value, at, step, run=run)


def values_below(tx: Tx, table: Table, numbers: Collection[int]) -> dict[int, dict[str, str]]:
    """The texts by key below each parent, in the order of their keys."""
    found: dict[int, dict[str, str]] = {}
    for part in points.chunks(numbers):
        columns = (table.c.parent, table.c.key, table.c.value)
        statement = select(*columns).where(table.c.parent.in_(part)).order_by(table.c.parent, table.c.key)
        for parent, key, value in tx.execute(statement).all():
            found.setdefault(parent, {})[key] = value
    return found


def run_of(row: Row[Any]) -> Run:
    """The value of a row of the table, alone."""
    return Run(
        number=row.number,
        id=row.id,
        experiment=str(row.experiment),
        name=row.name,
        status=row.status,
        actor=row.actor,
        stage=row.stage,
        start=row.start,
        end=row.end,
        artifact_uri=row.artifact_uri,
    )


def _find(tx: Tx, project: str, identity: str) -> Row[Any]:
    row = tx.execute(_BY_ID, {"project": project, "id": identity}).first()
    if row is None:
        raise NotFound(f"Run with id={identity} not found", hint="is it a run of this project?")
    return row


def put_values(tx: Tx, table: Table, parent: int, values: Mapping[str, str]) -> None:
    """Set texts by key below a parent, replacing values."""
    rows = [{"parent": parent, "key": key, "value": value} for key, value in sorted(values.items())]
    if rows:
        tx.execute(_putting(tx.dialect.name, table), rows)


# statements are built once: building costs more than running them


@lru_cache
def _opening(dialect: str) -> Executable:
    return insert_for(dialect, runs).on_conflict_do_nothing().returning(runs.c.number)


@lru_cache
def _adding(dialect: str) -> Executable:
    return insert_for(dialect, run_params).on_conflict_do_nothing()


@lru_cache
def _putting(dialect: str, table: Table) -> Executable:
    put = insert_for(dialect, table)
    return put.on_conflict_do_update(index_elements=["parent", "key"], set_={"value": put.excluded.value})


def _param_differs(run: Run, key: str, old: str, new: str) -> InvalidInput:
    return InvalidInput(
        f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{old}' "
        f"for run ID='{run.id}'. Attempted logging new value '{new}'.",
        hint="a parameter is written once; log the other value under another key, or open another run",
    )

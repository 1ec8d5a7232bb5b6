"""Steps that ran: what they cost, what they made, and the recipe under which they can be reused."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import Row, bindparam, func, insert, select

from everloop.catalog.engine import Tx
from everloop.catalog.tables.core import steps
from everloop.core.clock import Micros

_CHUNK = 500

# Built once: these are on the path of every step, cached ones too.
_RECORD = insert(steps)
_LOOKUP = (
    select(steps)
    .where(
        steps.c.project == bindparam("p"),
        steps.c.recipe == bindparam("r"),
        steps.c.status == "done",
        steps.c.cached.is_(False),
    )
    .order_by(steps.c.id.desc())
    .limit(1)
)
_RANKED = (
    select(steps, func.row_number().over(partition_by=steps.c.step, order_by=steps.c.id.desc()).label("place"))
    .where(
        steps.c.project == bindparam("p"),
        steps.c.step.in_(bindparam("keys", expanding=True)),
        steps.c.status == "done",
        steps.c.cached.is_(False),
    )
    .subquery()
)
_NEWEST = select(_RANKED).where(_RANKED.c.place <= bindparam("depth"))
_TEXT = json.JSONEncoder(sort_keys=True).encode  # made once: each row has two of them


@dataclass(frozen=True, slots=True)
class StepRow:
    """One execution of a step, or one reuse of an earlier one (`cached`). Times in seconds, memory in bytes."""

    recipe: str
    """Recipe key: code, environment, parameters and inputs."""
    step: str
    """The asset's key, `kind/name`."""
    output: str | None
    """The version it made; None when it failed."""
    code: str
    runtime: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    at: Micros
    status: str = "done"
    """`done`, `failed`, or `leaky`: done, and it read what its recipe does not hold (see `making.leaks`)."""
    cached: bool = False
    digest: str = ""
    """A canonical digest of the output, where its bytes are not repeatable."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    run: str = ""


def record(tx: Tx, project: str, row: StepRow) -> None:
    """Write down one execution."""
    record_many(tx, project, (row,))


def record_many(tx: Tx, project: str, rows: Collection[StepRow]) -> None:
    """Write down several."""
    if rows:
        tx.execute(_RECORD, [_values(project, row) for row in rows])


def lookup(tx: Tx, project: str, recipe: str) -> StepRow | None:
    """The latest successful execution of a recipe; None when it has to be run."""
    row = tx.execute(_LOOKUP, {"p": project, "r": recipe}).first()
    return None if row is None else _row(row)


def lookup_many(tx: Tx, project: str, recipes: Collection[str]) -> dict[str, StepRow]:
    """The latest successful execution of each of these recipes that has one."""
    found: dict[str, StepRow] = {}
    wanted = sorted(set(recipes))
    for start in range(0, len(wanted), _CHUNK):
        mine = (steps.c.project == project, steps.c.recipe.in_(wanted[start : start + _CHUNK]))
        query = select(steps).where(*mine, steps.c.status == "done", steps.c.cached.is_(False)).order_by(steps.c.id)
        found.update((row.recipe, _row(row)) for row in tx.execute(query))
    return found


def newest(tx: Tx, project: str, keys: Collection[str], depth: int) -> list[tuple[int, StepRow]]:
    """The latest `depth` successful executions of each of these steps, numbered in the order of writing."""
    found: list[tuple[int, StepRow]] = []
    wanted = sorted(set(keys))
    for start in range(0, len(wanted), _CHUNK):
        asked = {"p": project, "keys": wanted[start : start + _CHUNK], "depth": depth}
        found += [(row.id, _row(row)) for row in tx.execute(_NEWEST, asked)]
    return found


def since(tx: Tx, project: str, keys: Collection[str], number: int) -> tuple[int, list[tuple[int, StepRow]]]:
    """The number that was written last, and executions of these steps that gave something and came after `number`."""
    query = select(steps).where(steps.c.project == project, steps.c.id > number).order_by(steps.c.id)
    rows = tx.execute(query).all()
    found = [(row.id, _row(row)) for row in rows if row.step in keys and row.output is not None and not row.cached]
    return rows[-1].id if rows else number, found


def last(tx: Tx) -> int:
    """The number that was written last."""
    return int(tx.execute(select(func.max(steps.c.id))).scalar() or 0)


def of_output(tx: Tx, project: str, identity: str) -> list[StepRow]:
    """The executions that made this version, latest first; reuses are left out."""
    made = (steps.c.project == project, steps.c.output == identity, steps.c.cached.is_(False))
    return [_row(row) for row in tx.execute(select(steps).where(*made).order_by(steps.c.id.desc()))]


def made(tx: Tx, project: str, outputs: Collection[str]) -> dict[str, StepRow]:
    """The first execution that made each of these versions, by version; those that no step made are left out.

    Later ones may have made the same of something else: experiments with mixtures of two recipes do.
    """
    found: dict[str, StepRow] = {}
    wanted = sorted(set(outputs))
    for start in range(0, len(wanted), _CHUNK):
        mine = (steps.c.project == project, steps.c.output.in_(wanted[start : start + _CHUNK]))
        query = select(steps).where(*mine, steps.c.cached.is_(False)).order_by(steps.c.id.desc())
        found.update((row.output, _row(row)) for row in tx.execute(query))
    return found


def of_recipe(tx: Tx, project: str, recipe: str) -> StepRow | None:
    """The first execution of a recipe that gave something, leaky ones too; None when there is none."""
    made = (steps.c.project == project, steps.c.recipe == recipe, steps.c.output.is_not(None))
    row = tx.execute(select(steps).where(*made, steps.c.cached.is_(False)).order_by(steps.c.id).limit(1)).first()
    return None if row is None else _row(row)


def of_run(tx: Tx, project: str, run: str) -> list[StepRow]:
    """The steps of a run, in their order."""
    return [
        _row(row)
        for row in tx.execute(select(steps).where(steps.c.project == project, steps.c.run == run).order_by(steps.c.id))
    ]


def behind(tx: Tx, project: str, recipes: Mapping[str, str]) -> dict[str, StepRow]:
    """The step that each run recorded, by run; `recipes` says the recipe key of each run, by which it is found."""
    if not recipes:
        return {}
    mine = (steps.c.project == project, steps.c.recipe.in_(set(recipes.values())), steps.c.run.in_(list(recipes)))
    return {row.run: _row(row) for row in tx.execute(select(steps).where(*mine).order_by(steps.c.id))}


def _values(project: str, row: StepRow) -> dict[str, Any]:
    return {
        "project": project,
        "recipe": row.recipe,
        "step": row.step,
        "output": row.output,
        "digest": row.digest,
        "code": row.code,
        "runtime": row.runtime,
        "params": _TEXT(dict(row.params)) if row.params else "{}",
        "inputs": _TEXT(dict(row.inputs)) if row.inputs else "{}",
        "seconds": row.seconds,
        "cpu_seconds": row.cpu_seconds,
        "peak_memory": row.peak_memory,
        "run": row.run,
        "status": row.status,
        "cached": row.cached,
        "at": row.at,
    }


_FIELDS = itemgetter(*(steps.c.keys().index(name) for name in StepRow.__slots__))
"""By place, as every query here selects all columns first: by name costs as much as the query."""
_LOAD = msgspec.json.Decoder().decode


def _row(row: Row[Any]) -> StepRow:
    recipe, step, output, code, runtime, params, inputs, *rest = _FIELDS(row)
    return StepRow(recipe, step, output, code, runtime, _LOAD(params), _LOAD(inputs), *rest)

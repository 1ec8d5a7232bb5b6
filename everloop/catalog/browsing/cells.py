"""What a table of runs shows of each: the chosen keys only, in a few queries for a whole page."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Column, func, select

from everloop.catalog.engine import Tx
from everloop.catalog.tables.tracking import run_params, run_tags, runs, series

Kind = Literal["metrics", "params", "tags"]
KINDS: tuple[Kind, ...] = ("metrics", "params", "tags")
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Keys:
    """How many of the runs that were looked at have each key, the commonest first."""

    runs: int
    whole: bool
    """Whether these were all runs; else they were the newest ones."""
    metrics: Mapping[str, int]
    params: Mapping[str, int]
    tags: Mapping[str, int]


def keys(tx: Tx, project: str, experiments: Collection[str], *, most: int) -> Keys:
    """The keys that the active runs of these experiments have; of the `most` newest runs where there are more."""
    wanted = [int(one) for one in experiments if one.isascii() and one.isdigit() and len(one) < 19]
    here = (runs.c.project == project, runs.c.experiment.in_(wanted), runs.c.stage == "active")
    newest = select(runs.c.number).where(*here).order_by(runs.c.start.desc(), runs.c.id).limit(most + 1)
    numbers = list(tx.execute(newest).scalars())
    looked_at = numbers[:most]
    found: dict[Kind, dict[str, int]] = {}
    for kind in KINDS:
        parent, key = _columns(kind)
        counted: dict[str, int] = {}
        for start in range(0, len(looked_at), _CHUNK):
            part = parent.in_(looked_at[start : start + _CHUNK])
            for row in tx.execute(select(key.label("key"), func.count().label("held")).where(part).group_by(key)):
                counted[row.key] = counted.get(row.key, 0) + row.held
        found[kind] = dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
    return Keys(len(looked_at), len(numbers) <= most, found["metrics"], found["params"], found["tags"])


def metrics_of(tx: Tx, numbers: Collection[int], wanted: Collection[str]) -> dict[tuple[int, str], float]:
    """The newest value of each wanted metric, by run number and key."""
    if not numbers or not wanted:
        return {}
    mine = (series.c.run.in_(list(numbers)), series.c.key.in_(list(wanted)))
    rows = tx.execute(select(series.c.run, series.c.key, series.c.value, series.c.nan).where(*mine))
    return {(row.run, row.key): float("nan") if row.nan else row.value for row in rows}


def texts_of(tx: Tx, kind: Kind, numbers: Collection[int], wanted: Collection[str]) -> dict[tuple[int, str], str]:
    """The wanted parameters or tags, by run number and key."""
    if not numbers or not wanted:
        return {}
    table = run_params if kind == "params" else run_tags
    mine = (table.c.parent.in_(list(numbers)), table.c.key.in_(list(wanted)))
    return {(row.parent, row.key): row.value for row in tx.execute(select(table).where(*mine))}


def _columns(kind: Kind) -> tuple[Column[int], Column[str]]:
    if kind == "metrics":
        return series.c.run, series.c.key
    table = run_params if kind == "params" else run_tags
    return table.c.parent, table.c.key

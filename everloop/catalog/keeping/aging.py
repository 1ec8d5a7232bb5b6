"""Runs and traces that a retention rule lets go by their age."""

from collections.abc import Collection

from sqlalchemy import select

from everloop.catalog.engine import Tx
from everloop.catalog.governance import holds
from everloop.catalog.tables.core import steps, versions
from everloop.catalog.tables.genai import traces
from everloop.catalog.tables.tracking import registered_versions, runs
from everloop.core.clock import Micros


def old_runs(tx: Tx, project: str, experiment_ids: Collection[str], before: Micros, *, keep: int) -> list[str]:
    """Ended runs that began before a time, but for the newest `keep` of each experiment, oldest first.

    A run that is held, or that made a model version, stays.
    """
    named = registered_versions.c
    mine = select(named.run).where(named.project == project, named.deleted == 0)
    made = (
        select(steps.c.run)
        .join(versions, (versions.c.project == steps.c.project) & (versions.c.id == steps.c.output))
        .where(steps.c.project == project, versions.c.kind == "model")
    )
    needed = {*tx.execute(mine).scalars(), *tx.execute(made).scalars(), *holds.runs_held(tx, project)}
    found: list[str] = []
    for experiment in sorted(experiment_ids):
        here = (runs.c.project == project, runs.c.experiment == int(experiment), runs.c.stage == "active")
        listed = tx.execute(select(runs.c.id, runs.c.start, runs.c.end).where(*here).order_by(runs.c.start.desc()))
        rows = [row for place, row in enumerate(listed) if place >= keep]
        found += [
            row.id for row in reversed(rows) if row.end is not None and row.start < before and row.id not in needed
        ]
    return found


def old_traces(tx: Tx, project: str, experiment_ids: Collection[str], before: Micros) -> dict[str, list[str]]:
    """{experiment: traces that began before a time}; none of an experiment under a hold."""
    free = set(experiment_ids) - holds.experiments_of(holds.standing(tx, project))
    found = {}
    for experiment in sorted(free):
        here = (traces.c.project == project, traces.c.experiment == int(experiment), traces.c.at < before)
        if ids := list(tx.execute(select(traces.c.id).where(*here).order_by(traces.c.at, traces.c.id)).scalars()):
            found[experiment] = ids
    return found

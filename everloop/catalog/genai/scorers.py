"""Scorers of an experiment: named, numbered descriptions of how its traces are judged."""

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.genai.rows import OnlineConfig, Scorer
from everloop.catalog.tables.genai import scorer_configs, scorer_versions, scorers
from everloop.catalog.tracking import experiments
from everloop.catalog.tracking.points import chunks
from everloop.core.clock import Micros
from everloop.core.errors import NotFound


def register(tx: Tx, project: str, experiment: str, name: str, body: str, *, at: Micros) -> Scorer:
    """Add a version of a name: the next number, which is never given again. Raises `NotFound`, `InvalidInput`."""
    home = int(experiments.active(tx, project, experiment).id)
    row = {"project": project, "experiment": home, "name": name, "id": secrets.token_hex(16), "last": 0}
    tx.execute(insert_into(tx, scorers).values(row).on_conflict_do_nothing())
    here = (scorers.c.project == project, scorers.c.experiment == home, scorers.c.name == name)
    counted = update(scorers).where(*here).values(last=scorers.c.last + 1).returning(scorers.c.id, scorers.c.last)
    made = tx.execute(counted).one()
    version = {"project": project, "scorer": made.id, "number": made.last, "body": body, "created": at}
    tx.execute(insert(scorer_versions).values(version))
    return Scorer(made.id, experiment, name, made.last, body, at)


def newest(tx: Tx, project: str, experiment_ids: Sequence[str]) -> list[Scorer]:
    """The newest version of every scorer of these experiments, by experiment and name."""
    numbers = [int(one) for one in experiment_ids if one.isascii() and one.isdigit() and len(one) < 19]
    last = (
        select(scorer_versions.c.scorer, func.max(scorer_versions.c.number).label("number"))
        .where(scorer_versions.c.project == project)
        .group_by(scorer_versions.c.scorer)
        .subquery()
    )
    statement = (
        _joined(project)
        .join(last, (last.c.scorer == scorer_versions.c.scorer) & (last.c.number == scorer_versions.c.number))
        .where(scorers.c.experiment.in_(numbers))
        .order_by(scorers.c.experiment, scorers.c.name)
    )
    return [_scorer(row) for row in tx.execute(statement)]


def versions(tx: Tx, project: str, experiment: str, name: str) -> list[Scorer]:
    """Every version of a name, the oldest first; raises `NotFound` when there is none."""
    found = _of(tx, project, experiment, name, None)
    if not found:
        raise NotFound(f"Scorer with name '{name}' not found for experiment {experiment}.", hint="names mind case")
    return found


def get(tx: Tx, project: str, experiment: str, name: str, number: int | None = None) -> Scorer:
    """A version, or the newest; raises `NotFound`."""
    found = _of(tx, project, experiment, name, number)
    if not found:
        which = f" and version {number}" if number is not None else ""
        raise NotFound(
            f"Scorer with name '{name}'{which} not found for experiment {experiment}.", hint="list the versions"
        )
    return found[-1]


def remove(tx: Tx, project: str, experiment: str, name: str, number: int | None = None) -> None:
    """Delete a version, or all; the name keeps counting. Raises `NotFound`."""
    for one in (
        [get(tx, project, experiment, name, number)] if number is not None else versions(tx, project, experiment, name)
    ):
        mine = scorer_versions.c
        here = (mine.project == project, mine.scorer == one.id, mine.number == one.number)
        tx.execute(delete(scorer_versions).where(*here))
    if number is None or not _of(tx, project, experiment, name, None):
        of = (scorer_configs.c.project == project, scorer_configs.c.scorer == one.id)
        tx.execute(delete(scorer_configs).where(*of))


def configure(
    tx: Tx, project: str, experiment: str, name: str, *, rate: float, filter_text: str | None
) -> OnlineConfig:
    """Say on which share of new traces a scorer is asked; raises `NotFound`."""
    one = get(tx, project, experiment, name)
    row = {"project": project, "scorer": one.id, "id": secrets.token_hex(16), "rate": rate, "filter": filter_text}
    put = insert_into(tx, scorer_configs)
    fresh = {"rate": put.excluded.rate, "filter": put.excluded.filter}
    tx.execute(put.on_conflict_do_update(index_elements=["project", "scorer"], set_=fresh), row)
    (made,) = configs(tx, project, [one.id])
    return made


def configs(tx: Tx, project: str, identities: Sequence[str]) -> list[OnlineConfig]:
    """What is said of these scorers; those of which nothing is said are left out."""
    found: list[OnlineConfig] = []
    for part in chunks(list(dict.fromkeys(identities))):
        statement = (
            select(scorer_configs, scorers.c.experiment)
            .join(scorers, (scorers.c.project == scorer_configs.c.project) & (scorers.c.id == scorer_configs.c.scorer))
            .where(scorer_configs.c.project == project, scorer_configs.c.scorer.in_(part))
            .order_by(scorer_configs.c.scorer)
        )
        found.extend(
            OnlineConfig(row.id, row.scorer, str(row.experiment), row.rate, row.filter) for row in tx.execute(statement)
        )
    return found


def _joined(project: str) -> Select[Any]:
    return (
        select(scorers.c.id, scorers.c.experiment, scorers.c.name, scorer_versions)
        .join(
            scorer_versions,
            (scorer_versions.c.project == scorers.c.project) & (scorer_versions.c.scorer == scorers.c.id),
        )
        .where(scorers.c.project == project)
    )


def _of(tx: Tx, project: str, experiment: str, name: str, number: int | None) -> list[Scorer]:
    home = int(experiments.get(tx, project, experiment).id)
    statement = _joined(project).where(scorers.c.experiment == home, scorers.c.name == name)
    if number is not None:
        statement = statement.where(scorer_versions.c.number == number)
    return [_scorer(row) for row in tx.execute(statement.order_by(scorer_versions.c.number))]


def _scorer(row: Row[Any]) -> Scorer:
    return Scorer(row.id, str(row.experiment), row.name, row.number, row.body, row.created)

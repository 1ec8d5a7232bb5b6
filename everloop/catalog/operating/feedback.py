"""Values of metrics that came of predictions: by prediction id, or counted elsewhere and pushed for a revision."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import and_, func, select

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.operating import feedback as rows
from everloop.catalog.tables.operating import predictions
from everloop.core.clock import Micros


@dataclass(frozen=True, slots=True)
class Value:
    """One value of one prediction (`revision` empty), or a figure of a revision (`prediction` empty)."""

    metric: str
    total: float
    """The value, or the sum of values."""
    squares: float
    """The sum of their squares."""
    at: Micros
    prediction: str = ""
    revision: str = ""
    count: int = 1


def add(tx: Tx, project: str, endpoint: str, values: Iterable[Value], *, actor: str, recorded: Micros) -> None:
    """Append; what is there already (same prediction or revision, metric and time) changes nothing."""
    told = [
        {
            "project": project,
            "endpoint": endpoint,
            **{name: getattr(value, name) for name in Value.__slots__},
            "recorded": recorded,
            "actor": actor,
        }
        for value in values
    ]
    if told:
        tx.execute(insert_into(tx, rows).on_conflict_do_nothing(), told)


def of_revision(
    tx: Tx, project: str, metric: str, *, revision: str, start: Micros, named: int = 100
) -> tuple[int, float, float, list[str]]:
    """(count, total, squares, ids) of what was told of a revision's predictions from `start` on, the newest of each.

    The ids are those of the predictions that were told of last, at most `named`, the newest last.
    """
    of_its = and_(predictions.c.project == rows.c.project, predictions.c.id == rows.c.prediction)
    newest_first = (rows.c.at.desc(), rows.c.id.desc())
    place = func.row_number().over(partition_by=rows.c.prediction, order_by=newest_first).label("place")
    told = (
        select(rows.c.id, rows.c.prediction, rows.c.total, place)
        .join(predictions, of_its)
        .where(
            predictions.c.project == project,
            predictions.c.revision == revision,
            predictions.c.fallback != revision,
            predictions.c.at >= start,
            rows.c.metric == metric,
        )
        .subquery()
    )
    sums = select(func.count(), func.sum(told.c.total), func.sum(told.c.total * told.c.total)).where(told.c.place == 1)
    count, total, squares = tx.execute(sums).one()
    last = select(told.c.prediction).where(told.c.place == 1).order_by(told.c.id.desc()).limit(named)
    ids = list(tx.execute(last).scalars())[::-1] if count else []
    return int(count), float(total or 0.0), float(squares or 0.0), ids


def pushed(
    tx: Tx, project: str, endpoint: str, metric: str, *, revision: str, start: Micros
) -> tuple[int, float, float]:
    """(count, total, squares) of what was pushed for a revision from `start` on."""
    query = select(func.sum(rows.c.count), func.sum(rows.c.total), func.sum(rows.c.squares)).where(
        rows.c.project == project,
        rows.c.endpoint == endpoint,
        rows.c.prediction == "",
        rows.c.revision == revision,
        rows.c.metric == metric,
        rows.c.at >= start,
    )
    count, total, squares = tx.execute(query).one()
    return int(count or 0), float(total or 0.0), float(squares or 0.0)


def metrics(tx: Tx, project: str, endpoint: str) -> list[str]:
    """The metrics that were ever told of an endpoint."""
    query = select(rows.c.metric).where(rows.c.project == project, rows.c.endpoint == endpoint)
    return sorted(tx.execute(query.distinct()).scalars())

"""Values of metrics that came of predictions: by prediction id, or counted elsewhere and pushed for a revision."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.operating import feedback as rows
from everloop.core.clock import Micros

_CHUNK = 500


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


def of(tx: Tx, project: str, metric: str, predictions: Sequence[str]) -> dict[str, float]:
    """The newest value of each prediction that has one."""
    found: dict[str, float] = {}
    for start in range(0, len(predictions), _CHUNK):
        query = select(rows.c.prediction, rows.c.total).where(
            rows.c.project == project,
            rows.c.prediction.in_(predictions[start : start + _CHUNK]),
            rows.c.revision == "",
            rows.c.metric == metric,
        )
        found |= {row.prediction: row.total for row in tx.execute(query.order_by(rows.c.at, rows.c.id))}
    return found


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

"""Rows of predictions and their late labels, and how far each gateway's log is ingested."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, delete, func, select, tuple_

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.operating import feedback, log_segments, predictions
from everloop.catalog.tables.operating import labels as label_rows
from everloop.core.clock import Micros
from everloop.core.errors import InvalidInput, NotFound

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One predicted row. Inputs and answer lie in the log: `gateway`, `segment`, `position`, `row` say where."""

    project: str
    id: str
    endpoint: str
    revision: str
    at: Micros
    recorded: Micros
    micros: int
    fallback: str
    gateway: str
    segment: int
    position: int
    row: int


@dataclass(frozen=True, slots=True)
class Label:
    """What turned out to be true for a prediction, any JSON value; `at` is when that was known."""

    prediction: str
    value: Any
    at: Micros


@dataclass(frozen=True, slots=True)
class Segment:
    """How far a segment of a gateway's log is ingested."""

    gateway: str
    segment: int
    position: int
    closed: bool


def ingest(tx: Tx, rows: Collection[PredictionRow]) -> None:
    """Write rows of any project; a row whose id is there already changes nothing."""
    if rows:
        tx.execute(
            insert_into(tx, predictions).on_conflict_do_nothing(),
            [{name: getattr(row, name) for name in PredictionRow.__slots__} for row in rows],
        )


def get(tx: Tx, project: str, identity: str) -> PredictionRow:
    """The prediction with this id; raises `NotFound`."""
    query = select(predictions).where(predictions.c.project == project, predictions.c.id == identity)
    row = tx.execute(query).first()
    if row is None:
        first = select(predictions.c.id).where(predictions.c.project == project, predictions.c.id == f"{identity}.0")
        hint = "it may not be ingested yet; the id is in the reply's prediction_id"
        if tx.execute(first).first() is not None:
            hint = f"it had several rows: {identity}.0 is the first of them"
        raise NotFound(f"no prediction {identity!r} in project {project}", hint=hint)
    return _row(row)


def window(
    tx: Tx,
    project: str,
    endpoint: str,
    start: Micros,
    until: Micros,
    *,
    limit: int = 1_000_000,
    after: tuple[Micros, str] | None = None,
) -> list[PredictionRow]:
    """Predictions of an endpoint with start <= at < until, by (at, id); `after` is the pair to go on from."""
    query = select(predictions).where(
        predictions.c.project == project,
        predictions.c.endpoint == endpoint,
        predictions.c.at >= start,
        predictions.c.at < until,
    )
    if after is not None:
        query = query.where(tuple_(predictions.c.at, predictions.c.id) > after)
    return [_row(row) for row in tx.execute(query.order_by(predictions.c.at, predictions.c.id).limit(limit))]


def of_revision(
    tx: Tx, project: str, revision: str, start: Micros, limit: int, *, newest: bool = False
) -> list[PredictionRow]:
    """The first predictions (or the newest) that a revision gave from `start` on, by (at, id); no stand-ins for it."""
    query = select(predictions).where(
        predictions.c.project == project,
        predictions.c.revision == revision,
        predictions.c.fallback != revision,
        predictions.c.at >= start,
    )
    order = (predictions.c.at.desc(), predictions.c.id.desc()) if newest else (predictions.c.at, predictions.c.id)
    found = [_row(row) for row in tx.execute(query.order_by(*order).limit(limit))]
    return found[::-1] if newest else found


def newest(tx: Tx, project: str, endpoint: str, limit: int = 50) -> list[PredictionRow]:
    """The latest predictions of an endpoint, newest first."""
    query = select(predictions).where(predictions.c.project == project, predictions.c.endpoint == endpoint)
    return [_row(row) for row in tx.execute(query.order_by(predictions.c.at.desc(), predictions.c.id).limit(limit))]


def counts(tx: Tx, project: str, endpoint: str, start: Micros, until: Micros) -> dict[str, int]:
    """How many predictions each revision gave with start <= at < until."""
    query = (
        select(predictions.c.revision, func.count())
        .where(
            predictions.c.project == project,
            predictions.c.endpoint == endpoint,
            predictions.c.at >= start,
            predictions.c.at < until,
        )
        .group_by(predictions.c.revision)
    )
    return {row[0]: row[1] for row in tx.execute(query)}


def add_labels(tx: Tx, project: str, labels: Iterable[Label], *, actor: str, recorded: Micros) -> None:
    """Append labels; the same label again changes nothing, a different one corrects. Raises `InvalidInput`.

    The prediction need not be ingested yet.
    """
    rows = [
        {
            "project": project,
            "prediction": label.prediction,
            "value": _json(label),
            "at": label.at,
            "recorded": recorded,
            "actor": actor,
        }
        for label in labels
    ]
    if rows:
        tx.execute(insert_into(tx, label_rows).on_conflict_do_nothing(), rows)


def _json(label: Label) -> str:
    try:
        return json.dumps(label.value, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the label of {label.prediction} is not JSON: {error}") from error


def labels_of(tx: Tx, project: str, ids: Sequence[str], *, known: Micros | None = None) -> dict[str, Label]:
    """The newest label of each prediction that has one; with `known`, as it was known at that event time."""
    found: dict[str, Label] = {}
    for start in range(0, len(ids), _CHUNK):
        query = select(label_rows).where(
            label_rows.c.project == project, label_rows.c.prediction.in_(ids[start : start + _CHUNK])
        )
        if known is not None:
            query = query.where(label_rows.c.at <= known)
        for row in tx.execute(query.order_by(label_rows.c.id)):
            found[row.prediction] = Label(row.prediction, json.loads(row.value), row.at)
    return found


def strangers(tx: Tx, project: str, endpoint: str, ids: Iterable[str]) -> int:
    """How many of the ids are of no prediction of the endpoint that is known by now."""
    wanted = sorted(set(ids))
    known = 0
    for start in range(0, len(wanted), _CHUNK):
        query = select(func.count()).where(
            predictions.c.project == project,
            predictions.c.endpoint == endpoint,
            predictions.c.id.in_(wanted[start : start + _CHUNK]),
        )
        known += tx.execute(query).scalar_one()
    return len(wanted) - known


def labelled(
    tx: Tx, project: str, endpoint: str, start: Micros, until: Micros, *, known: Micros | None = None
) -> list[tuple[PredictionRow, Label]]:
    """Predictions with start <= at < until that have a label, with the newest one."""
    query = (
        select(predictions, label_rows.c.value, label_rows.c.at.label("label_at"))
        .join(
            label_rows, and_(label_rows.c.project == predictions.c.project, label_rows.c.prediction == predictions.c.id)
        )
        .where(
            predictions.c.project == project,
            predictions.c.endpoint == endpoint,
            predictions.c.at >= start,
            predictions.c.at < until,
        )
    )
    if known is not None:
        query = query.where(label_rows.c.at <= known)
    newest_of: dict[str, tuple[PredictionRow, Label]] = {}
    for row in tx.execute(query.order_by(predictions.c.at, predictions.c.id, label_rows.c.id)):
        newest_of[row.id] = (_row(row), Label(row.id, json.loads(row.value), row.label_at))
    return list(newest_of.values())


def erase(tx: Tx, project: str, ids: Sequence[str]) -> None:
    """Remove predictions with their labels and feedback, as if they had never been."""
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        for told in (label_rows, feedback):
            tx.execute(delete(told).where(told.c.project == project, told.c.prediction.in_(chunk)))
        tx.execute(delete(predictions).where(predictions.c.project == project, predictions.c.id.in_(chunk)))


def segments(tx: Tx, gateway: str) -> dict[int, Segment]:
    """How far each segment of a gateway's log is ingested, by number."""
    found = tx.execute(select(log_segments).where(log_segments.c.gateway == gateway))
    return {row.segment: Segment(row.gateway, row.segment, row.position, row.closed) for row in found}


def segment(tx: Tx, gateway: str, number: int) -> Segment | None:
    """How far one segment is ingested; None when it was never seen."""
    query = select(log_segments).where(log_segments.c.gateway == gateway, log_segments.c.segment == number)
    row = tx.execute(query).first()
    return None if row is None else Segment(row.gateway, row.segment, row.position, row.closed)


def record_progress(tx: Tx, progress: Segment) -> None:
    """Say how far a segment is ingested, in the transaction that ingests its rows."""
    values: Mapping[str, Any] = {name: getattr(progress, name) for name in Segment.__slots__}
    statement = insert_into(tx, log_segments)
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=["gateway", "segment"],
            set_={name: values[name] for name in ("position", "closed")},
        ),
        [values],
    )


def _row(row: Row[Any]) -> PredictionRow:
    return PredictionRow(*(getattr(row, name) for name in PredictionRow.__slots__))

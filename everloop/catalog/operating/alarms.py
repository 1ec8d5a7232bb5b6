"""Rows of evaluations, alarms and firings of retrain rules."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import Row, func, insert, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.alarms import alarms as alarm_rows
from everloop.catalog.tables.alarms import evaluations as evaluation_rows
from everloop.catalog.tables.alarms import firings as firing_rows
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, NotFound

AlarmKind = Literal["drift", "fault", "performance"]
AlarmState = Literal["suspect", "alarm", "acknowledged", "resolved"]
OPEN: tuple[AlarmState, ...] = ("suspect", "alarm", "acknowledged")


@dataclass(frozen=True, slots=True)
class Alarm:
    """One incident: everything of one monitor that moved together, from its first window on."""

    id: str
    monitor: str
    endpoint: str
    kind: AlarmKind
    state: AlarmState
    title: str
    columns: tuple[str, ...]
    history: str
    """Newest last: `1` for a window that was flagged, `0` for one that was not."""
    severity: float
    blocks_retraining: bool
    onset: Micros
    last_window: Micros
    updated: Micros
    evidence: str
    opened: Micros | None = None
    """When it became an alarm; None while it was only suspected."""
    resolved: Micros | None = None
    snoozed_until: Micros = 0
    acknowledged_by: str = ""
    real: bool | None = None
    """A person's word: a real change, or a false alarm."""
    note: str = ""
    version: int = 0
    """Counts saved changes; 0 when new."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One look at one window; a later row for the same window is what became known since."""

    monitor: str
    start: Micros
    until: Micros
    at: Micros
    recorded: Micros
    state: str
    evidence: str
    summary: str
    figures: Mapping[str, float] = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True, slots=True)
class Firing:
    """A retrain rule went off, or would have and was blocked."""

    rule: str
    fire: str
    """What set it off; the same cause never does so twice."""
    at: Micros
    reason: str
    outcome: Literal["enqueued", "blocked"]
    number: int = 0
    """n of `sandbox/auto/<n>`."""
    task: str = ""


def save(tx: Tx, project: str, alarm: Alarm) -> Alarm:
    """Insert a new alarm (version 0) or replace it, and return it with its new version.

    Raises `Conflict` when somebody changed it meanwhile.
    """
    values = {name: getattr(alarm, name) for name in Alarm.__slots__}
    values |= {"project": project, "columns": json.dumps(list(alarm.columns)), "version": alarm.version + 1}
    if alarm.version == 0:
        done = tx.execute(insert_into(tx, alarm_rows).on_conflict_do_nothing(), values)
    else:
        same = (alarm_rows.c.project == project) & (alarm_rows.c.id == alarm.id)
        done = tx.execute(update(alarm_rows).where(same, alarm_rows.c.version == alarm.version).values(values))
    if done.rowcount != 1:
        raise Conflict(f"alarm {alarm.id} changed meanwhile", hint="look at it again")
    return replace(alarm, version=alarm.version + 1)


def get(tx: Tx, project: str, identity: str) -> Alarm:
    """The alarm with this id; raises `NotFound`."""
    row = tx.execute(
        select(alarm_rows).where(alarm_rows.c.project == project, alarm_rows.c.id == identity)
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no alarm {identity!r} in project {project}", hint="`everloop alarms list` shows them")
    return _alarm(row)


def find(
    tx: Tx,
    project: str,
    *,
    states: Collection[str] = (),
    monitor: str | None = None,
    endpoint: str | None = None,
    opened_only: bool = False,
    limit: int = 200,
) -> list[Alarm]:
    """Alarms, newest change first; `opened_only` leaves out what was never more than a suspicion."""
    wanted = [alarm_rows.c.project == project]
    if states:
        wanted.append(alarm_rows.c.state.in_(list(states)))
    if monitor is not None:
        wanted.append(alarm_rows.c.monitor == monitor)
    if endpoint is not None:
        wanted.append(alarm_rows.c.endpoint == endpoint)
    if opened_only:
        wanted.append(alarm_rows.c.opened.is_not(None))
    query = select(alarm_rows).where(*wanted).order_by(alarm_rows.c.updated.desc(), alarm_rows.c.id).limit(limit)
    return [_alarm(row) for row in tx.execute(query)]


def precision(tx: Tx, project: str, monitor: str) -> tuple[int, int]:
    """How many opened alarms of a monitor people called real, and how many they judged at all."""
    query = (
        select(alarm_rows.c.real, func.count())
        .where(alarm_rows.c.project == project, alarm_rows.c.monitor == monitor, alarm_rows.c.real.is_not(None))
        .group_by(alarm_rows.c.real)
    )
    judged = {bool(row[0]): int(row[1]) for row in tx.execute(query)}
    return judged.get(True, 0), sum(judged.values())


def record_evaluation(tx: Tx, project: str, evaluation: Evaluation) -> int:
    """Append an evaluation and return its id."""
    values: dict[str, Any] = {name: getattr(evaluation, name) for name in Evaluation.__slots__ if name != "id"}
    values |= {"project": project, "figures": json.dumps(dict(evaluation.figures), sort_keys=True, allow_nan=False)}
    return int(tx.execute(insert(evaluation_rows).values(values).returning(evaluation_rows.c.id)).scalar_one())


def evaluations(
    tx: Tx, project: str, monitor: str, *, start: Micros | None = None, limit: int = 100
) -> list[Evaluation]:
    """Evaluations of a monitor, newest window first and of one window the newest first; or those of one window."""
    wanted = [evaluation_rows.c.project == project, evaluation_rows.c.monitor == monitor]
    if start is not None:
        wanted.append(evaluation_rows.c.start == start)
    order = (evaluation_rows.c.start.desc(), evaluation_rows.c.id.desc())
    query = select(evaluation_rows).where(*wanted).order_by(*order).limit(limit)
    return [_evaluation(row) for row in tx.execute(query)]


def evaluated_until(tx: Tx, project: str, monitor: str) -> Micros | None:
    """The end of the newest window that was evaluated; None before the first."""
    query = select(func.max(evaluation_rows.c.until)).where(
        evaluation_rows.c.project == project, evaluation_rows.c.monitor == monitor
    )
    found: Micros | None = tx.execute(query).scalar_one()
    return found


def fire(tx: Tx, project: str, firing: Firing) -> Firing | None:
    """Record a firing, with the next number when it is `enqueued`; None when the same cause fired before."""
    same = (
        (firing_rows.c.project == project) & (firing_rows.c.rule == firing.rule) & (firing_rows.c.fire == firing.fire)
    )
    while tx.execute(select(firing_rows.c.at).where(same)).first() is None:
        number = _next_number(tx, project) if firing.outcome == "enqueued" else 0
        numbered = replace(firing, number=number)
        values = {name: getattr(numbered, name) for name in Firing.__slots__}
        # Another writer may take the number, or fire the same, between our two statements.
        made = tx.execute(insert_into(tx, firing_rows).on_conflict_do_nothing(), {"project": project, **values})
        if made.rowcount == 1:
            return numbered
    return None


def set_task(tx: Tx, project: str, firing: Firing, task: str) -> None:
    """Name the task that a firing made."""
    same = (firing_rows.c.project == project) & (firing_rows.c.rule == firing.rule)
    tx.execute(update(firing_rows).where(same, firing_rows.c.fire == firing.fire).values(task=task))


def firings(tx: Tx, project: str, rule: str | None = None, *, limit: int = 50) -> list[Firing]:
    """Firings, newest first."""
    wanted = [firing_rows.c.project == project]
    if rule is not None:
        wanted.append(firing_rows.c.rule == rule)
    query = select(firing_rows).where(*wanted).order_by(firing_rows.c.at.desc(), firing_rows.c.number.desc())
    return [Firing(*(getattr(row, name) for name in Firing.__slots__)) for row in tx.execute(query.limit(limit))]


def last_fired(tx: Tx, project: str, rule: str) -> Micros | None:
    """When a rule last made a task; None if never."""
    query = select(func.max(firing_rows.c.at)).where(
        firing_rows.c.project == project, firing_rows.c.rule == rule, firing_rows.c.outcome == "enqueued"
    )
    found: Micros | None = tx.execute(query).scalar_one()
    return found


def _next_number(tx: Tx, project: str) -> int:
    highest = tx.execute(select(func.max(firing_rows.c.number)).where(firing_rows.c.project == project)).scalar()
    return int(highest or 0) + 1


def _alarm(row: Row[Any]) -> Alarm:
    values = {name: getattr(row, name) for name in Alarm.__slots__}
    return Alarm(**{**values, "columns": tuple(json.loads(row.columns))})


def _evaluation(row: Row[Any]) -> Evaluation:
    values = {name: getattr(row, name) for name in Evaluation.__slots__}
    return Evaluation(**{**values, "figures": json.loads(row.figures)})

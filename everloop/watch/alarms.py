"""Alarms: from what a window showed to incidents with a state, and what people do with them.

    nothing ──flagged──▶ suspect ──2 of 3──▶ alarm ──a person──▶ acknowledged
                            │                  └────────┬───────────┘
                            └──3 quiet──▶ resolved ◀────┘ 3 quiet windows, or a person

A named fault is an alarm at once. Columns that move together are one incident: those first flagged in the same
window, and later ones of the same view while it lasts; while a fault lasts, so is what it does to the metric.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.operating import alarms as rows
from everloop.catalog.operating.alarms import OPEN, Alarm, AlarmKind
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.clock import Micros, iso
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.grants import Target
from everloop.core.ids import manifest_id, short
from everloop.watch.definitions import advance, duration

_REMEMBERED = 12
"""Windows of an alarm's history that are kept."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that a window flagged: a column (drift or fault), or a metric (performance)."""

    kind: AlarmKind
    column: str
    text: str
    severity: float
    blocks: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """What one window showed of a monitor."""

    monitor: str
    endpoint: str
    start: Micros
    until: Micros
    signals: tuple[Signal, ...]
    untold: frozenset[str] = frozenset()
    """Columns and metrics that the window was too small to judge: they count neither way."""
    evidence: str = ""


def respond(before: Sequence[Alarm], sight: Sight, now: Micros) -> list[Alarm]:
    """The alarms that a window changes or makes, given the open ones of its monitor. Pure.

    A window that an alarm has counted already (or an older one, looked at again) does not count twice.
    """
    changed: list[Alarm] = []
    remaining = {signal.column: signal for signal in sight.signals}
    current = [alarm for alarm in before if alarm.state in OPEN and sight.until > alarm.last_window]
    known = {column for alarm in current for column in alarm.columns}
    for alarm in current:
        own = {c: s for c, s in remaining.items() if c in alarm.columns and _alike(alarm, s)}
        joining = {c: s for c, s in remaining.items() if c not in known and _joins(alarm, s, sight, lit=bool(own))}
        for column in (*own, *joining):
            del remaining[column]
        if not own and all(column in sight.untold for column in alarm.columns):
            continue
        changed.append(_counted(alarm, tuple((own | joining).values()), sight, now))
    new = [s for s in remaining.values() if not _counted_already(before, s, sight)]
    moved = [s for s in new if s.kind != "performance"]
    judged = [s for s in new if s.kind == "performance"]
    if any(s.kind == "fault" for s in moved):  # a broken sensor explains what it does to the metric
        moved, judged = new, []
    changed.extend(_opened(group, sight, now) for group in (moved, judged) if group)
    return changed


def upstream(column: str) -> str:
    """The feature view that a column comes from (`view__feature`); a request column stands for itself."""
    view, joint, _ = column.partition("__")
    return view if joint else column


def _alike(alarm: Alarm, signal: Signal) -> bool:
    return alarm.kind == "fault" or (alarm.kind == "performance") == (signal.kind == "performance")


def _joins(alarm: Alarm, signal: Signal, sight: Sight, *, lit: bool) -> bool:
    """Whether something new belongs to this incident; `lit` says whether this window flags what it has already."""
    if signal.kind == "performance":
        return alarm.kind == "fault"  # labels come later than their cause
    if not lit or not _alike(alarm, signal):
        return False
    views = {upstream(column) for column in alarm.columns}
    return upstream(signal.column) in views or sight.start - alarm.onset <= sight.until - sight.start


def _counted_already(before: Sequence[Alarm], signal: Signal, sight: Sight) -> bool:
    return any(
        signal.column in alarm.columns and _alike(alarm, signal) and sight.until <= alarm.last_window
        for alarm in before
    )


def _counted(alarm: Alarm, signals: tuple[Signal, ...], sight: Sight, now: Micros) -> Alarm:
    history = (alarm.history + ("1" if signals else "0"))[-_REMEMBERED:]
    columns = (*alarm.columns, *(s.column for s in signals if s.column not in alarm.columns))
    fault = any(s.kind == "fault" for s in signals)
    after = replace(
        alarm,
        history=history,
        columns=columns,
        last_window=sight.until,
        updated=now,
        kind="fault" if fault else alarm.kind,
    )
    if signals:
        severity = max(s.severity for s in signals)
        blocks = any(s.blocks for s in signals)  # as it is now: a sensor that works again no longer blocks
        after = replace(
            after,
            title=_title(signals, alarm.onset),
            severity=severity,
            evidence=sight.evidence,
            blocks_retraining=blocks,
        )
    step = advance(history)
    if after.state == "suspect" and (step == "alarm" or fault):
        return replace(after, state="alarm", opened=now)
    if step == "quiet":
        return replace(after, state="resolved", resolved=now)
    return after


def _opened(signals: Sequence[Signal], sight: Sight, now: Micros) -> Alarm:
    ordered = sorted(signals, key=lambda s: (s.kind != "fault", -s.severity, s.column))
    first = ordered[0]
    fault = first.kind == "fault"
    # The id says what it is about, so that the same window looked at twice makes the same alarm.
    identity = {"monitor": sight.monitor, "onset": sight.start, "kind": first.kind == "performance", "of": first.column}
    return Alarm(
        id="alarm-" + short(manifest_id(identity)),
        monitor=sight.monitor,
        endpoint=sight.endpoint,
        kind=first.kind,
        state="alarm" if fault else "suspect",
        title=_title(ordered, sight.start),
        columns=tuple(s.column for s in ordered),
        history="1",
        severity=max(s.severity for s in ordered),
        blocks_retraining=any(s.blocks for s in ordered),
        onset=sight.start,
        last_window=sight.until,
        updated=now,
        evidence=sight.evidence,
        opened=now if fault else None,
    )


def _title(signals: Sequence[Signal], onset: Micros) -> str:
    ordered = sorted(signals, key=lambda s: (s.kind != "fault", -s.severity, s.column))
    first = f"{ordered[0].column}: {ordered[0].text}"
    others = f" and {len(ordered) - 1} more that moved together" if len(ordered) > 1 else ""
    return f"{first}{others}, since {iso(onset)}"


def record(ctx: Context, tx: Tx, sight: Sight) -> list[Alarm]:
    """Apply a window to the monitor's alarms in this transaction; facts tell of every change of state."""
    before = rows.find(tx, ctx.project, monitor=sight.monitor, limit=1000)
    states = {alarm.id: alarm.state for alarm in before}
    saved = []
    for alarm in respond(before, sight, ctx.now()):
        saved.append(rows.save(tx, ctx.project, alarm))
        if states.get(alarm.id) != alarm.state:
            _tell(ctx, tx, alarm)
    return saved


def _tell(ctx: Context, tx: Tx, alarm: Alarm, **more: Any) -> None:
    verb = {"alarm": "opened", "suspect": "suspected"}.get(alarm.state, alarm.state)
    payload = {
        "alarm": alarm.id,
        "kind": alarm.kind,
        "title": alarm.title,
        "columns": list(alarm.columns),
        "severity": alarm.severity,
        "blocks_retraining": alarm.blocks_retraining,
        "monitor": alarm.monitor,
        "snoozed_until": alarm.snoozed_until,
        **more,
    }
    facts.append(tx, ctx.project, ctx.fact(f"alarm.{verb}", alarm.endpoint, payload))


class AlarmView(Answer):
    """An alarm as people and programs see it; times in microseconds."""

    id: str
    monitor: str
    endpoint: str
    kind: str
    state: str
    title: str
    columns: tuple[str, ...]
    history: str
    severity: float
    blocks_retraining: bool
    onset: int
    opened: int | None
    updated: int
    resolved: int | None
    snoozed_until: int
    acknowledged_by: str
    real: bool | None
    note: str
    evidence: str

    @classmethod
    def of(cls, alarm: Alarm) -> "AlarmView":
        """The view of a row."""
        return cls(**{name: getattr(alarm, name) for name in cls.model_fields})


class ListAlarms(Command):
    """Which alarms: open ones unless `all`; suspicions only when asked for."""

    endpoint: str | None = None
    all: bool = False
    suspects: bool = False
    limit: int = Field(100, ge=1)


class AlarmList(Answer):
    """Alarms, the newest change first."""

    alarms: tuple[AlarmView, ...]


class AlarmNamed(Command):
    """One alarm."""

    id: str


class Acknowledge(Command):
    """Somebody looks after it; `real` says whether it was a real change or a false alarm."""

    id: str
    real: bool | None = None
    note: str = ""


class Resolve(Command):
    """It is over."""

    id: str
    real: bool | None = None
    note: str = ""


class Snooze(Command):
    """No notices for a while (`4h`, `2d`); the alarm stays visible, and the snooze ends by itself."""

    id: str
    duration: str
    note: str = ""


def _endpoint_of(ctx: Context, cmd: Any) -> Target:
    with ctx.read() as tx:
        return Target("endpoint", rows.get(tx, ctx.project, cmd.id).endpoint, "production")


@operation("alarms.list", needs="read", reads=True, audit="denied")
def list_alarms(ctx: Context, cmd: ListAlarms) -> AlarmList:
    """Alarms of the project."""
    states = () if cmd.all else OPEN
    with ctx.read() as tx:
        found = rows.find(
            tx, ctx.project, states=states, endpoint=cmd.endpoint, opened_only=not cmd.suspects, limit=cmd.limit
        )
    return AlarmList(alarms=tuple(AlarmView.of(alarm) for alarm in found))


@operation("alarms.show", needs="read", reads=True, audit="denied")
def show_alarm(ctx: Context, cmd: AlarmNamed) -> AlarmView:
    """One alarm."""
    with ctx.read() as tx:
        return AlarmView.of(rows.get(tx, ctx.project, cmd.id))


@operation("alarms.acknowledge", needs="alarm.write", on=_endpoint_of)
def acknowledge(ctx: Context, cmd: Acknowledge) -> AlarmView:
    """Say that somebody looks after an alarm, and whether it is real."""
    with ctx.write() as tx:
        alarm = _open(tx, ctx.project, cmd.id)
        changed = replace(
            alarm,
            state="acknowledged",
            opened=alarm.opened if alarm.opened is not None else ctx.now(),
            acknowledged_by=ctx.actor.name,
            real=alarm.real if cmd.real is None else cmd.real,
            note=cmd.note or alarm.note,
            updated=ctx.now(),
        )
        _tell(ctx, tx, changed, real=changed.real, note=cmd.note)
        return AlarmView.of(rows.save(tx, ctx.project, changed))


@operation("alarms.resolve", needs="alarm.write", on=_endpoint_of)
def resolve(ctx: Context, cmd: Resolve) -> AlarmView:
    """End an alarm by hand; if its cause goes on, the next windows open another."""
    with ctx.write() as tx:
        alarm = _open(tx, ctx.project, cmd.id)
        changed = replace(
            alarm,
            state="resolved",
            resolved=ctx.now(),
            real=alarm.real if cmd.real is None else cmd.real,
            note=cmd.note or alarm.note,
            updated=ctx.now(),
        )
        _tell(ctx, tx, changed, real=changed.real, note=cmd.note, by_hand=True)
        return AlarmView.of(rows.save(tx, ctx.project, changed))


@operation("alarms.snooze", needs="alarm.write", on=_endpoint_of)
def snooze(ctx: Context, cmd: Snooze) -> AlarmView:
    """Send no notices about an alarm for a while."""
    length = duration(cmd.duration)
    with ctx.write() as tx:
        alarm = _open(tx, ctx.project, cmd.id)
        changed = replace(alarm, snoozed_until=ctx.now() + length, note=cmd.note or alarm.note, updated=ctx.now())
        payload = {"alarm": alarm.id, "until": changed.snoozed_until, "note": cmd.note}
        facts.append(tx, ctx.project, ctx.fact("alarm.snoozed", alarm.endpoint, payload))
        return AlarmView.of(rows.save(tx, ctx.project, changed))


def _open(tx: Tx, project: str, identity: str) -> Alarm:
    if not identity:
        raise InvalidInput("no alarm is named", hint="`everloop alarms list` shows them")
    alarm = rows.get(tx, project, identity)
    if alarm.state == "resolved":
        raise Conflict(f"alarm {identity} is resolved already", hint="a new one opens if its cause goes on")
    return alarm

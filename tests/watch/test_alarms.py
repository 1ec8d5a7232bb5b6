from dataclasses import replace

import pytest

from everloop.catalog import facts
from everloop.catalog.chain import seal
from everloop.catalog.operating import alarms as rows
from everloop.catalog.operating.alarms import Evaluation, Firing
from everloop.catalog.operation import invoke
from everloop.core.clock import DAY
from everloop.core.errors import Conflict, NotFound, PermissionDenied
from everloop.watch.alarms import (
    Acknowledge,
    ListAlarms,
    Resolve,
    Sight,
    Signal,
    Snooze,
    acknowledge,
    list_alarms,
    record,
    resolve,
    respond,
    snooze,
)


def sight(day, *columns, kind="drift", untold=()):
    signals = tuple(Signal(kind, c, f"{c} moved", 2.0, blocks=kind == "fault") for c in columns)
    return Sight("delay", "delay", day * DAY, (day + 1) * DAY, signals, frozenset(untold), "b3:e")


def play(*sights):
    """The alarms after each of the windows."""
    alarms = {}
    for seen in sights:
        for alarm in respond(tuple(alarms.values()), seen, seen.until):
            alarms[alarm.id] = alarm
    return sorted(alarms.values(), key=lambda a: a.onset)


def test_one_flagged_window_is_a_suspicion_and_passes():
    (alarm,) = play(sight(0, "x"))
    assert (alarm.state, alarm.opened) == ("suspect", None)
    (alarm,) = play(sight(0, "x"), sight(1), sight(2), sight(3))
    assert (alarm.state, alarm.opened) == ("resolved", None)


def test_two_of_three_open_and_three_quiet_ones_resolve():
    (alarm,) = play(sight(0, "x"), sight(1), sight(2, "x"))
    assert (alarm.state, alarm.opened, alarm.onset) == ("alarm", 3 * DAY, 0)
    (alarm,) = play(sight(0, "x"), sight(1, "x"), sight(2), sight(3), sight(4, "x"), sight(5))
    assert alarm.state == "alarm"
    (alarm,) = play(sight(0, "x"), sight(1, "x"), sight(2), sight(3), sight(4))
    assert (alarm.state, alarm.resolved, alarm.history) == ("resolved", 5 * DAY, "11000")


def test_a_fault_is_an_alarm_at_once_and_blocks():
    (alarm,) = play(sight(0, "x", kind="fault"))
    assert (alarm.state, alarm.kind, alarm.blocks_retraining) == ("alarm", "fault", True)


def test_a_suspicion_that_gets_a_name_becomes_a_fault():
    (alarm,) = play(sight(0, "x"), sight(1, "x", kind="fault"))
    assert (alarm.state, alarm.kind, alarm.blocks_retraining) == ("alarm", "fault", True)


def test_columns_that_moved_together_are_one_incident():
    (alarm,) = play(sight(0, "weather__temp", "weather__wind", "prediction"), sight(1, "weather__temp"))
    assert set(alarm.columns) == {"weather__temp", "weather__wind", "prediction"}
    assert "and 2 more that moved together" not in alarm.title  # the title says what the newest window showed


def test_later_columns_of_the_same_view_join_and_others_do_not():
    found = play(
        sight(0, "weather__temp"),
        sight(1, "weather__temp"),
        sight(4, "weather__temp", "weather__wind", "carrier"),
    )
    assert [set(a.columns) for a in found] == [{"weather__temp", "weather__wind"}, {"carrier"}]


def test_performance_is_an_incident_of_its_own():
    both = replace(
        sight(0, "x"), signals=(*sight(0, "x").signals, Signal("performance", "roc_auc", "0.6 against 0.7", 3.0))
    )
    assert {a.kind for a in play(both)} == {"drift", "performance"}


def test_what_a_broken_sensor_does_to_the_metric_is_the_same_incident():
    worse = (Signal("performance", "roc_auc", "0.6 against 0.7", 3.0),)
    at_once = replace(sight(0, "x", kind="fault"), signals=(*sight(0, "x", kind="fault").signals, *worse))
    later = replace(sight(1), signals=worse)
    (alarm,) = play(at_once, later, sight(2), sight(3))
    assert (alarm.kind, alarm.state, alarm.history) == ("fault", "alarm", "1100")
    (alarm,) = play(sight(0, "x", kind="fault"), later)
    assert alarm.columns == ("x", "roc_auc")


def test_windows_that_cannot_tell_count_neither_way():
    (alarm,) = play(sight(0, "x"), *(sight(d, untold=["x"]) for d in range(1, 6)), sight(6, "x"))
    assert (alarm.state, alarm.history) == ("alarm", "11")


def test_a_window_looked_at_twice_counts_once():
    assert play(sight(0, "x"), sight(0, "x")) == play(sight(0, "x"))
    found = play(sight(0, "x"), sight(1, "x"), sight(0, "x", "y"))
    assert [a.history for a in found if "x" in a.columns] == ["11"]


def test_alarms_are_kept_told_and_handled(each_context):
    ctx = each_context
    for day in range(2):
        with ctx.write() as tx:
            record(ctx, tx, sight(day, "x", "y"))
    (listed,) = invoke(ctx, list_alarms, ListAlarms()).alarms
    assert listed.state == "alarm"
    assert invoke(ctx, snooze, Snooze(id=listed.id, duration="4h")).snoozed_until > ctx.now()
    taken = invoke(ctx, acknowledge, Acknowledge(id=listed.id, real=True, note="new airport"))
    assert (taken.state, taken.acknowledged_by, taken.note) == ("acknowledged", "ada", "new airport")
    assert invoke(ctx, resolve, Resolve(id=listed.id)).state == "resolved"
    with pytest.raises(Conflict):
        invoke(ctx, resolve, Resolve(id=listed.id))
    assert not invoke(ctx, list_alarms, ListAlarms()).alarms
    assert len(invoke(ctx, list_alarms, ListAlarms(all=True)).alarms) == 1
    seal(ctx.catalog, ctx.clock)
    with ctx.read() as tx:
        told = [f.kind for f in facts.tail(tx, ctx.project, kinds=("alarm.*",))]
        assert rows.precision(tx, ctx.project, "delay") == (1, 1)
    assert told[::-1] == ["alarm.suspected", "alarm.opened", "alarm.snoozed", "alarm.acknowledged", "alarm.resolved"]


def test_viewers_do_not_handle_alarms(context_of, sqlite_catalog):
    ctx = context_of(sqlite_catalog)
    with ctx.write() as tx:
        (alarm,) = record(ctx, tx, sight(0, "x", kind="fault"))
    viewer = context_of(sqlite_catalog, name="vera", roles=["viewer"])
    assert invoke(viewer, list_alarms, ListAlarms()).alarms[0].id == alarm.id
    with pytest.raises(PermissionDenied):
        invoke(viewer, acknowledge, Acknowledge(id=alarm.id))
    deployer = context_of(sqlite_catalog, name="dan", roles=["deployer"])
    assert invoke(deployer, acknowledge, Acknowledge(id=alarm.id, real=False)).real is False


def test_rows_are_swapped_only_when_unchanged(each_context):
    ctx = each_context
    with ctx.write() as tx:
        (saved,) = record(ctx, tx, sight(0, "x"))
    with ctx.write() as tx:
        rows.save(tx, ctx.project, replace(saved, note="first"))
    with pytest.raises(Conflict), ctx.write() as tx:
        rows.save(tx, ctx.project, replace(saved, note="second"))
    with ctx.read() as tx:
        assert rows.get(tx, ctx.project, saved.id).note == "first"
        with pytest.raises(NotFound):
            rows.get(tx, "elsewhere", saved.id)


def test_evaluations_are_appended(each_context):
    ctx = each_context
    first = Evaluation("delay", 0, DAY, DAY, DAY, "ok", "b3:e", "as in training", {"roc_auc": 0.71})
    with ctx.write() as tx:
        rows.record_evaluation(tx, ctx.project, first)
        rows.record_evaluation(tx, ctx.project, replace(first, at=3 * DAY, figures={"roc_auc": 0.73}))
    with ctx.read() as tx:
        again, before = rows.evaluations(tx, ctx.project, "delay", start=0)
        assert (again.figures["roc_auc"], before.figures["roc_auc"]) == (0.73, 0.71)
        assert rows.evaluated_until(tx, ctx.project, "delay") == DAY
        assert rows.evaluated_until(tx, ctx.project, "other") is None


def test_a_cause_fires_once_and_numbers_count_up(each_context):
    ctx = each_context
    with ctx.write() as tx:
        assert rows.fire(tx, ctx.project, Firing("delay", "every/7d/1", 5, "due", "enqueued")).number == 1
        assert rows.fire(tx, ctx.project, Firing("delay", "every/7d/1", 6, "due", "enqueued")) is None
        assert rows.fire(tx, ctx.project, Firing("delay", "blocked/a", 7, "broken", "blocked")).number == 0
        assert rows.fire(tx, ctx.project, Firing("other", "every/7d/1", 8, "due", "enqueued")).number == 2
        assert rows.last_fired(tx, ctx.project, "delay") == 5
        assert [f.outcome for f in rows.firings(tx, ctx.project, "delay")] == ["blocked", "enqueued"]

from dataclasses import replace

from everloop.catalog import facts, refs, tasks, versions
from everloop.catalog.chain import seal
from everloop.catalog.operating import alarms as rows
from everloop.catalog.operation import invoke
from everloop.core.clock import DAY, MINUTE
from everloop.core.version import Version
from everloop.watch.alarms import Resolve, Sight, Signal, record, resolve
from everloop.watch.baseline import model_scorer
from everloop.watch.operations import Tick, tick, tick_now
from everloop.watch.triggers import TASK, due_windows, fire


def queued(world):
    with world.ctx.read() as tx:
        found = tasks.list(tx, world.ctx.project)
    return [task for task in found if task.kind == TASK]


def alarm(world, kind="drift", days=2):
    """Open an alarm by windows that end now."""
    now = world.clock.now()
    for day in range(days):
        start = now + day * DAY
        signal = Signal(kind, "weather__wind", "moved", 3.0, blocks=kind == "fault")
        with world.ctx.write() as tx:
            (saved,) = record(world.ctx, tx, Sight("delay", "delay", start, start + DAY, (signal,)))
        world.clock.advance(start + DAY)
    return saved


def test_a_schedule_fires_once_a_period_by_the_replayed_clock(world):
    assert fire(world.ctx) == []
    start = world.clock.now()
    world.clock.advance(start + 30 * DAY)
    (firing,) = fire(world.ctx)
    assert fire(world.ctx) == []
    (task,) = queued(world)
    assert task.payload["environment"] == "sandbox/auto/1"
    assert task.payload["model"] == "delay"
    assert firing.reason.startswith("every 30d: due at")
    world.clock.advance(start + 59 * DAY)
    assert fire(world.ctx) == []
    world.clock.advance(start + 61 * DAY)
    assert [f.number for f in fire(world.ctx)] == [2]
    assert len(queued(world)) == 2


def test_an_alarm_fires_once_and_the_cooldown_holds(world):
    opened = alarm(world)
    (firing,) = fire(world.ctx)
    assert firing.fire == f"alarm/{opened.id}"
    assert fire(world.ctx) == []
    signal = (Signal("drift", "distance", "moved", 2.0),)
    for day in range(2, 4):  # another incident within the cool-down of two days
        start = world.clock.now()
        with world.ctx.write() as tx:
            record(world.ctx, tx, Sight("delay", "delay", start, start + DAY // 2, signal))
        world.clock.advance(start + DAY // 2)
        assert fire(world.ctx) == [], day
    world.clock.advance(world.clock.now() + DAY + MINUTE)
    (second,) = fire(world.ctx)
    assert second.fire.startswith("alarm/")
    assert second.fire != firing.fire


def test_suspicions_and_false_alarms_do_not_fire(world):
    suspected = alarm(world, days=1)
    assert suspected.state == "suspect"
    assert fire(world.ctx) == []
    with world.ctx.write() as tx:
        rows.save(tx, world.ctx.project, replace(suspected, state="acknowledged", opened=world.clock.now(), real=False))
    assert fire(world.ctx) == []


def test_a_broken_sensor_blocks_schedules_too_until_it_is_resolved(world):
    broken = alarm(world, kind="fault", days=1)
    world.clock.advance(world.clock.now() + 40 * DAY)
    (blocked,) = fire(world.ctx)
    assert blocked.outcome == "blocked"
    assert fire(world.ctx) == []  # said once
    assert not queued(world)
    invoke(world.ctx, resolve, Resolve(id=broken.id, real=True))
    (firing,) = fire(world.ctx)
    assert firing.outcome == "enqueued"
    seal(world.ctx.catalog, world.clock)
    with world.ctx.read() as tx:
        told = [f.kind for f in facts.tail(tx, world.ctx.project, kinds=("retrain.*",))]
    assert told == ["retrain.fired", "retrain.blocked"]


def test_new_rows_fire_once_for_a_head(world):
    def head(rows_, old):
        version = Version("data", "flights", {"rows": rows_})
        with world.ctx.write() as tx:
            versions.put(tx, world.ctx.project, version, actor="ada", at=world.clock.now())
            ref = refs.head_ref("production", "flights")
            refs.move(tx, world.ctx.project, ref, old=old, new=version.id, actor="ada", at=world.clock.now())
        return version.id

    small = head(4_999, None)
    assert fire(world.ctx) == []
    head(5_400, small)
    (firing,) = fire(world.ctx)
    assert "5,400 since the live model" in firing.reason
    assert fire(world.ctx) == []


def test_a_tick_catches_up_and_a_unit_change_never_retrains(world):
    score = model_scorer(world.ctx)
    world.serve(0)
    world.serve(1)
    reports, fired = tick(world.ctx, score=score)
    assert [r.state for r in reports] == ["ok", "ok"]
    assert fired == []
    assert due_windows(world.ctx, world.monitor) == []
    world.serve(2, change=lambda inputs: {**inputs, "weather__wind": inputs["weather__wind"] * 1000})
    done = invoke(world.ctx, tick_now, Tick())
    assert len(done.evaluated) == 1
    assert done.fired == ()
    assert "unit change" in done.blocked[0]
    assert not queued(world)


def test_drift_of_the_served_world_retrains(world):
    world.serve(0)
    for day in (1, 2):
        world.serve(day, change=lambda inputs: {**inputs, "weather__wind": inputs["weather__wind"] + 3})
    _, (firing,) = tick(world.ctx, score=model_scorer(world.ctx))
    assert firing.outcome == "enqueued"
    assert "alarm on delay" in firing.reason
    assert len(queued(world)) == 1

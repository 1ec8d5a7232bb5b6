"""The queue; one suite over both databases."""

import pytest

from everloop.catalog import tasks
from everloop.core.clock import SECOND
from everloop.core.errors import Conflict, InvalidInput, NotFound

P = "flights"
NOW = 1_000 * SECOND


@pytest.fixture
def queue(catalog):
    def add(kind="run", payload=None, **more):
        with catalog.write() as tx:
            return tasks.enqueue(tx, P, kind, payload or {}, actor="ada", now=more.pop("now", NOW), **more)

    def claim(owner="w", kinds=("run",), lease=10, now=NOW):
        return tasks.claim(catalog, owner, kinds, lease, now)

    return add, claim


def state(catalog, identity):
    with catalog.read() as tx:
        return tasks.get(tx, P, identity)


def test_a_task_is_claimed_once_and_finished_with_its_result(catalog, queue):
    add, claim = queue
    identity = add(payload={"asset": "model/delay"})
    assert claim(kinds=["other"]) is None
    task = claim("worker-1")
    assert (task.id, task.payload, task.state, task.attempt, task.owner) == (
        identity, {"asset": "model/delay"}, "running", 1, "worker-1",
    )  # fmt: skip
    assert claim("worker-2") is None
    with catalog.write() as tx:
        tasks.finish(tx, task, {"version": "v"}, now=NOW + 5)
    done = state(catalog, identity)
    assert (done.state, done.result, done.finished) == ("done", {"version": "v"}, NOW + 5)
    assert claim(now=NOW + 3600 * SECOND) is None


def test_urgent_tasks_come_first_and_none_before_its_time(queue):
    add, claim = queue
    late = add(not_before=NOW + 50 * SECOND, priority=9)
    low, high = add(now=NOW - 5), add(priority=5)
    assert [claim().id, claim().id, claim()] == [high, low, None]
    assert claim(now=NOW + 50 * SECOND, lease=999).id == late


def test_a_task_of_a_dead_worker_is_taken_up_again_and_the_dead_one_is_fenced(catalog, queue):
    add, claim = queue
    identity = add()
    dead = claim("dead", lease=10)
    assert claim(now=NOW + 9 * SECOND) is None
    with catalog.write() as tx:
        tasks.heartbeat(tx, dead, lease_seconds=20, now=NOW + 9 * SECOND)
    assert claim(now=NOW + 28 * SECOND) is None
    alive = claim("alive", now=NOW + 29 * SECOND)
    assert (alive.id, alive.attempt) == (identity, 2)
    for act in (
        lambda tx: tasks.heartbeat(tx, dead, lease_seconds=20, now=NOW),
        lambda tx: tasks.finish(tx, dead, now=NOW),
        lambda tx: tasks.fail(tx, dead, "no", now=NOW),
    ):
        with pytest.raises(Conflict, match="taken over") as caught, catalog.write() as tx:
            act(tx)
        assert caught.value.hint
    assert state(catalog, identity).state == "running"


def test_a_task_that_kills_its_workers_is_given_up(catalog, queue):
    add, claim = queue
    identity = add(attempts=2)
    assert [claim(now=NOW + n * 20 * SECOND).attempt for n in range(2)] == [1, 2]
    assert claim(now=NOW + 60 * SECOND) is None
    given_up = state(catalog, identity)
    assert (given_up.state, "no attempt is left" in given_up.error) == ("failed", True)


def test_a_failure_is_tried_again_later_until_the_attempts_are_spent(catalog, queue):
    add, claim = queue
    identity = add(attempts=2)
    task = claim()
    with catalog.write() as tx:
        retry_at = tasks.back_off(task.attempt, NOW)
        assert tasks.fail(tx, task, "the disk was slow", now=NOW, retry_at=retry_at) == "queued"
    assert state(catalog, identity).error == "the disk was slow"
    assert claim() is None
    again = claim(now=retry_at)
    assert again.attempt == 2
    with catalog.write() as tx:
        assert tasks.fail(tx, again, "the disk is gone", now=NOW, retry_at=NOW) == "failed"
    assert state(catalog, identity).error == "the disk is gone"


def test_a_failure_without_a_retry_is_final(catalog, queue):
    add, claim = queue
    identity = add()
    task = claim()
    with catalog.write() as tx:
        assert tasks.fail(tx, task, "wrong input", now=NOW) == "failed"
    assert state(catalog, identity).state == "failed"


def test_back_off_doubles_up_to_its_cap():
    assert [tasks.back_off(n, 0) // SECOND for n in (1, 2, 3, 4, 9, 10, 99)] == [1, 2, 4, 8, 256, 300, 300]


def test_one_task_of_a_kind_and_dedupe_is_open_at_a_time(catalog, queue):
    add, claim = queue
    first = add(dedupe="model/delay")
    assert add(dedupe="model/delay") == first
    assert add("other", dedupe="model/delay") != first
    task = claim()
    assert add(dedupe="model/delay") == first  # also while it runs
    with catalog.write() as tx:
        tasks.finish(tx, task, now=NOW)
    assert add(dedupe="model/delay") != first
    assert add() != add()  # without a dedupe nothing is shared


def test_a_cancelled_task_tells_its_worker_at_the_next_heartbeat(catalog, queue):
    add, claim = queue
    waiting, running = add(), add(priority=1)
    task = claim()
    assert task.id == running
    with catalog.write() as tx:
        for identity in (waiting, running):
            assert tasks.cancel(tx, P, identity, now=NOW).state == "cancelled"
    with pytest.raises(Conflict, match="cancelled"), catalog.write() as tx:
        tasks.heartbeat(tx, task, lease_seconds=5, now=NOW)
    assert claim(now=NOW + 99 * SECOND) is None
    with pytest.raises(NotFound), catalog.write() as tx:
        tasks.cancel(tx, P, "task-absent", now=NOW)


def test_tasks_are_listed_by_kind_and_state(catalog, queue):
    add, claim = queue
    old, new = add(now=NOW), add("check", now=NOW + 1)
    claim()
    with catalog.read() as tx:
        assert [t.id for t in tasks.list(tx, P)] == [new, old]
        assert [t.id for t in tasks.list(tx, P, kinds=["check"])] == [new]
        assert [t.id for t in tasks.list(tx, P, states=["running"])] == [old]
        assert tasks.list(tx, "other") == ()
        with pytest.raises(NotFound):
            tasks.get(tx, "other", old)


def test_a_task_needs_an_attempt(queue):
    add, _ = queue
    with pytest.raises(InvalidInput):
        add(attempts=0)


def test_an_effect_and_its_finish_are_one(catalog, queue):
    add, claim = queue
    identity = add()
    lost = claim(lease=1)
    claim("other", now=NOW + 2 * SECOND)

    def effect():
        with catalog.write() as tx:
            tasks.enqueue(tx, P, "effect", {}, actor="w", now=NOW)
            tasks.finish(tx, lost, now=NOW)

    with pytest.raises(Conflict):
        effect()
    with catalog.read() as tx:
        assert [t.id for t in tasks.list(tx, P)] == [identity]

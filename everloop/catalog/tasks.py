"""The durable queue: work that outlives the process that does it.

A worker *claims* a task for the length of a lease and renews it by heartbeats. When it dies, the lease runs out and the
next claim takes the task up again with a higher attempt. The attempt is the fencing token: whoever still holds an older
one can neither finish nor fail the task. All times here are wall time, also under a replay clock.
"""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, case, or_, select, update

from everloop.catalog.engine import Catalog, Tx, insert_into
from everloop.catalog.tables.core import tasks
from everloop.core.clock import SECOND, Micros
from everloop.core.errors import Conflict, InvalidInput, NotFound
from everloop.core.ids import fresh_id

State = Literal["queued", "running", "done", "failed", "cancelled"]
_OPEN = ("queued", "running")
_OUT_OF_ATTEMPTS = "its worker died or stopped answering, and no attempt is left"


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it stood when it was read. A worker keeps the one it claimed: its `attempt` proves the claim."""

    id: str
    project: str
    kind: str
    payload: Mapping[str, Any]
    state: State
    priority: int
    dedupe: str
    actor: str
    created: Micros
    not_before: Micros
    attempt: int
    attempts: int
    owner: str
    lease_until: Micros
    finished: Micros | None
    result: Any
    error: str | None


def enqueue(
    tx: Tx,
    project: str,
    kind: str,
    payload: Mapping[str, Any],
    *,
    actor: str,
    now: Micros,
    dedupe: str = "",
    not_before: Micros = 0,
    priority: int = 0,
    attempts: int = 5,
) -> str:
    """Add a task and return its id. Higher `priority` runs first; nothing runs before `not_before`.

    While a task of the same kind and `dedupe` is queued or running, no second one is made: its id is returned.
    """
    if attempts < 1:
        raise InvalidInput("a task needs at least one attempt", hint="attempts=1 runs it once")
    identity = fresh_id("task")
    row = {
        "id": identity,
        "project": project,
        "kind": kind,
        "payload": json.dumps(dict(payload)),
        "state": "queued",
        "priority": priority,
        "dedupe": dedupe,
        "actor": actor,
        "created": now,
        "not_before": max(now, not_before),
        "attempt": 0,
        "attempts": attempts,
        "owner": "",
        "lease_until": 0,
    }
    same = and_(tasks.c.project == project, tasks.c.kind == kind, tasks.c.dedupe == dedupe, tasks.c.state.in_(_OPEN))
    while tx.execute(insert_into(tx, tasks).on_conflict_do_nothing(), row).rowcount == 0:
        # the other one may end between our two statements; then there is room for this one
        if existing := tx.execute(select(tasks.c.id).where(same)).scalar():
            return str(existing)
    return identity


def claim(catalog: Catalog, owner: str, kinds: Collection[str], lease_seconds: float, now: Micros) -> Task | None:
    """Take the most urgent task of these kinds, for `lease_seconds`; None when there is nothing to do.

    A task whose lease ran out is taken up again, or failed when it has no attempt left. Of several workers that ask at
    once each gets another task.
    """
    with catalog.read() as tx:  # an idle worker must not queue for the write lock
        if tx.execute(select(tasks.c.id).where(_claimable(kinds, now)).limit(1)).first() is None:
            return None
    with catalog.write() as tx:
        spent = and_(_claimable(kinds, now), tasks.c.state == "running", tasks.c.attempt >= tasks.c.attempts)
        hopeless = select(tasks.c.id).where(spent).with_for_update(skip_locked=True)
        tx.execute(
            update(tasks)
            .where(tasks.c.id.in_(hopeless.scalar_subquery()))
            .values(state="failed", error=_OUT_OF_ATTEMPTS, finished=now)
        )
        chosen = (
            select(tasks.c.id)
            .where(_claimable(kinds, now))
            .order_by(tasks.c.priority.desc(), tasks.c.not_before, tasks.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        taken = (
            update(tasks)
            .where(tasks.c.id == chosen.scalar_subquery())
            .values(
                state="running",
                attempt=tasks.c.attempt + 1,
                owner=owner,
                lease_until=now + round(lease_seconds * SECOND),
            )
            .returning(tasks)
        )
        row = tx.execute(taken).first()
        return None if row is None else _task(row)


def heartbeat(tx: Tx, task: Task, *, lease_seconds: float, now: Micros) -> None:
    """Renew the lease. Raises `Conflict` when the task is not this worker's any more: stop the work at once."""
    until = now + round(lease_seconds * SECOND)
    _fenced(tx, task, {"lease_until": until})


def owners(tx: Tx) -> set[str]:
    """Who works on something now, in every project."""
    return set(tx.execute(select(tasks.c.owner).where(tasks.c.state == "running").distinct()).scalars())


def is_dead(owner: str) -> bool:
    """Whether an owner, `node:pid` or `name@node:pid`, was a process of this machine and is one no more."""
    place, _, pid = owner.rpartition(":")
    if place.rpartition("@")[2] != os.uname().nodename or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def release(tx: Tx, owner: str) -> int:
    """End the leases of an owner that is known to be dead, so that its tasks are taken up at once; returns how many."""
    held = and_(tasks.c.state == "running", tasks.c.owner == owner)
    return int(tx.execute(update(tasks).where(held).values(lease_until=0)).rowcount)


def finish(tx: Tx, task: Task, result: Any = None, *, now: Micros) -> None:
    """Record success, in the transaction of what the task did. Raises `Conflict` when the claim is lost."""
    _fenced(tx, task, {"state": "done", "result": json.dumps(result), "finished": now, "error": None})


def fail(tx: Tx, task: Task, error: str, *, now: Micros, retry_at: Micros | None = None) -> State:
    """Record a failure; with `retry_at` (see `back_off`) and an attempt left, queue it again for then.

    Returns the state that the task is in now. Raises `Conflict` when the claim is lost.
    """
    if retry_at is not None and task.attempt < task.attempts:
        _fenced(tx, task, {"state": "queued", "not_before": retry_at, "error": error, "owner": "", "lease_until": 0})
        return "queued"
    _fenced(tx, task, {"state": "failed", "error": error, "finished": now})
    return "failed"


def back_off(attempt: int, now: Micros, *, base_seconds: float = 1.0, cap_seconds: float = 300.0) -> Micros:
    """When to try again after failed attempt number `attempt`: 1 s, 2 s, 4 s, … after now, at most `cap_seconds`."""
    return now + round(min(cap_seconds, base_seconds * 2.0 ** min(attempt - 1, 30)) * SECOND)


def cancel(tx: Tx, project: str, identity: str, *, now: Micros) -> Task:
    """End a task that is queued or running; its worker learns it from the next heartbeat. Others stay as they are."""
    is_open = and_(tasks.c.project == project, tasks.c.id == identity, tasks.c.state.in_(_OPEN))
    tx.execute(update(tasks).where(is_open).values(state="cancelled", finished=now))
    return get(tx, project, identity)


def get(tx: Tx, project: str, identity: str) -> Task:
    """The task with this id; raises `NotFound`."""
    row = tx.execute(select(tasks).where(tasks.c.project == project, tasks.c.id == identity)).first()
    if row is None:
        raise NotFound(f"no task {identity} in project {project}", hint="`everloop tasks` lists them")
    return _task(row)


def list(  # noqa: A001 - read as tasks.list
    tx: Tx,
    project: str,
    *,
    kinds: Collection[str] = (),
    states: Collection[State] = (),
    limit: int = 100,
) -> tuple[Task, ...]:
    """Tasks, newest first, of these kinds and states (all when empty)."""
    query = select(tasks).where(tasks.c.project == project)
    if kinds:
        query = query.where(tasks.c.kind.in_(kinds))
    if states:
        query = query.where(tasks.c.state.in_(states))
    return tuple(_task(row) for row in tx.execute(query.order_by(tasks.c.created.desc(), tasks.c.id).limit(limit)))


def newest(tx: Tx, project: str, kind: str, keys: Collection[str]) -> dict[str, Task]:
    """The newest task of a kind for each `dedupe` key that has one: the open one, or else how the last one ended."""
    of_keys = and_(tasks.c.project == project, tasks.c.kind == kind, tasks.c.dedupe.in_(keys))
    found = {row.dedupe: _task(row) for row in tx.execute(select(tasks).where(of_keys, tasks.c.state.in_(_OPEN)))}
    if left := [key for key in keys if key not in found]:
        ended = select(tasks).where(of_keys, tasks.c.dedupe.in_(left)).order_by(tasks.c.created, tasks.c.id)
        found |= {row.dedupe: _task(row) for row in tx.execute(ended)}
    return found


def _claimable(kinds: Collection[str], now: Micros) -> ColumnElement[bool]:
    queued = and_(tasks.c.state == "queued", tasks.c.not_before <= now)
    orphaned = and_(tasks.c.state == "running", tasks.c.lease_until <= now)
    return and_(tasks.c.kind.in_(kinds), or_(queued, orphaned))


def _fenced(tx: Tx, task: Task, values: dict[str, Any]) -> None:
    held = and_(tasks.c.id == task.id, tasks.c.state == "running", tasks.c.attempt == task.attempt)
    if tx.execute(update(tasks).where(held).values(values)).rowcount != 1:
        state = tx.execute(
            select(case((tasks.c.state == "running", "taken over by another worker"), else_=tasks.c.state)).where(
                tasks.c.id == task.id
            )
        ).scalar()
        raise Conflict(f"task {task.id} is {state or 'gone'}", hint="stop: this attempt's outcome is not accepted")


def _task(row: Row[Any]) -> Task:
    return Task(
        id=row.id,
        project=row.project,
        kind=row.kind,
        payload=json.loads(row.payload),
        state=row.state,
        priority=row.priority,
        dedupe=row.dedupe,
        actor=row.actor,
        created=row.created,
        not_before=row.not_before,
        attempt=row.attempt,
        attempts=row.attempts,
        owner=row.owner,
        lease_until=row.lease_until,
        finished=row.finished,
        result=None if row.result is None else json.loads(row.result),
        error=row.error,
    )

"""Rows of live feeds: how far each was read, written in the transaction of the version that holds what was read."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.operating import feed_keys, feeds
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, NotFound

RECENT = 60
"""How many commits a row tells of."""
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Feed:
    """Where a feed stands."""

    project: str
    environment: str
    name: str
    state: str
    revision: int
    position: Mapping[str, Any]
    rows: int
    dead: int
    duplicates: int
    recent: tuple[tuple[int, int, int, int], ...]
    """The newest commits, oldest first: wall time, rows, dead letters, microseconds since its oldest event arrived."""
    committed: Micros
    waiting: int
    error: str
    owner: str
    until: Micros


@dataclass(frozen=True, slots=True)
class Progress:
    """What a commit adds to a feed."""

    position: Mapping[str, Any]
    rows: int
    dead: int
    duplicates: int
    delay: Micros
    waiting: int
    keys: tuple[str, ...] = ()
    """Idempotency keys of the batches in it."""


def start(tx: Tx, project: str, environment: str, name: str) -> None:
    """Make a feed known and running; one that is known runs again."""
    row = {"project": project, "environment": environment, "name": name, "state": "running", "revision": 0}
    row |= {"position": "{}", "rows": 0, "dead": 0, "duplicates": 0, "recent": "[]", "committed": 0, "waiting": 0}
    row |= {"error": "", "owner": "", "until": 0}
    again = insert_into(tx, feeds).on_conflict_do_update(
        index_elements=["project", "environment", "name"], set_={"state": "running", "error": ""}
    )
    tx.execute(again, [row])


def pause(tx: Tx, project: str, environment: str, name: str) -> None:
    """Stop reading it; what arrives waits. Raises `NotFound`."""
    if not tx.execute(update(feeds).where(*_here(project, environment, name)).values(state="paused")).rowcount:
        raise _unknown(environment, name)


def get(tx: Tx, project: str, environment: str, name: str) -> Feed:
    """One feed; raises `NotFound`."""
    row = tx.execute(select(feeds).where(*_here(project, environment, name))).first()
    if row is None:
        raise _unknown(environment, name)
    return _feed(row)


def all_feeds(tx: Tx, project: str | None = None) -> list[Feed]:
    """The feeds of a project, or of all."""
    query = select(feeds).order_by(feeds.c.project, feeds.c.environment, feeds.c.name)
    return [_feed(row) for row in tx.execute(query if project is None else query.where(feeds.c.project == project))]


def take(tx: Tx, feed: Feed, owner: str, *, until: Micros, now: Micros, dead: Collection[str] = ()) -> bool:
    """Become the feed's consumer, or stay it; False while another one is. `dead` are owners that are gone."""
    free = (feeds.c.owner == owner) | (feeds.c.until < now) | feeds.c.owner.in_([*dead])
    where = (*_here(feed.project, feed.environment, feed.name), free)
    return bool(tx.execute(update(feeds).where(*where).values(owner=owner, until=until)).rowcount)


def complain(tx: Tx, feed: Feed, error: str) -> None:
    """Write down why a feed stands still."""
    tx.execute(update(feeds).where(*_here(feed.project, feed.environment, feed.name)).values(error=error))


def advance(tx: Tx, feed: Feed, progress: Progress, *, at: Micros) -> None:
    """Record a commit on top of `feed`; `Conflict` when another consumer committed meanwhile."""
    recent = [*feed.recent, (at, progress.rows, progress.dead, progress.delay)][-RECENT:]
    values = {
        "revision": feed.revision + 1,
        "position": json.dumps(progress.position, sort_keys=True),
        "rows": feed.rows + progress.rows,
        "dead": feed.dead + progress.dead,
        "duplicates": feed.duplicates + progress.duplicates,
        "recent": json.dumps(recent),
        "committed": at,
        "waiting": progress.waiting,
        "error": "",
    }
    where = (*_here(feed.project, feed.environment, feed.name), feeds.c.revision == feed.revision)
    if not tx.execute(update(feeds).where(*where).values(**values)).rowcount:
        raise Conflict(f"another consumer read {feed.name} meanwhile", hint="start again from its position")
    here = {"project": feed.project, "environment": feed.environment, "name": feed.name, "at": at}
    if progress.keys:
        tx.execute(insert_into(tx, feed_keys).on_conflict_do_nothing(), [{**here, "key": k} for k in progress.keys])


def had(tx: Tx, feed: Feed, keys: Collection[str]) -> set[str]:
    """Which of these batches are in a commit already."""
    wanted = sorted(keys)
    found: set[str] = set()
    here = (feed_keys.c.project == feed.project, feed_keys.c.environment == feed.environment)
    for start_at in range(0, len(wanted), _CHUNK):
        chunk = wanted[start_at : start_at + _CHUNK]
        query = select(feed_keys.c.key).where(*here, feed_keys.c.name == feed.name, feed_keys.c.key.in_(chunk))
        found.update(tx.execute(query).scalars())
    return found


def forget_keys(tx: Tx, feed: Feed, *, before: Micros) -> None:
    """Forget batches that nobody sends again any more."""
    here = (feed_keys.c.project == feed.project, feed_keys.c.environment == feed.environment)
    tx.execute(delete(feed_keys).where(*here, feed_keys.c.name == feed.name, feed_keys.c.at < before))


def _here(project: str, environment: str, name: str) -> tuple[Any, ...]:
    return feeds.c.project == project, feeds.c.environment == environment, feeds.c.name == name


def _feed(row: Any) -> Feed:
    values = row._asdict()
    values["position"] = json.loads(values["position"])
    values["recent"] = tuple(tuple(entry) for entry in json.loads(values["recent"]))
    return Feed(**values)


def _unknown(environment: str, name: str) -> NotFound:
    return NotFound(
        f"nothing was fed to {name} in {environment} yet", hint=f"`everloop feed start {name}` makes it known"
    )

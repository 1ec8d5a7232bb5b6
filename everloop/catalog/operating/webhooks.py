"""Webhooks: whom to tell what, and how far the log was read for each project."""

import secrets
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.core import chains
from everloop.catalog.tables.operating import webhook_cursors, webhook_events, webhooks
from everloop.catalog.tracking.rows import Page
from everloop.catalog.tracking.search import Term, fetch_page
from everloop.core.clock import Micros
from everloop.core.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Webhook:
    """Somebody who wants to be told of events, each `entity.action`. `secret` is sealed."""

    id: str
    name: str
    url: str
    events: tuple[str, ...]
    status: str
    created: Micros
    updated: Micros
    description: str = ""
    secret: str = ""
    since: int = 0
    """Facts up to this position are not told."""


def new_id() -> str:
    """An id for a webhook."""
    return secrets.token_hex(16)


def create(tx: Tx, project: str, hook: Webhook) -> Webhook:
    """Add one; it is told of what is recorded from now on."""
    head = _head(tx, project)
    row = {
        "project": project,
        "id": hook.id,
        "name": hook.name,
        "description": hook.description,
        "url": hook.url,
        "secret": hook.secret,
        "status": hook.status,
        "since": head,
        "created": hook.created,
        "updated": hook.updated,
    }
    others = select(func.count()).select_from(webhooks).where(webhooks.c.project == project)
    if tx.execute(others).scalar_one() == 0:  # nobody was told meanwhile, so nothing before now has to be read
        tx.execute(delete(webhook_cursors).where(webhook_cursors.c.project == project))
        tx.execute(insert_into(tx, webhook_cursors).on_conflict_do_nothing(), {"project": project, "position": head})
    tx.execute(insert(webhooks).values(row))
    _put_events(tx, project, hook.id, hook.events)
    return get(tx, project, hook.id)


def get(tx: Tx, project: str, identity: str) -> Webhook:
    """The webhook; raises `NotFound`."""
    row = tx.execute(select(webhooks).where(webhooks.c.project == project, webhooks.c.id == identity)).first()
    if row is None:
        raise NotFound(f"Webhook with ID {identity} not found.", hint="list the webhooks")
    return _loaded(tx, project, [row])[0]


def find(tx: Tx, project: str, *, limit: int = 100, token: str = "") -> Page[Webhook]:
    """A page of webhooks, the oldest first; raises `InvalidInput` for a wrong token."""
    statement = select(webhooks).where(webhooks.c.project == project)
    terms = [Term(webhooks.c.created), Term(webhooks.c.id)]
    found, following = fetch_page(tx, statement, terms, limit=limit, token=token, query=["webhooks", project])
    return Page(tuple(_loaded(tx, project, found)), following)


def change(
    tx: Tx, project: str, identity: str, *, at: Micros, events: Sequence[str] | None = None, **values: str
) -> Webhook:
    """Replace some of its fields, and its events where they are given; raises `NotFound`."""
    get(tx, project, identity)
    here = (webhooks.c.project == project, webhooks.c.id == identity)
    tx.execute(update(webhooks).where(*here).values(**values, updated=at))
    if events is not None:
        _delete_events(tx, project, identity)
        _put_events(tx, project, identity, events)
    return get(tx, project, identity)


def remove(tx: Tx, project: str, identity: str) -> None:
    """Delete it; raises `NotFound`."""
    get(tx, project, identity)
    _delete_events(tx, project, identity)
    tx.execute(delete(webhooks).where(webhooks.c.project == project, webhooks.c.id == identity))


def listening(tx: Tx, project: str) -> dict[str, list[Webhook]]:
    """The active webhooks of a project, by event."""
    active = (webhooks.c.project == project, webhooks.c.status == "ACTIVE")
    found: dict[str, list[Webhook]] = defaultdict(list)
    for hook in _loaded(tx, project, tx.execute(select(webhooks).where(*active)).all()):
        for event in hook.events:
            found[event].append(hook)
    return found


def behind(tx: Tx) -> dict[str, int]:
    """Where the log was read up to, for each project whose log has grown since."""
    joined = webhook_cursors.join(chains, chains.c.project == webhook_cursors.c.project)
    grown = (
        select(webhook_cursors.c.project, webhook_cursors.c.position)
        .select_from(joined)
        .where(chains.c.position > webhook_cursors.c.position)
    )
    return {row.project: row.position for row in tx.execute(grown)}


def advance(tx: Tx, project: str, *, old: int, new: int) -> None:
    """Say that the log was read up to `new`; raises `Conflict` when somebody else read it meanwhile."""
    at_old = (webhook_cursors.c.project == project, webhook_cursors.c.position == old)
    if tx.execute(update(webhook_cursors).where(*at_old).values(position=new)).rowcount != 1:
        raise Conflict(f"the log of {project} is read by another worker", hint="nothing has to be done")


def _head(tx: Tx, project: str) -> int:
    return tx.execute(select(chains.c.position).where(chains.c.project == project)).scalar() or 0


def _loaded(tx: Tx, project: str, rows: Collection[Row[Any]]) -> list[Webhook]:
    events: dict[str, list[str]] = defaultdict(list)
    mine = (webhook_events.c.project == project, webhook_events.c.webhook.in_([row.id for row in rows]))
    for row in tx.execute(select(webhook_events).where(*mine).order_by(webhook_events.c.event)):
        events[row.webhook].append(row.event)
    return [
        Webhook(
            id=row.id,
            name=row.name,
            url=row.url,
            events=tuple(events[row.id]),
            status=row.status,
            created=row.created,
            updated=row.updated,
            description=row.description,
            secret=row.secret,
            since=row.since,
        )
        for row in rows
    ]


def _put_events(tx: Tx, project: str, identity: str, events: Sequence[str]) -> None:
    rows = [{"project": project, "webhook": identity, "event": event} for event in sorted(set(events))]
    if rows:
        tx.execute(insert(webhook_events), rows)


def _delete_events(tx: Tx, project: str, identity: str) -> None:
    here = (webhook_events.c.project == project, webhook_events.c.webhook == identity)
    tx.execute(delete(webhook_events).where(*here))

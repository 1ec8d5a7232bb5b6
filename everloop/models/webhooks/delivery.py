"""From the log of facts to tasks, and from a task to a delivery."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from everloop.catalog import facts, tasks
from everloop.catalog.context import Context
from everloop.catalog.engine import Catalog
from everloop.catalog.operating import webhooks
from everloop.catalog.operating.webhooks import Webhook
from everloop.core.clock import SECOND, Clock, iso
from everloop.core.errors import Conflict, InvalidInput, NotFound, PolicyRefused, Unavailable
from everloop.models.webhooks import events
from everloop.models.webhooks.reach import Reach
from everloop.models.webhooks.sending import Reply, headers, post

TASK = "webhooks.deliver"
ACTOR = "webhooks"
ATTEMPTS = 8
"""With back-off this is about two minutes; then the task says that it failed."""
_AT_ONCE = 500
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_PURPOSE = "webhook secret"


def dispatch(catalog: Catalog, clock: Clock) -> int:
    """Make a task for every delivery that the log asks for since the last look; returns how many.

    The place in the log moves in the transaction that makes the tasks: each event is told once to each webhook.
    """
    with catalog.read() as tx:
        behind = webhooks.behind(tx)
    return sum(_advance(catalog, clock, project, position) for project, position in behind.items())


def deliver(ctx: Context, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Deliver what a task says.

    Raises `Unavailable` when another attempt may help, `PolicyRefused` when the receiver refused it for good.
    """
    with ctx.read() as tx:
        try:
            hook = webhooks.get(tx, ctx.project, payload["webhook"])
        except NotFound:
            return {"skipped": "the webhook was deleted"}
    if hook.status != "ACTIVE":
        return {"skipped": "the webhook is disabled"}
    reply = send(ctx, hook, payload["event"], payload["data"], delivery=payload["delivery"], at=payload["at"])
    if reply.status in _AGAIN:
        raise Unavailable(f"{hook.name} answered {reply.status}", hint="it is tried again")
    if not 200 <= reply.status < 300:
        raise PolicyRefused(f"{hook.name} answered {reply.status}", hint="redirects are not followed")
    return {"status": reply.status}


def send(ctx: Context, hook: Webhook, event: str, data: Mapping[str, Any], *, delivery: str, at: str) -> Reply:
    """Post one event now; raises `InvalidInput` where it may not lead, `Unavailable` when nobody answers.

    A context may hold its own policy, as the port `reach`.
    """
    reach: Reach = ctx.ports.get("reach", Reach())
    place = reach.place(hook.url)
    entity, _, action = event.partition(".")
    body = json.dumps(
        {"entity": entity, "action": action, "timestamp": at, "data": dict(data), "workspace": ctx.project}
    )
    secret = opened(ctx, hook)
    return post(place, body, headers(secret, delivery, str(ctx.wall() // SECOND), body))


def check(ctx: Context, url: str) -> None:
    """Raise `InvalidInput` for a URL that a webhook may not lead to, or whose host nobody knows."""
    reach: Reach = ctx.ports.get("reach", Reach())
    try:
        reach.place(url)
    except Unavailable as error:
        raise InvalidInput(error.message, hint=error.hint) from None


def sealed(ctx: Context, webhook: str, secret: str) -> str:
    """A secret as it is stored: readable with the workspace's key, for this webhook of this project only."""
    if not secret:
        return ""
    if ctx.key is None:
        raise PolicyRefused("this workspace has no key to keep a secret with", hint="run everloop init")
    return ctx.key.seal(_PURPOSE, f"{ctx.project}/{webhook}", secret)


def opened(ctx: Context, hook: Webhook) -> str:
    """The secret of a webhook; raises `CorruptObject` when it was sealed with another key or for another webhook."""
    if not hook.secret:
        return ""
    if ctx.key is None:
        raise PolicyRefused("this workspace has no key to read a secret with", hint="run everloop init")
    return ctx.key.unseal(_PURPOSE, f"{ctx.project}/{hook.id}", hook.secret)


def _advance(catalog: Catalog, clock: Clock, project: str, position: int) -> int:
    made = 0
    with catalog.read() as tx:
        found = facts.since(tx, project, position, _AT_ONCE)
        told = webhooks.listening(tx, project)
    if not found:
        return 0
    try:
        with catalog.write() as tx:
            webhooks.advance(tx, project, old=position, new=found[-1].position)
            for one in found:
                event = one.kind.removeprefix(events.PREFIX)
                if not one.kind.startswith(events.PREFIX):
                    continue
                for hook in told.get(event, ()):
                    if one.position <= hook.since:
                        continue
                    payload = {
                        "webhook": hook.id,
                        "event": event,
                        "data": dict(one.payload),
                        "at": iso(one.at),
                        "delivery": str(uuid.uuid4()),
                    }
                    tasks.enqueue(tx, project, TASK, payload, actor=ACTOR, now=clock.wall(), attempts=ATTEMPTS)
                    made += 1
    except Conflict:
        return 0  # another worker was faster
    return made

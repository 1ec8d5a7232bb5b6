"""Webhooks of the registry. They send what happens here elsewhere, so all of it needs `system.write`."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.operating import webhooks
from everloop.catalog.operating.webhooks import Webhook
from everloop.core.clock import iso
from everloop.core.errors import InvalidInput, Unavailable
from everloop.core.grants import Target
from everloop.models.webhooks import delivery, events
from everloop.server.mlflow.endpoint import Endpoint
from everloop.server.mlflow.wire import Arguments, bounded, invalid, millis, page

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_STATUSES = {1: "ACTIVE", 2: "DISABLED"}
_MOST_SECRET = 1000


def webhook_json(hook: Webhook) -> dict[str, Any]:
    """A webhook for the client; its secret is never shown."""
    return {
        "webhook_id": hook.id,
        "name": hook.name,
        "url": hook.url,
        "events": [
            {"entity": entity.upper(), "action": action.upper()}
            for entity, _, action in (event.partition(".") for event in hook.events)
        ],
        "status": hook.status,
        "creation_timestamp": millis(hook.created),
        "last_updated_timestamp": millis(hook.updated),
        **({"description": hook.description} if hook.description else {}),
    }


def create(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST webhooks."""
    identity = webhooks.new_id()
    hook = Webhook(
        id=identity,
        secret=delivery.sealed(ctx, identity, _secret(args)),
        name=_name(args),
        url=_url(ctx, args),
        events=_events(args),
        status=args.choice("status", _STATUSES, "ACTIVE"),
        created=ctx.now(),
        updated=ctx.now(),
        description=bounded("description", args.text("description", ""), 1000),
    )
    with ctx.write() as tx:
        made = webhooks.create(tx, ctx.project, hook)
    return {"webhook": webhook_json(made)}


def get(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET webhooks/<id>."""
    with ctx.read() as tx:
        return {"webhook": webhook_json(webhooks.get(tx, ctx.project, args.text("webhook_id")))}


def find(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET webhooks."""
    with ctx.read() as tx:
        found = webhooks.find(tx, ctx.project, limit=args.limit(100, 1000), token=args.text("page_token", ""))
    return page("webhooks", [webhook_json(hook) for hook in found.rows], found.token)


def update(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """PATCH webhooks/<id>: the fields that are given."""
    identity, values = args.text("webhook_id"), {}
    if args.has("name"):
        values["name"] = _name(args)
    if args.has("description"):
        values["description"] = bounded("description", args.text("description", ""), 1000)
    if args.has("url"):
        values["url"] = _url(ctx, args)
    if args.has("status"):
        values["status"] = args.choice("status", _STATUSES, "ACTIVE")
    if args.has("secret"):
        values["secret"] = delivery.sealed(ctx, identity, _secret(args))
    named = _events(args) if args.parts("events") else None
    with ctx.write() as tx:
        made = webhooks.change(tx, ctx.project, identity, at=ctx.now(), events=named, **values)
    return {"webhook": webhook_json(made)}


def delete(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE webhooks/<id>."""
    with ctx.write() as tx:
        webhooks.remove(tx, ctx.project, args.text("webhook_id"))
    return {}


def test(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """POST webhooks/<id>/test: one delivery now, and what came of it."""
    with ctx.read() as tx:
        hook = webhooks.get(tx, ctx.project, args.text("webhook_id"))
    event = _event(args.part("event")) if args.has("event") else hook.events[0]
    told = events.example(event)
    try:
        reply = delivery.send(ctx, hook, event, told, delivery=str(uuid.uuid4()), at=iso(ctx.now()))
    except (InvalidInput, Unavailable) as error:
        return {"result": {"success": False, "error_message": f"Failed to test webhook: {error.message}"}}
    success = 200 <= reply.status < 300
    return {"result": {"success": success, "response_status": reply.status, "response_body": reply.body}}


def _name(args: Arguments) -> str:
    name = args.text("name")
    if _NAME.fullmatch(name) is None:
        raise invalid("name", name[:100], "letters, digits, '_', '.' and '-', 63 at most, ends being letters or digits")
    return name


def _url(ctx: Context, args: Arguments) -> str:
    url = args.text("url").strip()
    delivery.check(ctx, url)
    return url


def _secret(args: Arguments) -> str:
    return bounded("secret", args.text("secret", ""), _MOST_SECRET)


def _events(args: Arguments) -> tuple[str, ...]:
    found = tuple(_event(part) for part in args.parts("events"))
    if not found:
        raise invalid("events", [], "a webhook needs at least one event")
    return found


def _event(part: Arguments) -> str:
    return events.checked(part.text("entity"), part.text("action"))


def _on_webhook(_ctx: Context, args: Arguments) -> Target:
    return Target("webhook", args.text("webhook_id", "*") or "*")


def _endpoint(method: str, path: str, handler: Any, *, reads: bool = False) -> Endpoint:
    return Endpoint(method, path, handler, _on_webhook, reads=reads, audited=not reads, needs="system.write")


ENDPOINTS = (
    _endpoint("POST", "webhooks", create),
    _endpoint("GET", "webhooks", find, reads=True),
    _endpoint("GET", "webhooks/{webhook_id}", get, reads=True),
    _endpoint("PATCH", "webhooks/{webhook_id}", update),
    _endpoint("DELETE", "webhooks/{webhook_id}", delete),
    _endpoint("POST", "webhooks/{webhook_id}/test", test),
)

"""Alarms: the list, one with its evidence, and what people do with it in place."""

import json
from typing import Any

from starlette.responses import Response

from everloop.catalog import versions
from everloop.core.errors import CorruptObject, NotFound
from everloop.server.web.visit import Visit

_VERDICTS = {"": None, "yes": True, "no": False}


def index(visit: Visit) -> Response:
    """Open alarms, or all."""
    every = visit.query("show") == "all"
    found = visit.ask("alarms.list", all=every, suspects=True, limit=200).alarms
    return visit.page("alarms.html", title="Alarms", here="/alarms", alarms=found, every=every)


def show(visit: Visit) -> Response:
    """One alarm: what moved, on which evidence."""
    alarm = visit.ask("alarms.show", id=visit.part("id"))
    return visit.page(
        "alarm.html",
        title=alarm.title,
        here="/alarms",
        alarm=alarm,
        report=_report(visit, alarm.evidence),
        may=visit.may("alarms.resolve", id=alarm.id),
    )


def act(visit: Visit) -> Response:
    """Acknowledge, resolve or snooze."""
    identity, wanted = visit.part("id"), visit.part("act")
    note = visit.form.get("note", "")
    if wanted in ("acknowledge", "resolve"):
        visit.ask(f"alarms.{wanted}", id=identity, real=_VERDICTS.get(visit.form.get("real", "")), note=note)
    elif wanted == "snooze":
        visit.ask("alarms.snooze", id=identity, duration=visit.form.get("duration", ""), note=note)
    else:
        raise NotFound(f"nothing can be done to an alarm by {wanted!r}", hint="use the buttons of its page")
    return visit.go("alarms", identity)


def _report(visit: Visit, evidence: str) -> Any:
    """The stored report of the window that the alarm was last seen in; None when it is gone."""
    if not evidence:
        return None
    try:
        with visit.ctx.read() as tx:
            manifest = versions.get(tx, visit.ctx.project, evidence).manifest
        return json.loads(visit.ctx.store.get(str(manifest.get("object", ""))))
    except (NotFound, CorruptObject, ValueError):
        return None

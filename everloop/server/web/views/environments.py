"""Environments: the lanes that a project's start page shows, and what one of them holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from everloop.core.version import split_key
from everloop.server.web.visit import Visit

_SANDBOXES = 12
_MOVES = 8
_FACTS = 10


@dataclass(frozen=True, slots=True)
class Lane:
    """One environment with what waits for it."""

    environment: Any
    models: tuple[tuple[str, str], ...]
    """Names and labels of the models that it holds: (`delay`, `delay v7`)."""
    endpoints: tuple[Any, ...]
    waiting: tuple[Any, ...]
    """Open changes that would move it."""
    definitions: Mapping[str, int]
    """How many definitions of each kind."""


def lanes(visit: Visit) -> Response:
    """The start page: production, staging, sandboxes; changes and alarms that wait; what happened last."""
    every = visit.ask("environments.list").environments
    waiting = visit.ask("changes.list", state="open", limit=50).changes
    shown = sorted((e for e in every if e.protected), key=lambda e: e.name != "production")
    sandboxes = sorted((e for e in every if not e.protected), key=lambda e: -e.moved_at)
    return visit.page(
        "lanes.html",
        title="Environments",
        lanes=[_lane(visit, environment, waiting) for environment in shown],
        sandboxes=sandboxes[:_SANDBOXES],
        more=max(0, len(sandboxes) - _SANDBOXES),
        alarms=visit.ask("alarms.list", limit=10).alarms,
        waiting=waiting,
        facts=_told(visit) if visit.may("audit.facts") else None,
        moves=_moves(visit, [e.name for e in shown]),
    )


def show(visit: Visit) -> Response:
    """One environment: what it holds, and how its pointer moved."""
    name = visit.part("name")
    held = visit.ask("environments.show", environment=name)
    entries: dict[str, list[dict[str, Any]]] = {}
    for key, identity in sorted(held.entries.items()):
        kind, label = split_key(key)
        entries.setdefault(kind, []).append({"name": label, "id": identity, "label": held.labels.get(identity, key)})
    moves = visit.ask("environments.log", environment=name, limit=30, before=visit.whole("before")).moves
    return visit.page(
        "environment.html",
        title=name,
        environment=held,
        entries=entries,
        moves=moves,
        may_rollback=visit.may("environments.rollback", environment=name),
    )


def rollback(visit: Visit) -> Response:
    """Move the pointer back to a snapshot that was live here."""
    name = visit.part("name")
    visit.ask(
        "environments.rollback",
        environment=name,
        to=visit.form.get("to", "previous"),
        reason=visit.form.get("reason", ""),
    )
    return visit.go("environments", *name.split("/"))


def _lane(visit: Visit, environment: Any, waiting: list[Any]) -> Lane:
    keys = [split_key(key) for key in environment.entries]
    models = [name for kind, name in keys if kind == "model"]
    kinds = sorted({kind for kind, _ in keys})
    return Lane(
        environment,
        tuple((name, environment.labels.get(environment.entries[f"model/{name}"], name)) for name in models),
        tuple(visit.ask("endpoints.list", environment=environment.name).endpoints),
        tuple(change for change in waiting if change.target == environment.name),
        {kind: sum(1 for other, _ in keys if other == kind) for kind in kinds},
    )


def _moves(visit: Visit, names: list[str]) -> list[dict[str, Any]]:
    found = [
        {"environment": name, "move": move}
        for name in names
        for move in visit.ask("environments.log", environment=name, limit=_MOVES).moves
    ]
    return sorted(found, key=lambda entry: -entry["move"].at)[:_MOVES]


def _told(visit: Visit) -> list[Any]:
    """The newest facts that say what changed; who called which operation is for the audit."""
    found = visit.ask("audit.facts", limit=80).facts
    return [fact for fact in found if not fact.kind.startswith("audit.")][:_FACTS]

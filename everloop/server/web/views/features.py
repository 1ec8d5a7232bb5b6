"""Features: the views of an environment, how fresh each is, and a form that looks values up."""

from typing import Any

from starlette.responses import Response

from everloop.catalog import versions
from everloop.catalog.governance import annotations
from everloop.core.errors import EverloopError, InvalidInput
from everloop.data.catalogue.documents import said_of
from everloop.server.web.visit import Visit


def index(visit: Visit) -> Response:
    """Views and services of an environment; with `?service=`, the values of one entity."""
    environment = visit.query("environment", "production")
    held = visit.ask("environments.show", environment=environment)
    views = visit.ask("features.list", environment=environment).views
    with visit.ctx.read() as tx:
        services = {key.partition("/")[2]: i for key, i in held.entries.items() if key.startswith("service/")}
        manifests = versions.manifests(tx, visit.ctx.project, set(services.values()))
        named = [("view", view.name) for view in views] + [("service", name) for name in services]
        said = {of: said_of(annotations.of(tx, visit.ctx.project, *of)) for of in named}
    service = visit.query("service") or next(iter(sorted(services)), "")
    entities = list(manifests.get(services.get(service, ""), {}).get("entities", []))
    asked = {name: visit.query(f"e.{name}") for name in entities}
    values, problem = _values(visit, environment, asked, service=service)
    return visit.page(
        "features.html",
        title="Features",
        here="/features",
        environment=environment,
        environments=[e.name for e in visit.ask("environments.list").environments],
        views=views,
        services={name: manifests.get(identity, {}) for name, identity in sorted(services.items())},
        pinned=services,
        said=said,
        service=service,
        entities=entities,
        asked=asked,
        values=values,
        problem=problem,
    )


def show(visit: Visit) -> Response:
    """One view: definition, freshness, source, who uses it, how its features look online, parity; a look-up."""
    environment = visit.query("environment", "production")
    view = visit.ask("features.show", view=visit.part("view"), environment=environment)
    endpoints = [used.name for used in view.used_by if used.kind == "endpoint"]
    parities = [
        p
        for name in endpoints
        for p in visit.ask("features.parities", endpoint=name, environment=environment, limit=20).parities
    ]
    asked = {name: visit.query(f"e.{name}") for name in view.entity}
    values, problem = _values(visit, environment, asked, view=view.name)
    return visit.page(
        "feature_view.html",
        title=view.name,
        here="/features",
        environment=environment,
        view=view,
        seen={
            c.column: c for c in visit.ask("features.distributions", view=view.name, environment=environment).columns
        },
        counts=visit.ask("features.counts", view=view.name, environment=environment),
        unknown=values is not None and view.name in values.unknown,
        parities=sorted(parities, key=lambda p: -p.until),
        asked=asked,
        values={} if values is None else {f.output: values.values[0].get(f.output) for f in view.features},
        masked=[] if values is None else values.masked,
        problem=problem,
    )


def _values(visit: Visit, environment: str, asked: dict[str, str], **of: str) -> tuple[Any, EverloopError | None]:
    """The values of a service or a view, by its name."""
    if not any(of.values()) or not any(asked.values()):
        return None, None
    try:
        if not all(asked.values()):
            raise InvalidInput("every entity needs a value", hint="fill in all fields: " + ", ".join(asked))
        return visit.ask("features.get", environment=environment, entities=[asked], **of), None
    except EverloopError as error:
        return None, error

"""Features: the views of an environment, how fresh each is, and a form that looks values up."""

from typing import Any

from starlette.responses import Response

from everloop.catalog import versions
from everloop.core.errors import EverloopError, InvalidInput
from everloop.server.web.visit import Visit

_HOUR = 3_600_000_000


def index(visit: Visit) -> Response:
    """Views and services of an environment; with `?service=`, the values of one entity."""
    environment = visit.query("environment", "production")
    held = visit.ask("environments.show", environment=environment)
    views = visit.ask("features.list", environment=environment).views
    with visit.ctx.read() as tx:
        services = {key.partition("/")[2]: i for key, i in held.entries.items() if key.startswith("service/")}
        manifests = versions.manifests(tx, visit.ctx.project, {*services.values(), *(v.version for v in views)})
    service = visit.query("service") or next(iter(sorted(services)), "")
    entities = list(manifests.get(services.get(service, ""), {}).get("entities", []))
    asked = {name: visit.query(f"e.{name}") for name in entities}
    values, problem = _values(visit, environment, service, asked)
    return visit.page(
        "features.html",
        title="Features",
        here="/features",
        environment=environment,
        environments=[e.name for e in visit.ask("environments.list").environments],
        views=views,
        definitions={v.name: _definitions(manifests.get(v.version, {})) for v in views},
        services={name: manifests.get(identity, {}) for name, identity in sorted(services.items())},
        service=service,
        entities=entities,
        asked=asked,
        values=values,
        problem=problem,
    )


def _values(visit: Visit, environment: str, service: str, asked: dict[str, str]) -> tuple[Any, EverloopError | None]:
    if not service or not any(asked.values()):
        return None, None
    try:
        if not all(asked.values()):
            raise InvalidInput("every entity needs a value", hint="fill in all fields: " + ", ".join(asked))
        return visit.ask("features.get", environment=environment, service=service, entities=[asked]), None
    except EverloopError as error:
        return None, error


def _definitions(manifest: Any) -> list[str]:
    """The features of a view in words: `mean of dep_delay over 3 h`."""
    listed = []
    for feature in manifest.get("features", []):
        of = f" of {feature['column']}" if feature.get("column") else ""
        when = feature.get("where") or {}
        only = f" where {when['column']} {when['op']} {when['value']}" if when else ""
        listed.append(f"{feature.get('function', '?')}{of}{_length(feature.get('window'))}{only}")
    return listed


def _length(micros: Any) -> str:
    if not isinstance(micros, int) or micros <= 0:
        return ""
    hours = micros / _HOUR
    return (
        f" over {hours / 24:g} d"
        if hours >= 48
        else f" over {hours:g} h"
        if hours >= 1
        else f" over {hours * 60:g} min"
    )

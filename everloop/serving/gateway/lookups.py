"""Look-ups of features over HTTP, for programs in other languages.

GET  /features/<project>/<service>    what to ask it for: entities, views, features
POST /features/<project>/<service>    {"entities": [{"origin": "JFK"}, …], "at": …}; by column: {"origin": ["JFK", …]}

Rows are answered as `values`, columns as `columns`; with them `watermarks` (up to which known time each view holds all
facts; null: never filled), so that the caller can judge. Values of features that carry a tag are null here, and named
in `masked`: `features.get` gives them to who may read them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from everloop.core.clock import Micros, parse_time
from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.features.definitions import FeatureServiceDef
from everloop.serving.gateway.features import Features
from everloop.serving.gateway.stats import bucket, quantile
from everloop.serving.protocol.question import parse_json
from everloop.serving.table import Service, Table

MOST_ENTITIES = 10_000


@dataclass(slots=True)
class _Counted:
    """Of one service."""

    requests: int = 0
    errors: int = 0
    rows: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * 160)


class Lookups:
    """The feature services of one gateway."""

    def __init__(self, features: Features) -> None:
        """Nothing is served before there is a table."""
        self._features = features
        self._table: Table | None = None
        self._services: dict[tuple[str, str], Service] = {}
        self._counted: dict[str, _Counted] = {}

    def describe(self, table: Table | None, project: str, name: str) -> bytes:
        """What a service takes and gives; raises `NotFound`."""
        service = self._find(table, project, name)
        lookup = service.lookup
        definition = FeatureServiceDef.from_manifest(name, lookup.service, lookup.views)
        views = {view.name: list(view.outputs) for view in definition.views}
        return orjson.dumps({"name": name, "entities": lookup.keys, "views": views, "masked": service.masked})

    def answer(self, table: Table | None, project: str, name: str, body: bytes) -> bytes:
        """Look up; raises `NotFound`, `InvalidInput`, `Unavailable`."""
        started = time.perf_counter_ns()
        service = self._find(table, project, name)
        counted = self._counted.setdefault(f"{project}.{name}", _Counted())
        counted.requests += 1
        try:
            rows, by_column, at = _asked(parse_json(body), service.lookup.keys)
            found = self._features.look_up(service.lookup, rows, at or time.time_ns() // 1000)
        except EverloopError:
            counted.errors += 1
            raise
        counted.rows += len(rows)
        for feature in service.masked:
            for row in found.values:
                row[feature] = None
        said: dict[str, Any] = {
            "watermarks": dict(zip(service.lookup.service["order"], found.reached, strict=True)),
            "masked": service.masked,
        }
        if by_column:
            said["columns"] = {name: [row[name] for row in found.values] for name in (found.values or [{}])[0]}
        else:
            said["values"] = found.values
        content = orjson.dumps(said)
        counted.latency[bucket((time.perf_counter_ns() - started) // 1000)] += 1
        return content

    def told(self) -> dict[str, Any]:
        """What was counted, by `project.service`."""
        return {
            name: {
                "requests": counted.requests,
                "errors": counted.errors,
                "rows": counted.rows,
                "p50_micros": quantile(counted.latency, 0.5),
                "p99_micros": quantile(counted.latency, 0.99),
            }
            for name, counted in self._counted.items()
        }

    def _find(self, table: Table | None, project: str, name: str) -> Service:
        if table is not self._table:
            self._table = table
            self._services = {(s.project, s.name): s for s in table.services} if table else {}
        try:
            return self._services[project, name]
        except KeyError:
            raise NotFound(
                f"there is no feature service {name[:80]!r} in {project[:80]!r}", hint="everloop features list"
            ) from None


def _asked(body: Any, keys: Sequence[str]) -> tuple[list[Mapping[str, Any]], bool, Micros]:
    """The entities as rows, whether they came by column, and the time (0: now)."""
    if not isinstance(body, dict) or not isinstance(body.get("entities"), list | dict):
        raise InvalidInput("the body has no entities", hint='{"entities": [{"' + "..., ".join(keys) + '": ...}]}')
    unknown = body.keys() - {"entities", "at"}
    if unknown:
        raise InvalidInput(f"{min(unknown)[:80]!r} is not known here", hint="entities and at")
    entities, by_column = body["entities"], isinstance(body["entities"], dict)
    rows = _rows(entities, keys) if by_column else entities
    if len(rows) > MOST_ENTITIES:
        raise InvalidInput(f"{len(rows)} entities are too many", hint=f"{MOST_ENTITIES} at most; ask several times")
    for row in rows:
        if not isinstance(row, dict):
            raise InvalidInput("an entity is no object", hint="name its columns: " + ", ".join(keys))
        for name in keys:
            value = row.get(name)
            if isinstance(value, bool) or not isinstance(value, str | int | None):
                raise InvalidInput(f"{name} is {str(value)[:80]}", hint="an entity is text or an integer")
    return rows, by_column, _time(body.get("at"))


def _rows(columns: Mapping[str, Any], keys: Sequence[str]) -> list[Mapping[str, Any]]:
    wrong = [name for name in keys if not isinstance(columns.get(name), list)]
    if wrong:
        raise InvalidInput(f"the entity {wrong[0]} has no list of values", hint="by column, or rows in a list")
    if len({len(columns[name]) for name in keys}) > 1:
        raise InvalidInput("the columns of entities are of different lengths")
    return [dict(zip(keys, values, strict=True)) for values in zip(*(columns[name] for name in keys), strict=True)]


def _time(at: Any) -> Micros:
    if at is None or (isinstance(at, int) and not isinstance(at, bool)):
        return at or 0
    try:
        return parse_time(at)
    except (TypeError, ValueError):
        raise InvalidInput(f"at {str(at)[:60]!r} is no time", hint="ISO 8601, or microseconds") from None

"""Look-ups of features over HTTP, for programs in other languages.

GET  /features/<project>/<service>    what to ask it for: entities, views, features
POST /features/<project>/<service>    {"entities": [{"origin": "JFK"}, …], "at": …}; by column: {"origin": ["JFK", …]}

Rows are answered as `values`, columns as `columns`; with them `watermarks` (up to which known time each view holds all
facts; null: never filled) and `unknown` (of how many of the entities a view holds no fact), so that the caller can
judge. Values of features that carry a tag are null here, and named in `masked`: `features.get` gives them to who may
read them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from everloop.core.clock import Micros, parse_time
from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.features.definitions import FeatureServiceDef
from everloop.features.online import find, find_columns
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
        self.features = features
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

    async def answer(self, table: Table | None, project: str, name: str, body: bytes) -> bytes:
        """Look up; raises `NotFound`, `InvalidInput`, `Unavailable`."""
        started = time.perf_counter_ns()
        service = self._find(table, project, name)
        counted = self._counted.setdefault(f"{project}.{name}", _Counted())
        counted.requests += 1
        try:
            entities, rows, at = self._asked(service, body)
            now = at or time.time_ns() // 1000
            said: dict[str, Any] = {}
            ask = partial(self.features.ask, service.lookup, entities=entities, rows=rows, at=now)
            if isinstance(entities, dict):
                columns, reached, unknown = await ask(find_columns)
                said["columns"] = columns | {name: [None] * rows for name in service.masked}
            else:
                said["values"], reached, unknown = await ask(find)
                for row in said["values"]:
                    row.update(dict.fromkeys(service.masked))
        except EverloopError:
            counted.errors += 1
            raise
        counted.rows += rows
        said["unknown"] = dict(unknown)
        said["watermarks"] = dict(zip(service.lookup.service["order"], reached, strict=True))
        said["masked"] = service.masked
        content = orjson.dumps(said)
        counted.latency[bucket((time.perf_counter_ns() - started) // 1000)] += 1
        return content

    def _asked(self, service: Service, body: bytes) -> tuple[list[Any] | dict[str, Any], int, Micros]:
        """`_asked`, and what is refused is counted as a row of each view."""
        try:
            return _asked(parse_json(body), service.lookup.keys)
        except InvalidInput as error:
            self.features.failed(service.lookup, 1, error)
            raise

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


def _asked(body: Any, keys: Sequence[str]) -> tuple[list[Any] | dict[str, Any], int, Micros]:
    """The entities as they came, in rows or by column, how many they are, and the time (0: now)."""
    if not isinstance(body, dict) or not isinstance(body.get("entities"), list | dict):
        asked = ", ".join(f'"{key}": …' for key in keys)
        raise InvalidInput("the body has no entities", hint=f'{{"entities": [{{{asked}}}]}}')
    unknown = body.keys() - {"entities", "at"}
    if unknown:
        raise InvalidInput(f"{min(unknown)[:80]!r} is not known here", hint="entities and at")
    entities = body["entities"]
    rows = _length(entities, keys) if isinstance(entities, dict) else len(entities)
    if rows > MOST_ENTITIES:
        raise InvalidInput(f"{rows} entities are too many", hint=f"{MOST_ENTITIES} at most; ask several times")
    if isinstance(entities, dict):
        _known(entities, keys)
        for name in keys:
            for value in entities[name]:
                _check(name, value)
        return {name: entities[name] for name in keys}, rows, _time(body.get("at"))
    for row in entities:
        if not isinstance(row, dict):
            raise InvalidInput("an entity is no object", hint="name its columns: " + ", ".join(keys))
        _known(row, keys)
        for name in keys:
            _check(name, row.get(name))
    return entities, rows, _time(body.get("at"))


def _known(columns: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise `InvalidInput` for a column that is no entity; one that is missing is found by who needs it."""
    if len(columns) > len(keys):
        unknown = min(columns.keys() - keys)
        raise InvalidInput(f"there is no entity {unknown[:80]!r}", hint="it is asked by " + ", ".join(keys))


def _check(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise InvalidInput(f"{name} is {str(value)[:80]}", hint="an entity is text or an integer")


def _length(columns: Mapping[str, Any], keys: Sequence[str]) -> int:
    wrong = [name for name in keys if not isinstance(columns.get(name), list)]
    if wrong:
        raise InvalidInput(f"the entity {wrong[0]} has no list of values", hint="by column, or rows in a list")
    lengths = {len(columns[name]) for name in keys}
    if len(lengths) > 1:
        raise InvalidInput("the columns of entities are of different lengths")
    return max(lengths, default=0)


def _time(at: Any) -> Micros:
    if at is None or (isinstance(at, int) and not isinstance(at, bool)):
        return at or 0
    try:
        return parse_time(at)
    except (TypeError, ValueError):
        raise InvalidInput(f"at {str(at)[:60]!r} is no time", hint="ISO 8601, or microseconds") from None

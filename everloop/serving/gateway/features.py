"""Reading features for a request: the routing table says what, the environment's online store has them."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from everloop.core.clock import SECOND, Micros, iso
from everloop.core.errors import InvalidInput, Unavailable
from everloop.features.definitions import Value
from everloop.features.online import Found, FoundColumns, OnlineService, OnlineView, find_columns, spread
from everloop.features.states.keys import whole
from everloop.features.stores.places import Opened, is_served, open_place, place_of
from everloop.serving.columns import Columns
from everloop.serving.gateway.stats import ViewCounters
from everloop.serving.table import Lookup

Answer = TypeVar("Answer", Found, FoundColumns)
_LOOK_SECONDS = 1.0
_SERVED = {"timeout": 0.5, "rest": 1.0}
"""How long a gateway waits for a Redis server, with all its callers, and how long it then asks no more."""


class FeaturesGone(Unavailable):
    """The online store does not answer: no revision's fault, and no other revision could do better."""


class TooOld(Unavailable):
    """Views are too old or were never filled, and the policy is to fail; `views` of the details names them."""


class Looked(NamedTuple):
    """What was found for a request."""

    columns: Mapping[str, Any]
    """Columns by name, as a model reads them."""
    stale: Mapping[str, str]
    """Views that were too old or never filled, and what stands for them: `default` or `serve`."""
    unknown: Mapping[str, int]
    """Views that hold no fact of some entities, and how many rows these are."""
    gone: bool
    """Whether the store did not answer, and defaults stand for all."""


_SLOW_SECONDS = 0.005
_SUSPECT_SECONDS = 30.0
"""A store that took longer than that, or did not answer, is asked from threads for so long."""
_SLOW_IN_A_THREAD = 0.02
"""More than that, because a thread also waits for the interpreter, which the event loop keeps for 5 ms at a time."""
_UNKNOWN_SECONDS = 1.0
"""A server that was never asked is asked from threads for so long: connections are made, each by several questions."""


class Features:
    """Look-ups of one gateway; stores are opened when first used, services prepared once."""

    def __init__(self, home: Path) -> None:
        """Nothing is opened yet."""
        self._home = home
        self._places: dict[str, tuple[float, str]] = {}
        self._stores: dict[str, Opened] = {}
        self._suspect: dict[str, float] = {}
        self._services: dict[int, tuple[Lookup, OnlineService]] = {}
        self._counted: dict[str, ViewCounters] = {}

    async def look(self, wanted: Lookup, columns: Columns, rows: int, at: Micros) -> Looked:
        """What `read` gives, counted. A slow or silent server is waited for in a thread: others are answered meanwhile.

        While it is quick it is asked at once, for a thread would cost more than the answer.
        """
        try:
            found = self.at_once(wanted, columns, rows, at)
            if found is None:
                found = await asyncio.to_thread(self._waited, wanted, columns, rows, at)
        except (InvalidInput, Unavailable) as error:
            self.failed(wanted, rows, error)
            raise
        self.count(wanted, rows, found)
        return found

    def count(self, wanted: Lookup, rows: int, found: Looked) -> None:
        """Count rows that were looked up."""
        for name, counted in self._counters(wanted):
            counted.rows += rows
            if found.gone:
                counted.unfed += rows
            elif name in found.stale:
                counted.stale += rows
            elif name in found.unknown:
                counted.unknown += found.unknown[name]

    def failed(self, wanted: Lookup, rows: int, error: InvalidInput | Unavailable) -> None:
        """Count rows that were not answered, and why."""
        for name, counted in self._counters(wanted):
            counted.rows += rows
            if isinstance(error, TooOld):
                counted.stale += rows if name in error.details["views"] else 0
            elif isinstance(error, InvalidInput):
                counted.refused += rows
            else:
                counted.unfed += rows

    def told(self) -> dict[str, dict[str, int]]:
        """What was counted, by `project.view`."""
        return {name: counted.told() for name, counted in sorted(self._counted.items())}

    def at_once(self, wanted: Lookup, columns: Mapping[str, Any], rows: int, at: Micros) -> Looked | None:
        """What `read` gives, where that is quick; None where it may have to be waited for. Nothing is counted."""
        now = time.monotonic()
        suspect = self._suspect.get(wanted.scope)
        if suspect is None:
            served = is_served(place_of(self._home, wanted.scope.partition("/")[2]))
            suspect = self._suspect[wanted.scope] = now + _UNKNOWN_SECONDS if served else 0.0
        if now < suspect:
            return None
        try:
            return self.read(wanted, columns, rows, at)
        finally:
            served = is_served(self._places.get(wanted.scope, (0.0, ""))[1])
            if served and time.monotonic() - now > _SLOW_SECONDS:
                self._suspect[wanted.scope] = time.monotonic() + _SUSPECT_SECONDS

    def _waited(self, wanted: Lookup, columns: Columns, rows: int, at: Micros) -> Looked:
        """`read` in a thread; a server that is still slow goes on being asked from threads."""
        began = time.monotonic()
        try:
            return self.read(wanted, columns, rows, at)
        finally:
            now = time.monotonic()
            if now - began > _SLOW_IN_A_THREAD:
                self._suspect[wanted.scope] = now + _SUSPECT_SECONDS

    def read(self, wanted: Lookup, columns: Mapping[str, Any], rows: int, at: Micros) -> Looked:
        """Feature columns for the entities that the caller named, by the endpoint's policy on what is too old.

        Raises what `features.online.lookup` raises, `InvalidInput` for an entity of another type than the data has, and
        `Unavailable` for a view that is too old, was never filled or does not answer, where the policy is to fail.
        """
        service, gone = self._service(wanted), False
        unknown: Mapping[str, int] = {}
        entities = {name: _as_kept(wanted, name, _listed(columns[name])) for name in wanted.keys}
        try:
            found, reached, unknown = find_columns(self._store(wanted.scope), service, entities, at)
        except Unavailable as error:
            if wanted.stale != "default":
                raise FeaturesGone(error.message, hint=error.hint) from error
            found = {name: [value] * rows for view in service.views for name, value in _empty(view)}
            reached, gone = (None,) * len(service.views), True
        stale = {
            view.view.name: wanted.stale
            for view, mark in zip(service.views, reached, strict=True)
            if mark is None or (wanted.fresh_micros and at - mark > wanted.fresh_micros)
        }
        if stale and wanted.stale == "fail":
            raise _too_old(wanted, service, reached, at)
        if stale and wanted.stale == "default":
            told = (view for view in service.views if view.view.name in stale)
            found |= {name: [value] * rows for view in told for name, value in _empty(view)}
        return Looked(spread(service.lists, found) if service.lists else found, stale, unknown, gone)

    async def ask(self, wanted: Lookup, how: Callable[..., Answer], entities: Any, rows: int, at: Micros) -> Answer:
        """Values of a service as they are, and how far each view is filled: `how` is one of `online`'s ways to ask.

        A server is asked from a thread, so that it never holds up predictions; LMDB is in this process, and at once.
        Raises as `read` does; what is too old is told, and not refused.
        """

        def act() -> Answer:
            kept = _all_as_kept(wanted, entities)
            return how(self._store(wanted.scope), self._service(wanted), kept, at)

        try:
            found = await asyncio.to_thread(act) if is_served(self._place(wanted.scope)) else act()
        except (InvalidInput, Unavailable) as error:
            self.failed(wanted, rows, error)
            raise
        named = zip(wanted.service["order"], found.reached, strict=True)
        never = {name: "serve" for name, reached in named if reached is None}
        self.count(wanted, rows, Looked({}, never, found.unknown, gone=False))
        return found

    def close(self) -> None:
        """Release the stores."""
        for store in self._stores.values():
            store.close()

    def _counters(self, wanted: Lookup) -> Iterator[tuple[str, ViewCounters]]:
        """The counters of each view of a service."""
        project = wanted.scope.partition("/")[0]
        for name in wanted.service["order"]:
            address = f"{project}.{name}"
            counted = self._counted.get(address)
            if counted is None:
                counted = self._counted[address] = ViewCounters()
            yield name, counted

    def _service(self, wanted: Lookup) -> OnlineService:
        held = self._services.get(id(wanted))
        if held is None or held[0] is not wanted:
            service = OnlineService.from_manifest(wanted.scope, wanted.name, wanted.service, wanted.views)
            held = self._services[id(wanted)] = (wanted, service)
        return held[1]

    def _store(self, scope: str) -> Opened:
        """The store of an environment; who binds another is heard within a second."""
        place = self._place(scope)
        store = self._stores.get(place)
        if store is None:
            store = self._stores[place] = open_place(place, readonly=True, **_SERVED)
        return store

    def _place(self, scope: str) -> str:
        now = time.monotonic()
        looked, place = self._places.get(scope, (0.0, ""))
        if not place or now - looked > _LOOK_SECONDS:
            place = place_of(self._home, scope.partition("/")[2])
            self._places[scope] = (now, place)
        return place


def _empty(view: OnlineView) -> Iterator[tuple[str, Value]]:
    return zip(view.outputs, view.empty, strict=True)


def _too_old(wanted: Lookup, service: OnlineService, marks: Sequence[Micros | None], at: Micros) -> Unavailable:
    told = {
        view.view.name: "was never filled" if reached is None else f"is filled up to {iso(reached)}"
        for view, reached in zip(service.views, marks, strict=True)
        if reached is None or (wanted.fresh_micros and at - reached > wanted.fresh_micros)
    }
    bound = f", {wanted.fresh_micros // SECOND} s are allowed" if wanted.fresh_micros else ""
    said = "; ".join(f"{name} {how}" for name, how in told.items())
    return TooOld(
        f"features for {iso(at)} are not there: {said}{bound}",
        hint="everloop features materialize, or let the endpoint serve by Lookup(stale=...)",
        views=told,
    )


def _all_as_kept(wanted: Lookup, entities: Any) -> Any:
    """Entities by row or by column, `_as_kept`."""
    if not wanted.types:
        return entities
    if isinstance(entities, dict):
        return {name: _as_kept(wanted, name, values) for name, values in entities.items()}
    kept = {name: _as_kept(wanted, name, [row[name] for row in entities if name in row]) for name in wanted.types}
    values = {name: iter(listed) for name, listed in kept.items()}
    return [{name: next(values[name]) if name in values else value for name, value in row.items()} for row in entities]


def _as_kept(wanted: Lookup, name: str, values: list[Any]) -> list[Any]:
    """Values of an entity in the type of the data: under a key of another type nothing would be found, silently.

    A whole number may be written as text. Raises `InvalidInput` for what cannot be meant.
    """
    kind = wanted.types.get(name)
    if kind is None:
        return values
    right = int if kind == "INT64" else str
    if all(value is None or type(value) is right for value in values):
        return values
    return [value if value is None or type(value) is right else _turned(name, value, kind) for value in values]


def _turned(name: str, value: Any, kind: str) -> int:
    if kind == "INT64" and isinstance(value, str) and (number := whole(value)) is not None:
        return number
    meant = "a whole number" if kind == "INT64" else "text"
    said = str(value)[:80] if isinstance(value, int | float) else repr(value)[:80]
    raise InvalidInput(
        f"the entity {name} is {meant} in the data, not {said}",
        hint=f'write it as "{said}"' if meant == "text" else "send a number without a point",
    )


def _listed(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values  # type: ignore[no-any-return]

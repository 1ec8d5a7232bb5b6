"""Reading features for a request: the routing table says what, the environment's online store has them."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from everloop.core.clock import Micros
from everloop.features.online import OnlineService, find
from everloop.features.stores.places import Opened, open_place, place_of
from everloop.serving.columns import Columns
from everloop.serving.table import Lookup

_LOOK_SECONDS = 1.0
_SERVED = {"timeout": 0.5, "rest": 1.0}
"""How long a gateway waits for a Redis server, with all its callers, and how long it then asks no more."""


class Features:
    """Look-ups of one gateway; stores are opened when first used, services prepared once."""

    def __init__(self, home: Path) -> None:
        """Nothing is opened yet."""
        self._home = home
        self._places: dict[str, tuple[float, str]] = {}
        self._stores: dict[str, Opened] = {}
        self._services: dict[int, tuple[Lookup, OnlineService]] = {}

    def read(self, wanted: Lookup, columns: Columns, rows: int, at: Micros) -> Mapping[str, Any]:
        """Feature columns for the entities that the caller named; raises what `features.online.lookup` raises."""
        service = self._service(wanted)
        listed = [_listed(columns[name]) for name in wanted.keys]
        entities = [dict(zip(wanted.keys, values, strict=True)) for values in zip(*listed, strict=True)]
        found = find(self._store(wanted.scope), service, entities or [{}] * rows, at)
        return {name: [row[name] for row in found.values] for name in found.values[0]}

    def close(self) -> None:
        """Release the stores."""
        for store in self._stores.values():
            store.close()

    def _service(self, wanted: Lookup) -> OnlineService:
        held = self._services.get(id(wanted))
        if held is None or held[0] is not wanted:
            service = OnlineService.from_manifest(wanted.scope, wanted.name, wanted.service, wanted.views)
            held = self._services[id(wanted)] = (wanted, service)
        return held[1]

    def _store(self, scope: str) -> Opened:
        """The store of an environment; who binds another is heard within a second."""
        now = time.monotonic()
        looked, place = self._places.get(scope, (0.0, ""))
        if not place or now - looked > _LOOK_SECONDS:
            place = place_of(self._home, scope.partition("/")[2])
            self._places[scope] = (now, place)
        store = self._stores.get(place)
        if store is None:
            store = self._stores[place] = open_place(place, readonly=True, **_SERVED)
        return store


def _listed(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values  # type: ignore[no-any-return]

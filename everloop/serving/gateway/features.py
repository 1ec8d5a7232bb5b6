"""Reading features for a request: the routing table says what, the online store on this machine has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from everloop.core.clock import Micros
from everloop.features.online import OnlineService, lookup
from everloop.features.stores.lmdb import LmdbStore
from everloop.serving.columns import Columns
from everloop.serving.table import Lookup


class Features:
    """Look-ups of one gateway; stores are opened when first used, services prepared once."""

    def __init__(self) -> None:
        """Nothing is opened yet."""
        self._stores: dict[str, LmdbStore] = {}
        self._services: dict[int, tuple[Lookup, OnlineService]] = {}

    def read(self, project: str, wanted: Lookup, columns: Columns, rows: int, at: Micros) -> Mapping[str, Any]:
        """Feature columns for the entities that the caller named; raises what `features.online.lookup` raises."""
        store = self._stores.get(wanted.store)
        if store is None:
            store = self._stores[wanted.store] = LmdbStore(Path(wanted.store), readonly=True)
        held = self._services.get(id(wanted))
        if held is None or held[0] is not wanted:
            service = OnlineService.from_manifest(project, wanted.name, wanted.service, wanted.views)
            held = self._services[id(wanted)] = (wanted, service)
        listed = [_listed(columns[name]) for name in wanted.keys]
        entities = [dict(zip(wanted.keys, values, strict=True)) for values in zip(*listed, strict=True)]
        found = lookup(store, held[1], entities or [{}] * rows, at)
        return {name: [row[name] for row in found] for name in found[0]}

    def close(self) -> None:
        """Release the stores."""
        for store in self._stores.values():
            store.close()


def _listed(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values  # type: ignore[no-any-return]

"""Features: one definition, exactly equal in batch and online; `docs/features.md` states the rules.

`definitions` loads nothing heavy. `states` (what an entity keeps, and how values are made of it), `stores` and `online`
load NumPy and LMDB only, so that the gateway can use them. `batch` loads DuckDB, Arrow and Polars. The modules that
compute load on first use
(`features.filling.materialize(…)`), so that declaring operations loads none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.features import online, reading
    from everloop.features.batch import answering, cluster, filling, history
    from everloop.features.stores import places
    from everloop.features.vectors import nearest

__all__ = ["answering", "cluster", "filling", "history", "nearest", "online", "places", "reading"]
_HOMES = {
    "answering": "batch.answering",
    "cluster": "batch.cluster",
    "filling": "batch.filling",
    "history": "batch.history",
    "nearest": "vectors.nearest",
    "online": "online",
    "places": "stores.places",
    "reading": "reading",
}


def __getattr__(name: str) -> Any:
    """Load a module that computes when it is first used."""
    if name in _HOMES:
        return import_module(f"{__name__}.{_HOMES[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

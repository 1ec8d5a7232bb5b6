"""Features: one definition, exactly equal in batch and online; `docs/features.md` states the rules.

`definitions` loads nothing heavy. `online`, `lmdb` and what they import load NumPy and LMDB only, so that the gateway
can use them. `history` and `scan` load DuckDB, Arrow and Polars. The modules that compute load on first use
(`features.history.materialize(…)`), so that declaring operations loads none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.features import history, lmdb, online

__all__ = ["history", "lmdb", "online"]


def __getattr__(name: str) -> Any:
    """Load a module that computes when it is first used."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

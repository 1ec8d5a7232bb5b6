"""The catalogue: what is said of assets, search over it, and lineage to the column."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.data.catalogue import sql

__all__ = ["sql"]


def __getattr__(name: str) -> Any:
    """Load the reader of SQL at its first use: it needs the extra `sql`."""
    if name == "sql":
        return import_module("everloop.data.catalogue.sql")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

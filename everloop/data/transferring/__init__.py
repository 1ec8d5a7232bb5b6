"""Versions on their way between workspaces: a bill of what belongs to one, objects by a store, a check on arrival.

A bill is an object itself: the version's manifest, and where each part lies. Who sends puts it into the store with all
that it names; who receives it takes over the objects and trusts nothing: every part is read and must have the content
that the version's id promises.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.data.transferring.bills import Bill, billed, received

__all__ = ["Bill", "billed", "received"]


def __getattr__(name: str) -> Any:
    """Load the engine at the first transfer."""
    if name in __all__:
        return getattr(import_module("everloop.data.transferring.bills"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Contracts of versions: expectations that a table alone cannot answer, and how a version is judged by all of them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.data.contracts.distances import drift_of

__all__ = ["drift_of"]


def __getattr__(name: str) -> Any:
    """Load the module that offers `name`: operations are declared without an engine."""
    if name in __all__:
        return getattr(import_module("everloop.data.contracts.distances"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

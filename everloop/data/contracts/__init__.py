"""Contracts of versions: expectations that a table alone cannot answer, and how a version is judged by all of them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.data.contracts.distances import drift_of
    from everloop.data.contracts.handing import handed

_LAZY = {"drift_of": "distances", "handed": "handing"}

__all__ = ["drift_of", "handed"]


def __getattr__(name: str) -> Any:
    """Load the module that offers `name`: operations are declared without an engine."""
    if name in _LAZY:
        return getattr(import_module(f"everloop.data.contracts.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

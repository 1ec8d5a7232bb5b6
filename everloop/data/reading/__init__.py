"""Reading versions: whole, by columns and rows, in the form a person works in, or as a stream for training.

Conditions prune parts by the ranges of their keys and by their nulls before any byte is fetched; inside of parts the
engine prunes by Parquet's statistics.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.data.reading.conditions import Condition, pruned
    from everloop.data.reading.forms import read
    from everloop.data.reading.streaming import Position, Stream

_LAZY = {
    "Condition": "conditions",
    "Position": "streaming",
    "Stream": "streaming",
    "pruned": "conditions",
    "read": "forms",
}

__all__ = ["Condition", "Position", "Stream", "pruned", "read"]


def __getattr__(name: str) -> Any:
    """Load the module that offers `name`."""
    if name in _LAZY:
        return getattr(import_module(f"everloop.data.reading.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Editing a table by rows: append, upsert, delete. Only the parts that a key falls into are read and written."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from everloop.data.editing.applying import Edited, edit, evolve, rows_of_json, rows_of_object

Mode = Literal["append", "upsert", "delete"]

__all__ = ["Edited", "Mode", "edit", "evolve", "rows_of_json", "rows_of_object"]


def __getattr__(name: str) -> Any:
    """Load the engine at the first edit."""
    if name in __all__:
        return getattr(import_module("everloop.data.editing.applying"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Tracking and the registry as operations for people: tables of runs, editing in place, files, registered models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.models.tracking import parquet

__all__ = ["parquet"]


def __getattr__(name: str) -> Any:
    """Load the module that needs an engine when it is first used."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

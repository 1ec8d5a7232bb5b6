"""Sensitive data: found by column, tagged, carried through lineage, and masked for those who may not read it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.data.sensitive import scanning

__all__ = ["scanning"]


def __getattr__(name: str) -> Any:
    """Load what reads rows at its first use: it loads an engine."""
    if name == "scanning":
        return import_module("everloop.data.sensitive.scanning")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

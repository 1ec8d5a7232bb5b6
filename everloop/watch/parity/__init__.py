"""Replay parity: were served features those that batch computes for the same questions?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.watch.parity import replay

__all__ = ["replay"]


def __getattr__(name: str) -> Any:
    """Load the module that computes when it is first used."""
    if name == "replay":
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

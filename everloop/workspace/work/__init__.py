"""Work that runs a project's own code: tasks, retraining, checks, reproduction, and where steps run.

Each kind of work loads when a task asks for it: a look at monitors with nothing due must not cost an engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.workspace.work import (
        checking,
        places,
        refreshing,
        reproducing,
        retaining,
        retraining,
        sweeping,
    )

__all__ = ["checking", "places", "refreshing", "reproducing", "retaining", "retraining", "sweeping"]


def __getattr__(name: str) -> Any:
    """Load a kind of work when it is first used."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

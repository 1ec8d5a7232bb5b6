"""Searching: the best of many trials of a step, over parameters and algorithms.

`definitions` and `pruning` are pure; `trial` is inside the step's process; `sampling` is the only module that imports
Optuna, and `driving` the part of a run that goes from one wave of trials to the next.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.flows.search import sampling as sampling


def __getattr__(name: str) -> Any:
    """Load Optuna's adapter when a search is run."""
    if name != "sampling":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.sampling")

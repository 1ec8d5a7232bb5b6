"""Watching what serves: references, drift within a false-alarm budget, late labels, alarms, triggers.

Importing the package loads the definitions only; numpy comes with the modules that compute, which load on
first use (`watch.evaluate.evaluate(…)`), so that declaring operations loads none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from everloop.watch.definitions import Late, MonitorDef, RetrainDef, Trigger, every, on_alarm, on_new_rows

if TYPE_CHECKING:
    from everloop.watch import baseline, evaluate

_ENGINES = ("baseline", "evaluate")

__all__ = [
    "Late",
    "MonitorDef",
    "RetrainDef",
    "Trigger",
    "baseline",
    "evaluate",
    "every",
    "on_alarm",
    "on_new_rows",
]


def __getattr__(name: str) -> Any:
    """Load a module that computes when it is first used."""
    if name in _ENGINES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

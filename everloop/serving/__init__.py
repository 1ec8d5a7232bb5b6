"""Serving: what an endpoint is, how it answers, how a new revision takes over, what was answered.

Definitions are pure values and load at once; everything else is imported from its own module by the
process that needs it (the gateway must never load SQL, Polars or mlflow). `reading` loads Polars on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from everloop.serving.definitions import (
    AllAtOnce,
    BlueGreen,
    Canary,
    EndpointDef,
    Guardrails,
    Limits,
    Shadow,
    Workers,
)
from everloop.serving.graph.nodes import (
    CallEndpoint,
    Ensemble,
    Lookup,
    Model,
    Sequence,
    Splitter,
    Step,
    Switch,
    Transform,
)

if TYPE_CHECKING:
    from everloop.serving import reading

__all__ = [
    "AllAtOnce",
    "BlueGreen",
    "CallEndpoint",
    "Canary",
    "EndpointDef",
    "Ensemble",
    "Guardrails",
    "Limits",
    "Lookup",
    "Model",
    "Sequence",
    "Shadow",
    "Splitter",
    "Step",
    "Switch",
    "Transform",
    "Workers",
    "reading",
]


def __getattr__(name: str) -> Any:
    """Load the module that reads predictions back when it is first used."""
    if name == "reading":
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

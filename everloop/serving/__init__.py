"""Serving: what an endpoint is, how it answers, how a new revision takes over, what was answered.

Definitions are pure values and load at once; everything else is imported from its own module by the
process that needs it (the gateway must never load SQL, Polars or mlflow).
"""

from everloop.serving.definitions import (
    AllAtOnce,
    Canary,
    EndpointDef,
    Guardrails,
    Lookup,
    Model,
    Sequence,
)

__all__ = ["AllAtOnce", "Canary", "EndpointDef", "Guardrails", "Lookup", "Model", "Sequence"]

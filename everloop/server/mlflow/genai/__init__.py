"""MLflow's protocol for traces and what judges them: the endpoints, and the OTLP door that spans come in by."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.server.mlflow.genai import otlp

__all__ = ["otlp"]


def __getattr__(name: str) -> Any:
    """Load the reader of OTLP bodies, and with it protobuf, when the first one comes."""
    if name == "otlp":
        return import_module(f"{__name__}.otlp")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

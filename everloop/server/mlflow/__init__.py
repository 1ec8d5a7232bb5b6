"""MLflow's REST protocol over our tracking, so that the ordinary `mlflow` client works with one changed line.

`mlflow_routes(open_context)` gives the Starlette routes. The protocol's facts are MLflow's; the storage, the
permissions and the audit are those of every other face.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Load the routes when they are first used."""
    if name in {"mlflow_routes", "workspace_of"}:
        return getattr(import_module(f"{__name__}.routes"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

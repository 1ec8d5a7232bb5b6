"""Alembic migrations of the catalog's tables; Alembic itself is loaded when a migration really has to run."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Load the runner when one of its functions is asked for."""
    if name not in {"upgrade", "head", "config_of"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.runner"), name)

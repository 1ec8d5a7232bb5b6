"""The protocols that callers speak: from bytes to a question, from an answer to bytes.

`arrow` reads tables in Arrow and Parquet; it loads PyArrow, at the first body that needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.serving.protocol import arrow

__all__ = ["arrow"]


def __getattr__(name: str) -> Any:
    """Load the module that reads Arrow when it is first used."""
    if name == "arrow":
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

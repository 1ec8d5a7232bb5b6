"""Erasing one subject (a person) from everything that is stored, provably, with every version still readable.

`finding` says whose rows are meant and which objects may hold them, `rewriting` puts redacted objects
in their place, `erasing` leads the whole from the first record to the signed receipt, `proofs` shows offline whether a
training frame held a subject.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.data.erasure import committing, erasing, folders, holds

__all__ = ["committing", "erasing", "folders", "holds"]


def __getattr__(name: str) -> Any:
    """Load a module that reads tables when it is first used: declaring the operations loads no engine."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The catalog: the database, and the only place with SQL.

`Catalog` opens it, `Context` carries it to operations, `operation` declares what may be done. All else is plain
functions `f(tx, project, …)` in the modules `versions`, `refs`, `facts`, `tasks`, `steps`, `placements` and in the
areas `tracking`, `governance` and `operating`. Nothing here is loaded before it is asked for: SQLAlchemy is heavy.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Catalog": "engine",
    "Tx": "engine",
    "Actor": "context",
    "Context": "context",
    "Answer": "operation",
    "Command": "operation",
    "Operation": "operation",
    "invoke": "operation",
    "operation": "operation",
    "operations": "operation",
}


def __getattr__(name: str) -> Any:
    """Load the module of a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

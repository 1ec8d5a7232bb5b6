"""Versions of tables opened to other engines: Iceberg and Delta tables over the Parquet files that are stored already.

Only metadata is written: which files and which of their rows make a version. See `docs/open-tables.md`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.data.opening.placing import place, withdraw
    from everloop.data.opening.shown import Files
    from everloop.data.opening.tables import (
        Opened,
        Wanted,
        close,
        open_table,
        opened,
        recorded,
        refresh,
        rows_shown,
        table_id,
    )

_LAZY = {
    "Files": "shown",
    "Opened": "tables",
    "Wanted": "tables",
    "close": "tables",
    "open_table": "tables",
    "opened": "tables",
    "place": "placing",
    "recorded": "tables",
    "refresh": "tables",
    "rows_shown": "tables",
    "table_id": "tables",
    "withdraw": "placing",
}

__all__ = [
    "Files",
    "Opened",
    "Wanted",
    "close",
    "open_table",
    "opened",
    "place",
    "recorded",
    "refresh",
    "rows_shown",
    "table_id",
    "withdraw",
]


def __getattr__(name: str) -> Any:
    """Load the engine at the first table."""
    if name in _LAZY:
        return getattr(import_module(f"everloop.data.opening.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

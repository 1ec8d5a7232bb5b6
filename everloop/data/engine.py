"""DuckDB as we open it: in memory, bounded, in UTC, and never fetching an extension."""

from pathlib import Path

import duckdb

MEMORY = 512 * 2**20


def connect(scratch: Path | None = None, memory: int = MEMORY) -> duckdb.DuckDBPyConnection:
    """A fresh in-memory database of at most `memory` bytes, which spills into `scratch`."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{max(memory, 2**28)}B",
        "threads": 2,
        "autoinstall_known_extensions": False,
        "preserve_insertion_order": False,
    }
    if scratch is not None:
        settings["temp_directory"] = str(scratch)
    engine = duckdb.connect(config=settings)
    engine.execute("set TimeZone = 'UTC'")
    engine.execute("set enable_progress_bar = false")  # it would draw into whatever our callers print
    return engine


def quoted(name: str) -> str:
    """A column's name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """Text, an integer or a boolean as an SQL literal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def select(columns: str, source: str, condition: str = "true", rest: str = "") -> str:
    """A query of pieces whose names went through `quoted` and whose values went through `literal`."""
    return f"select {columns} from {source} where {condition} {rest}"  # noqa: S608 - see the docstring

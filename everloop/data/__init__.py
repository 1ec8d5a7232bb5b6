"""Data: sources, capture, dataset versions, profiles, differences, heads.

Definitions are pure values; everything that loads an engine (Arrow, Polars, DuckDB) comes on first use.
"""

from importlib import import_module
from typing import Any

from everloop.data import expect
from everloop.data.definitions import SQL, Call, Contract, DatasetDef, Files, SourceDef
from everloop.data.expect import Expectation

_LAZY = {
    "DataCodec": "codec",
    "read": "codec",
    "paths": "codec",
    "scan_sql": "codec",
    "Captured": "capturing",
    "capture": "capturing",
    "Profile": "profiles",
    "profile": "profiles",
    "profile_of": "profiles",
    "DataDiff": "differences",
    "compare": "differences",
    "ExpectationResult": "checking",
    "check_expectations": "checking",
    "head": "heads",
    "advance_head": "heads",
}

__all__ = ["SQL", "Call", "Contract", "DatasetDef", "Expectation", "Files", "SourceDef", "expect", *_LAZY]  # noqa: PLE0604 - names of the lazy part


def __getattr__(name: str) -> Any:
    """Load the module that offers `name`."""
    if name in _LAZY:
        return getattr(import_module(f"everloop.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

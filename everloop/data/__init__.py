"""Data: sources, capture, dataset versions, profiles, differences, heads.

Definitions are pure values; everything that loads an engine (Arrow, Polars, DuckDB) comes on first use. Modules that
declare operations say `data.capture(…)`, so that declaring them loads no engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from everloop.data import expect
from everloop.data.definitions import SQL, Call, Contract, DatasetDef, Files, Folder, SourceDef
from everloop.data.expect import Expectation, ExpectationResult

if TYPE_CHECKING:
    from everloop.data.capturing import Captured, capture
    from everloop.data.checking import check_expectations
    from everloop.data.codec import DataCodec, manifest_of, paths, paths_of, scan_sql
    from everloop.data.contracts.judging import check_version
    from everloop.data.differences import DataDiff, compare
    from everloop.data.drafts import draft_expectations
    from everloop.data.heads import advance_head, head
    from everloop.data.profiles import Profile, profile, profile_of
    from everloop.data.reading.forms import read

_LAZY = {
    "Captured": "capturing",
    "DataCodec": "codec",
    "DataDiff": "differences",
    "Profile": "profiles",
    "advance_head": "heads",
    "capture": "capturing",
    "check_expectations": "checking",
    "check_version": "contracts.judging",
    "compare": "differences",
    "draft_expectations": "drafts",
    "head": "heads",
    "manifest_of": "codec",
    "paths": "codec",
    "paths_of": "codec",
    "profile": "profiles",
    "profile_of": "profiles",
    "read": "reading.forms",
    "scan_sql": "codec",
}

__all__ = [
    "SQL",
    "Call",
    "Captured",
    "Contract",
    "DataCodec",
    "DataDiff",
    "DatasetDef",
    "Expectation",
    "ExpectationResult",
    "Files",
    "Folder",
    "Profile",
    "SourceDef",
    "advance_head",
    "capture",
    "check_expectations",
    "check_version",
    "compare",
    "draft_expectations",
    "expect",
    "head",
    "manifest_of",
    "paths",
    "paths_of",
    "profile",
    "profile_of",
    "read",
    "scan_sql",
]


def __getattr__(name: str) -> Any:
    """Load the module that offers `name`."""
    if name in _LAZY:
        return getattr(import_module(f"everloop.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

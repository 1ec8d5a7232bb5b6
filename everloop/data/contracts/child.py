"""The process of a custom expectation: `python -m everloop.data.contracts.child`, a question in, an answer out."""

import contextlib
import json
import os
import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import polars as pl

from everloop.data.contracts.schemas import is_schema

_EXAMPLES = 5


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """What the function finds, JSON-ready."""
    module, _, name = asked["function"].partition(":")
    sys.path.insert(0, asked["root"])
    try:
        function = attrgetter(name)(import_module(module))
    except (ImportError, AttributeError) as error:
        return {"missing": str(error)}
    table = pl.scan_parquet(asked["files"])
    try:
        judge = _validated if is_schema(function) else _judged
        return judge(function, table, asked.get("rows"))
    except Exception as error:  # noqa: BLE001 - the edge to user code: whatever it raises is the finding
        text = (str(error).strip().splitlines() or ["no message"])[0][:500]
        return _told(passed=False, observed=f"raised {type(error).__name__}: {text}")


def _judged(function: Any, table: pl.LazyFrame, target: str | None) -> dict[str, Any]:
    found = function(table)
    if isinstance(found, bool):
        return _told(passed=found, observed="holds" if found else "does not hold")
    if isinstance(found, int):
        return _told(passed=found == 0, observed=f"{found} rows", failing=found)
    if isinstance(found, pl.LazyFrame):
        found = found.collect()
    if isinstance(found, pl.DataFrame):
        return _rows(found, f"{len(found)} rows", target)
    return _told(passed=False, observed=f"returned {type(found).__name__}, not a boolean, a count or a frame of rows")


def _rows(found: pl.DataFrame, observed: str, target: str | None) -> dict[str, Any]:
    if target:
        found.write_parquet(target)
    shown = [{c: str(v) for c, v in row.items()} for row in found.head(_EXAMPLES).iter_rows(named=True)]
    return _told(passed=not len(found), observed=observed, failing=len(found), examples=shown)


def _validated(schema: Any, table: pl.LazyFrame, target: str | None) -> dict[str, Any]:
    rows, broken = import_module("everloop.data.contracts.validating").failing(schema, table)
    if not broken:
        return _told(passed=True, observed="holds")
    return {**_rows(rows, f"{len(rows)} rows: {broken}", target), "passed": False}


def _told(*, passed: bool, observed: str, failing: int = 0, examples: Any = ()) -> dict[str, Any]:
    return {"passed": passed, "observed": observed, "failing": failing, "examples": list(examples)}


def main() -> None:
    """Read the question from standard input; what the function prints goes nowhere."""
    asked = json.load(sys.stdin)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        found = answer(asked)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

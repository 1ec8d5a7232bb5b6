"""Custom expectations: the author's function on a version's rows, in a process of its own without credentials.

The function gets a Polars LazyFrame and answers whether it holds (a boolean), how many rows break it (a number), or
the rows that break it (a frame). What it prints goes nowhere; it ends after ten minutes at most.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from everloop.core.errors import InvalidInput
from everloop.data.expect import MASK, Expectation, ExpectationResult

_SECONDS = 600
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")
"""Variables that the process gets; bindings and tokens stay out."""


def run_custom(
    expectation: Expectation, files: Sequence[Path], tags: Mapping[str, str], root: Path, rows: Path | None = None
) -> ExpectationResult:
    """Run the function of a custom expectation from the project's folder `root`.

    With `rows` the rows that it finds, where it tells any, are written to that Parquet file.

    What the function raises is a failure that says so. Raises `InvalidInput` when it cannot be imported.
    """
    asked: dict[str, Any] = {
        "function": expectation.param("function"),
        "files": [str(file) for file in files],
        "root": str(root),
    }
    asked["rows"] = str(rows) if rows else None
    environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "everloop.data.contracts.child"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            cwd=root,
            env=environ,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ExpectationResult(expectation, passed=False, observed=f"took longer than {_SECONDS} s")
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return ExpectationResult(expectation, passed=False, observed=f"its process ended by {done.returncode}: {told}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "missing" in answer:
        raise InvalidInput(
            f"{expectation.param('function')} cannot be imported: {answer['missing']}",
            hint="give module:function of the project",
        )
    examples = tuple({c: MASK if c in tags else v for c, v in row.items()} for row in answer["examples"])
    return ExpectationResult(expectation, answer["passed"], answer["observed"], answer["failing"], examples)

"""The project's own tests, by pytest in a process of its own; no plugin is assumed, none is turned off."""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from everloop.workspace.ci.findings import Case, Stage, skipped

NAME = "project's tests"
_PATTERNS = ("test_*.py", "*_test.py")
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "build", "dist", "venv", "env", "site-packages", "mlruns"})
_NO_TESTS = 5
"""Pytest's exit code for "nothing was collected"."""
_TAIL = 6000


def run_tests(root: Path) -> Stage:
    """Run pytest in `root` when there are files that it would collect; one case a test.

    The tests see neither the workspace nor a token of ours, and leave no cache in the project's folder.
    """
    if not any(_test_files(root)):
        return skipped(NAME, "the project has no tests")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="everloop-ci-") as scratch:
        junit = Path(scratch) / "junit.xml"
        done = subprocess.run(  # noqa: S603 - our own interpreter, fixed arguments
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={junit}"],
            cwd=root,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        cases = tuple(_cases(junit))
    output = done.stdout.decode("utf-8", "replace")[-_TAIL:]
    if done.returncode == _NO_TESTS:
        return skipped(NAME, "pytest collects nothing here")
    if done.returncode and all(case.state != "failed" for case in cases):
        hint = "pip install pytest" if "No module named pytest" in output else "run pytest in the project's folder"
        cases = (*cases, Case("pytest", "failed", f"it ended with exit code {done.returncode}", hint, output))
    return Stage(NAME, cases or (Case("pytest", "passed", "all passed"),), time.monotonic() - began)


def _test_files(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in _LEFT_OUT]
        folders[:] = [f for f in folders if not (Path(folder) / f / "pyvenv.cfg").exists()]
        yield from (file for file in files if any(fnmatchcase(file, pattern) for pattern in _PATTERNS))


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EVERLOOP_", "MLFLOW_"))}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1"}


def _cases(junit: Path) -> Iterator[Case]:
    """The cases of a JUnit file that pytest wrote; none when it wrote none."""
    try:
        tree = ET.parse(junit)  # noqa: S314 - pytest of this machine wrote it just now
    except (OSError, ET.ParseError):
        return
    for element in tree.iter("testcase"):
        name = f"{element.get('classname', '')}::{element.get('name', '')}".removeprefix("::")
        seconds = float(element.get("time") or 0)
        bad = next((found for tag in ("failure", "error") if (found := element.find(tag)) is not None), None)
        left = element.find("skipped")
        if bad is not None:
            yield Case(name, "failed", _first(bad.get("message")), details=(bad.text or "")[-_TAIL:], seconds=seconds)
        elif left is not None:
            yield Case(name, "skipped", _first(left.get("message")), seconds=seconds)
        else:
            yield Case(name, "passed", seconds=seconds)


def _first(text: str | None) -> str:
    return next(iter((text or "").strip().splitlines()), "")

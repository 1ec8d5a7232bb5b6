"""What a step costs: cold and cached in this process, and in a child process, with every record written.

A chain of trivial steps (a number plus one) on SQLite. Ours computes the closure and the recipe, looks it up, takes the
single-flight lock, saves the value as an object, and records version, lineage and step in one transaction. The floor is
a sha256 key, one SQLite row and one pickle file a step; for children it is a bare interpreter that imports numpy.
Prints a JSON object a line; exit status 1 when a target is missed.

    python benchmarks/flows.py [--quick]
"""

import argparse
import hashlib
import importlib
import json
import pickle
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.flows.assets import Asset, plan
from everloop.flows.engine import Options, Origin, run
from everloop.flows.executors.local import LocalExecutor
from everloop.flows.executors.process import ProcessExecutor
from everloop.flows.identity import runtime
from everloop.store import DirectoryStore

CODECS = {"value": "everloop.flows.value:codec"}
COLD, CACHED, CHILD = 5.0, 1.0, 5.0
"""Targets: ms a step, cold and cached in process; for a child the ratio to a bare interpreter with numpy."""


def write_project(root: Path, steps: int) -> dict[str, Asset]:
    """A chain of `steps` functions in a module of its own, imported."""
    lines = ["from types import SimpleNamespace", "from everloop.flows.assets import define, wire", ""]
    lines += ["def s0():", "    return 0", ""]
    for i in range(1, steps):
        lines += [f"def s{i}(s{i - 1}):", f"    return s{i - 1} + 1", ""]
    names = ", ".join(f"define(s{i})" for i in range(steps))
    lines += [f"project = SimpleNamespace(assets=lambda: wire([{names}]))", ""]
    (root / "chain.py").write_text("\n".join(lines))
    sys.path.insert(0, str(root))
    sys.modules.pop("chain", None)
    importlib.invalidate_caches()
    try:
        assets: dict[str, Asset] = importlib.import_module("chain").project.assets()
    finally:
        sys.path.remove(str(root))
    return assets


def ours(folder: Path, steps: int, *, children: bool = False) -> tuple[float, float]:
    """Milliseconds a step, cold and then cached."""
    root = folder / "project"
    root.mkdir()
    assets = write_project(root, steps)
    catalog, store = Catalog.open(folder / "catalog.db"), DirectoryStore(folder / "objects")
    ctx = Context(Actor.of("ada"), "bench", SystemClock(), catalog, store, home=folder)
    runtime(1), runtime()  # read once a process, not once a step

    def once() -> float:
        executor: Any = ProcessExecutor() if children else LocalExecutor(assets, store)
        began = time.perf_counter()
        run(
            ctx,
            plan(assets, [f"s{steps - 1}"]),
            origin=Origin(root, "chain"),
            executor=executor,
            codecs=CODECS,
            options=Options(),
        )
        taken = time.perf_counter() - began
        executor.close()
        return taken / steps * 1000

    found = once(), once()
    catalog.close()
    return found


def floor(folder: Path, steps: int) -> tuple[float, float]:
    """The same chain with a sha256 key, a row and a pickle file, and nothing else."""
    folder = folder / "floor"
    folder.mkdir()
    connection = sqlite3.connect(folder / "rows.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE steps (key TEXT PRIMARY KEY, path TEXT)")

    def once() -> float:
        value = 0
        began = time.perf_counter()
        for i in range(steps):
            key = hashlib.sha256(f"{i} {value}".encode()).hexdigest()
            row = connection.execute("SELECT path FROM steps WHERE key = ?", (key,)).fetchone()
            if row is not None:
                value = pickle.loads(Path(row[0]).read_bytes())
                continue
            value += 1
            path = folder / key
            path.write_bytes(pickle.dumps(value))
            connection.execute("INSERT INTO steps VALUES (?, ?)", (key, str(path)))
        return (time.perf_counter() - began) / steps * 1000

    found = once(), once()
    connection.close()
    return found


def bare_child(_folder: Path, steps: int) -> tuple[float, float]:
    """A fresh interpreter that imports numpy, as often."""
    began = time.perf_counter()
    for _ in range(steps):
        subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    return (time.perf_counter() - began) / steps * 1000, 0.0


def best(measure: Callable[[Path, int], tuple[float, float]], steps: int, repeats: int) -> tuple[float, float]:
    """The least of some repeats, each in a fresh folder: what the work takes, not what else the machine does."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="everloop-bench-") as folder:
            found.append(measure(Path(folder), steps))
    return min(f[0] for f in found), min(f[1] for f in found)


def report(name: str, value: float, bare: float, *, target: float, met: bool) -> bool:
    """Print one line."""
    line = {
        "name": name,
        "unit": "ms/step",
        "ours": round(value, 3),
        "peer": None,
        "theirs": None,
        "floor": round(bare, 3),
        "ratio": round(value / bare, 2) if bare else None,
        "target": round(target, 3),
        "met": met,
    }
    print(json.dumps(line), flush=True)
    return met


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps and repeats")
    quick = parser.parse_args().quick
    steps, repeats = (50, 3) if quick else (500, 5)
    cold, cached = best(ours, steps, repeats)
    bare_cold, bare_cached = best(floor, steps, repeats)
    children, _ = best(lambda folder, n: ours(folder, n, children=True), 4 if quick else 10, 1)
    bare, _ = best(bare_child, 4 if quick else 10, 1)
    met = [
        report("step, cold, in process", cold, bare_cold, target=COLD, met=cold <= COLD),
        report("step, cached, in process", cached, bare_cached, target=CACHED, met=cached <= CACHED),
        report("step, cold, in a child process", children, bare, target=CHILD * bare, met=children <= CHILD * bare),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())

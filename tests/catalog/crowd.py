"""Eight processes on one catalog: moves one ref by compare-and-swap, and claims tasks. Prints what each did, as JSON.

python crowd.py URL refs|tasks ROUNDS
"""

import json
import multiprocessing
import sys

from everloop.catalog import refs, tasks, versions
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.core.errors import Conflict
from everloop.core.version import Version

P = "flights"
PROCESSES = 8


def move(url, me, rounds):
    """Move the one ref `rounds` times, each time to a version of our own; report what we moved it from and to."""
    catalog, moved, n = Catalog.open(url), [], 0
    while len(moved) < rounds:
        version = Version("value", "v", {"by": me, "n": n})
        try:
            with catalog.write() as tx:
                versions.put(tx, P, version, actor=f"w{me}", at=n)
            with catalog.read() as tx:
                old = refs.get(tx, P, "env/x")
            with catalog.write() as tx:
                refs.move(tx, P, "env/x", old=old, new=version.id, actor=f"w{me}", at=n)
            moved.append((old, version.id))
        except Conflict:
            pass  # somebody else was faster
        n += 1
    catalog.close()
    return moved


def work(url, me, _rounds):
    """Claim and finish tasks until there are none."""
    catalog, clock, done = Catalog.open(url), SystemClock(), []
    while task := tasks.claim(catalog, f"w{me}", ["run"], 60, clock.wall()):
        with catalog.write() as tx:
            tasks.finish(tx, task, {"by": me}, now=clock.wall())
        done.append(task.payload["n"])
    catalog.close()
    return done


def main():
    """Fork the crowd and print what each did."""
    url, what, rounds = sys.argv[1], {"refs": move, "tasks": work}[sys.argv[2]], int(sys.argv[3])
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        sys.stdout.write(json.dumps(pool.starmap(what, [(url, me, rounds) for me in range(PROCESSES)], chunksize=1)))


if __name__ == "__main__":
    main()

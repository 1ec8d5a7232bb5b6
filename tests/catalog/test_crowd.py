"""Eight processes at once: no move and no task is lost or doubled, on both databases."""

import json
import subprocess
import sys
from pathlib import Path

from everloop.catalog import refs, tasks

P = "flights"


def crowd(url, what, rounds):
    command = [sys.executable, str(Path(__file__).with_name("crowd.py")), url, what, str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_acknowledged_move_is_one_link_of_one_chain(catalog, catalog_url):
    moved = [tuple(pair) for one in crowd(catalog_url, "refs", 10) for pair in one]
    with catalog.read() as tx:
        log = [(entry.old, entry.new) for entry in reversed(refs.log(tx, P, "env/x", limit=1000))]
        assert refs.get(tx, P, "env/x") == log[-1][1]
    assert sorted(log, key=str) == sorted(moved, key=str)
    assert len(log) == 80
    assert log[0][0] is None
    assert [old for old, _ in log[1:]] == [new for _, new in log[:-1]]


def test_every_task_is_done_exactly_once(catalog, catalog_url):
    with catalog.write() as tx:
        for n in range(80):
            tasks.enqueue(tx, P, "run", {"n": n}, actor="ada", now=0)
    done = crowd(catalog_url, "tasks", 0)
    assert sorted(n for one in done for n in one) == list(range(80))
    with catalog.read() as tx:
        listed = tasks.list(tx, P, limit=1000)
    assert {(task.state, task.attempt) for task in listed} == {("done", 1)}

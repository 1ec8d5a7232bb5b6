"""What the workers of endpoints use is read off real processes, and shared out where endpoints share one."""

import json
import os
import subprocess
import sys
import time

import pytest

from everloop.catalog.making import uses
from everloop.flows.compute.profiles import Price, Profile
from everloop.flows.compute.working import Workers
from everloop.serving.rollout.observe import gateways

BUSY = "import time\nblock = bytearray(60_000_000)\nprint('ready', flush=True)\nwhile True: pass"
PAID = Profile("small", price=Price("EUR", core_hour=3600))


@pytest.fixture
def busy():
    started = []

    def start():
        child = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def wall():
    return time.time_ns() // 1000


def look(workers, home, at):
    workers.look(gateways(home, at), at)


def tell(home, **endpoints):
    """What a gateway would write of endpoints, each with the processes of its parts."""
    stats = home / "serving" / "stats"
    stats.mkdir(parents=True, exist_ok=True)
    told = {
        f"shop.{name}": {"revision": {"workers": {"part": {"pids": [child.pid for child in children]}}}}
        for name, children in endpoints.items()
    }
    (stats / "g0.json").write_text(json.dumps({"gateway": "g0", "wall": wall(), "endpoints": told}))


def test_workers_are_measured_from_the_first_look_on_and_written_once(busy, tmp_path, context):
    workers, first, second = Workers(), busy(), busy()
    tell(tmp_path, delay=[first], load=[first, second])
    before = time.monotonic()
    look(workers, tmp_path, wall())
    began = time.monotonic()
    time.sleep(1.0)
    tell(tmp_path, delay=[first], load=[first, second])
    least = time.monotonic() - began
    look(workers, tmp_path, wall())
    most = time.monotonic() - before
    rows = {row.step: row for row in workers.rows(wall(), lambda _project, _endpoint: PAID)["shop"]}
    assert set(rows) == {"delay", "load"}
    assert least / 2 - 0.1 <= rows["delay"].seconds <= most / 2 + 0.1
    assert least * 1.5 - 0.1 <= rows["load"].seconds <= most * 1.5 + 0.1
    assert 0 < rows["delay"].cpu_seconds < rows["load"].cpu_seconds < 2.2 * most
    assert rows["load"].peak_memory > 1.4 * rows["delay"].peak_memory > 40_000_000
    assert rows["delay"].cost == pytest.approx(rows["delay"].cpu_seconds * 1e6, abs=2)
    with context.write() as tx:
        uses.record(tx, context.project, list(rows.values()))
    with context.read() as tx:
        (delay, load) = sorted(
            uses.totals(tx, context.project, ["endpoint"], since=0, until=wall() + 10**6), key=lambda one: one.keys
        )
        assert (delay.keys, load.keys) == (("delay",), ("load",))
        assert uses.totals(tx, context.project, ["person"], since=0, until=wall() + 10**6) == []
        month = uses.month(wall())
        assert uses.spent(tx, context.project, "project", month)["EUR"].cost == delay.cost + load.cost
    assert workers.rows(wall(), lambda _project, _endpoint: PAID) == {}


def test_a_worker_that_began_later_counts_whole_and_one_that_ended_no_more(busy, tmp_path):
    workers = Workers()
    tell(tmp_path)
    look(workers, tmp_path, wall() - 2_000_000)
    child = busy()
    time.sleep(0.5)
    tell(tmp_path, delay=[child])
    look(workers, tmp_path, wall())
    child.kill()
    child.wait()
    tell(tmp_path, delay=[child])
    look(workers, tmp_path, wall())
    (row,) = workers.rows(wall(), lambda _project, _endpoint: None)["shop"]
    assert row.cpu_seconds > 0.05
    assert (row.cost, row.currency) == (0, "")


def test_a_gateway_that_is_silent_and_this_process_are_no_workers(tmp_path):
    workers = Workers()

    class Me:
        pid = os.getpid()

    tell(tmp_path, delay=[Me])
    look(workers, tmp_path, wall())
    look(workers, tmp_path, wall() + 10**9)
    assert workers.rows(wall(), lambda _project, _endpoint: PAID) == {}

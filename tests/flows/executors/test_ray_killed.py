"""`kill -9` of a driver, the head of its cluster, a node, or any one process, again and again: each run ends right."""

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select

from everloop.catalog import versions
from everloop.catalog.making import flows
from everloop.catalog.tables.core import steps
from everloop.flows.value import codec

pytest.importorskip("ray")

from ray_host import Host

RUNS = 100
DRIVER = str(Path(__file__).with_name("ray_driver.py"))
FLOW = """
import time
from everloop.flows import control
from everloop.flows.control import Retry


def parts(run: int = 0):
    return [run * 100 + n for n in range(8)]


def worked(part):
    time.sleep(0.2)
    return part * 2


def total(worked):
    return sum(worked)


ASSETS = [define(parts, retry=Retry(2, 0.1)), define(worked, each=control.map("part", over="parts")), define(total)]
"""


class Cluster:
    """A cluster that is made anew when it was hurt."""

    def __init__(self):
        self.host = None

    def whole(self):
        if self.host is None:
            self.host = Host(secrets.token_hex(32), nodes=1)
        return self.host

    def hurt(self):
        if self.host is not None:
            self.host.kill()
        self.host = None


def flow_of(ctx, title):
    with ctx.read() as tx:
        return next((one for one in flows.recent(tx, ctx.project, limit=500) if one.title == title), None)


def victim(chance, driver, host):
    """What is killed: its name, whether the cluster is hurt by it, and the processes."""
    kind = chance.choice(["driver", "head", "node", "any"])
    if kind == "driver":
        return kind, False, [driver.pid]
    if kind in ("head", "node"):
        return kind, True, host.pids(0 if kind == "head" else 1)
    return kind, True, [chance.choice(host.pids())]


def driven(asked, host, chance, kills):
    """Drive a run once, with a kill on the way where `kills`; what was killed, and whether that hurt the cluster."""
    said = json.dumps(asked | {"address": host.address, "token": host.token})
    driver = subprocess.Popen([sys.executable, DRIVER, said], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kind, hurt = "", False
    try:
        if kills:
            with suppress(subprocess.TimeoutExpired):
                driver.wait(chance.uniform(1.0, 9.0))
            kind, hurt, pids = victim(chance, driver, host)
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            driver.wait(150)
    finally:
        with suppress(psutil.Error):
            for one in psutil.Process(driver.pid).children(recursive=True):
                one.kill()
        driver.kill()
        driver.wait()
    return kind, hurt


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_runs_on_a_cluster_that_are_killed_at_random_end_right_and_commit_nothing_twice(author, capsys):
    project = author(FLOW)
    ctx, chance, cluster, killed = project.ctx, random.Random(7), Cluster(), []
    asked = {"root": str(project.root), "store": ctx.store.url, "catalog": ctx.catalog.url, "project": ctx.project}
    asked |= {"home": str(ctx.home), "targets": ["total"]}
    began = time.monotonic()
    try:
        for number in range(RUNS):
            mine = asked | {"title": str(number), "params": {"parts": {"run": number}}}
            for attempt in range(6):
                kind, hurt = driven(mine, cluster.whole(), chance, kills=attempt == 0)
                killed += [kind] if kind else []
                if hurt:
                    cluster.hurt()
                flow = flow_of(ctx, str(number))
                if flow is not None and flow.state == "done":
                    break
                if attempt:  # whatever is wrong with it
                    cluster.hurt()
            assert flow is not None, number
            assert flow.state == "done", (number, kind, flow.error)
            with ctx.read() as tx:
                made = {row.step: row for row in flows.steps_of(tx, ctx.project, flow.id)}["value/total"].output
                found = codec.load(versions.get(tx, ctx.project, made).manifest, ctx.store, {})
            assert found == 2 * sum(number * 100 + n for n in range(8))
            with capsys.disabled():
                print(  # noqa: T201 - how far a long test is
                    f"{number + 1} runs, {time.monotonic() - began:.0f} s: {killed[-1]}, token {flow.token}",
                    flush=True,
                )
    finally:
        cluster.hurt()
    with ctx.read() as tx:
        done = (steps.c.project == ctx.project, steps.c.status == "done", steps.c.cached.is_(False))
        counts = tx.execute(select(func.count()).where(*done).group_by(steps.c.recipe)).scalars().all()
    assert set(counts) == {1}
    assert len(killed) == RUNS
    assert set(killed) == {"driver", "head", "node", "any"}

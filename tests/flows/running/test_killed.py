"""`kill -9` of the driver of a run, its warm process, or a step, at random, again and again: each run ends right."""

import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from sqlalchemy import func, select

from everloop.catalog import versions
from everloop.catalog.making import flows
from everloop.catalog.tables.core import steps
from everloop.core.errors import NotFound
from everloop.flows.value import codec

RUNS = 100
FLOW = """
import time
from everloop.flows import control
from everloop.flows.control import Retry


def parts(run: int = 0):
    return [run * 100 + n for n in range(12)]


def worked(part):
    time.sleep(0.03)
    return part * 2


def total(worked):
    time.sleep(0.05)
    return sum(worked)


ASSETS = [define(parts), define(worked, each=control.map("part", over="parts"), retry=Retry(5, 0.01)),
          define(total, retry=Retry(5, 0.01))]
"""
DRIVER = """
import sys
from pathlib import Path
root, store_url, catalog_url, home, project, number, apart = sys.argv[1:]
sys.path.insert(0, root)
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.catalog.making import flows
from everloop.core.clock import SystemClock
from everloop.flows.assets import plan
from everloop.flows.engine import Options, Origin, owner, run
from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.executors.local import LocalExecutor
from everloop.store import open_store
import flow
store = open_store(store_url)
ctx = Context(Actor.of("ada"), project, SystemClock(), Catalog.open(catalog_url), store, home=Path(home))
assets = flow.project.assets()
with ctx.write() as tx:
    (held,) = [one for one in flows.recent(tx, project, limit=500) if one.title == number] or [None]
    if held is not None:
        held = flows.take_over(tx, project, held, owner=owner(), now=ctx.wall())
executor = ForkedExecutor() if apart == "apart" else LocalExecutor(assets, store)
options = Options(params={"parts": {"run": int(number)}}, title=number, flow=held, workers=3)
run(ctx, plan(assets, ["total"]), origin=Origin(Path(root), "flow"), executor=executor,
    codecs={"value": "everloop.flows.value:codec"}, options=options)
executor.close()
"""


def state_of(ctx, title):
    with ctx.read() as tx:
        found = [one for one in flows.recent(tx, ctx.project, limit=500) if one.title == title]
    return found[0].state if found else ""


def killed(child, chance):
    """Kill the driver, or one of what it started."""
    try:
        below = psutil.Process(child.pid).children(recursive=True)
    except psutil.Error:
        return
    wanted = chance.choice([child.pid, *(one.pid for one in below)])
    try:
        os.kill(wanted, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_runs_that_are_killed_at_random_end_right_and_commit_nothing_twice(author):
    project = author(FLOW)
    ctx = project.ctx
    chance = random.Random(6)
    kills = 0
    for number in range(RUNS):
        place = "apart" if number % 2 else "here"
        words = [str(project.root), ctx.store.url, ctx.catalog.url, str(ctx.home), ctx.project, str(number), place]
        for _attempt in range(8):
            child = subprocess.Popen([sys.executable, "-c", DRIVER, *words], stderr=subprocess.DEVNULL)
            until = time.monotonic() + 60
            while state_of(ctx, str(number)) == "" and child.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            if kills <= number:
                time.sleep(chance.uniform(0.0, 0.6))
                killed(child, chance)
                kills += 1
            try:
                child.wait(60)
            finally:
                child.kill()
                child.wait()
            if state_of(ctx, str(number)) == "done":
                break
        assert state_of(ctx, str(number)) == "done", number
        with ctx.read() as tx:
            flow = next(one for one in flows.recent(tx, ctx.project, limit=500) if one.title == str(number))
            rows = {row.step: row for row in flows.steps_of(tx, ctx.project, flow.id)}
            made = manifest(tx, ctx, rows["value/total"].output)
        assert codec.load(made, ctx.store, {}) == 2 * sum(number * 100 + n for n in range(12))
    with ctx.read() as tx:
        done = (steps.c.project == ctx.project, steps.c.status == "done", steps.c.cached.is_(False))
        query = select(steps.c.recipe, func.count()).where(*done).group_by(steps.c.recipe)
        twice = [(recipe, count) for recipe, count in tx.execute(query) if count > 1]
    assert twice == []
    assert kills == RUNS


def manifest(tx, ctx, identity):
    found = versions.manifests(tx, ctx.project, [identity])
    if identity not in found:
        raise NotFound(identity)
    return found[identity]

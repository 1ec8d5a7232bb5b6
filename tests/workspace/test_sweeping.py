"""The daily sweep: planned by the worker, done in a task, told as a fact; it takes what nothing names any more."""

import os
import time

import pytest

from everloop.catalog import chain, facts, tasks, versions
from everloop.catalog.verify import verify
from everloop.core.clock import DAY, SECOND
from everloop.core.settings import Settings
from everloop.core.version import Version
from everloop.server.worker import KINDS, Worker
from everloop.store.layout import file_of
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.work.tasks import perform


@pytest.fixture
def workspace(tmp_path):
    settings = Settings(home=tmp_path / "home", project="shop")
    initialise(settings, "ada", "team", tmp_path)
    with Workspace.open(settings) as opened:
        yield opened


def age(path, days):
    past = time.time() - days * DAY / SECOND
    os.utime(path, (past, past))


def test_what_nothing_names_goes_after_its_grace_and_the_rest_stays(workspace):
    ctx, root = workspace.system(), workspace.home / "objects"
    named = [ctx.store.put(b"named by shop"), ctx.store.put(b"named by flights")]
    with ctx.write() as tx:
        for project, identity in zip(("shop", "flights"), named, strict=True):
            made = Version("code", project, {"files": {"a.py": identity}}, ())
            versions.put(tx, project, made, actor="ada", at=1)
    old, fresh = ctx.store.put(b"nobody names this"), ctx.store.put(b"nor this, yet")
    for identity in (*named, old):
        age(file_of(root, identity), 8)
    half, being_written = root / "tmp" / "half", root / "tmp" / "now"
    for path in (half, being_written):
        path.write_bytes(b"half wr")
    age(half, 8)
    told = perform(ctx, "store.sweep", {}, "")
    assert (told["removed"], told["bytes"], told["leftovers"]) == (1, len(b"nobody names this"), 1)
    assert [ctx.store.has(identity) for identity in (*named, old, fresh)] == [True, True, False, True]
    assert (half.exists(), being_written.exists()) == (False, True)
    chain.seal(workspace.catalog, workspace.clock)
    with ctx.read() as tx:
        (fact,) = facts.tail(tx, "shop", kinds=("store.swept",))
    assert fact.payload == {**told, "grace_days": 7.0}
    assert verify(workspace.catalog, workspace.store) == []


def test_the_worker_plans_one_sweep_a_day(workspace, request):
    worker = Worker(workspace, "w")
    request.addfinalizer(worker._lock.close)
    duty = next(duty for duty in worker.duties if duty.name == "sweep")
    began = workspace.clock.wall()

    def planned():
        duty.act()
        with workspace.catalog.read() as tx:
            return tasks.list(tx, "shop", kinds=["store.sweep"])

    (first,) = planned()
    assert planned() == (first,)
    assert first.not_before >= began + DAY
    assert tasks.claim(workspace.catalog, "w", KINDS, 60, began) is None
    claimed = tasks.claim(workspace.catalog, "w", KINDS, 60, first.not_before)
    with workspace.catalog.write() as tx:
        tasks.finish(tx, claimed, {}, now=first.not_before)
    assert [task.state for task in planned()] == ["queued", "done"]

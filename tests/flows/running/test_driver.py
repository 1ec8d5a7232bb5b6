"""Retries, limits, branches, lists, approvals, cancelling, resuming: on real databases and in real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from everloop.catalog import steps, versions
from everloop.catalog.context import Actor
from everloop.catalog.making import flows
from everloop.catalog.operation import invoke
from everloop.core.errors import (
    Cancelled,
    Conflict,
    DefinitionError,
    InvalidInput,
    PermissionDenied,
    PolicyRefused,
    StepFailed,
)
from everloop.flows.control import Each, Retry, bytes_of, seconds_of
from everloop.flows.engine import owner
from everloop.flows.executors.process import ProcessExecutor
from everloop.flows.running import operations
from everloop.flows.running.known import FRESH
from everloop.flows.value import codec


def value(ctx, identity):
    with ctx.read() as tx:
        return codec.load(versions.get(tx, ctx.project, identity).manifest, ctx.store, {})


def shown(ctx, flow):
    with ctx.read() as tx:
        return flows.get(tx, ctx.project, flow), {row.step: row for row in flows.steps_of(tx, ctx.project, flow)}


UNSURE = """
from everloop.flows.control import Retry

def unsure():
    mark("try")
    if len(MARKS.read_text().split()) < 3:
        raise ConnectionResetError("nobody answered")
    return 1


def wrong():
    mark("wrong")
    raise ValueError("no")


ASSETS = [
    define(unsure, retry=Retry(times=3, wait=0.01)),
    define(wrong, retry=Retry(times=3, wait=0.01)),
]
"""


def test_only_named_errors_are_tried_again_and_every_attempt_is_recorded(author):
    project = author(UNSURE)
    done = project.run("unsure")
    assert project.marks() == ["try"] * 3
    ctx = project.ctx
    flow, rows = shown(ctx, done.flow)
    assert flow.state == "done"
    assert (rows["value/unsure"].state, rows["value/unsure"].attempt) == ("done", 3)
    with pytest.raises(StepFailed, match="wrong failed: ValueError"):
        project.run("wrong")
    assert project.marks() == ["try"] * 3 + ["wrong"]
    (failed,) = invoke(ctx, operations.list_flows, operations.ListFlows(state="failed")).flows
    assert "ValueError" in failed.error
    assert failed.counts == {"failed": 1}


def test_a_retry_that_is_named_by_a_base_class(author):
    project = author(
        UNSURE.replace("retry=Retry(times=3, wait=0.01)),\n]", 'retry=Retry(1, 0.01, on=("Exception",))),\n]')
    )
    with pytest.raises(StepFailed):
        project.run("wrong")
    assert project.marks() == ["wrong", "wrong"]


def test_a_step_that_is_too_slow_is_ended_and_tried_again(author, processes):
    text = """
import time
from everloop.core.ports import Resources
from everloop.flows.control import Retry

def slow():
    mark("slow")
    if len(MARKS.read_text().split()) < 2:
        time.sleep(60)
    return 5

ASSETS = [define(slow, resources=Resources(seconds=3.0), retry=Retry(1, 0.01))]
"""
    project = author(text)
    with pytest.raises(InvalidInput, match="limit of memory or time"):
        project.run("slow")
    done = project.run("slow", executor=processes)
    assert value(project.ctx, done.outputs["value/slow"]) == 5
    assert project.marks() == ["slow", "slow"]


def test_amounts_and_wrong_definitions():
    assert [seconds_of(one) for one in ("90s", "10m", "1.5h", 3, None)] == [90.0, 600.0, 5400.0, 3.0, None]
    assert [bytes_of(one) for one in ("2GB", "1KiB", 7, None)] == [2 * 10**9, 1024, 7, None]
    for bad in ("ten", "5 parsecs", 0, -1, float("inf")):
        with pytest.raises(DefinitionError):
            seconds_of(bad)
    with pytest.raises(DefinitionError):
        Retry(times=-1)
    with pytest.raises(DefinitionError):
        Each("part", "parts", 2.0)
    assert [Retry(9, 1.0, 2.0, 5.0).seconds(n) for n in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 5.0]


SPREAD = """
from everloop.flows import control

def parts(count: int = 4):
    return [{"n": n} for n in range(count)]


def score(part, offset, by: int = 10):
    mark(str(part["n"]))
    if part["n"] == 2 and (MARKS.parent / "broken").exists():
        raise ValueError("two is odd")
    return part["n"] * by + offset


def offset():
    return 1


def total(score):
    return sum(x for x in score if x is not None)


def again(it):
    return it + 1


ASSETS = [define(parts), define(offset), define(total),
          define(score, each=control.map("part", over="parts", tolerate=TOLERATE)),
          define(again, each=control.map("it", over="score"))]
"""


@pytest.fixture
def spread(author, tmp_path):
    def make(tolerate=0.0, ctx=None):
        text = SPREAD.replace("TOLERATE", str(tolerate))
        return author(text) if ctx is None else author(text, ctx)

    return make


def test_each_item_of_a_list_is_cached_on_its_own(spread, each_context):
    project = spread(ctx=each_context)
    done = project.run("total", "again")
    ctx = project.ctx
    assert value(ctx, done.outputs["value/score"]) == [1, 11, 21, 31]
    assert value(ctx, done.outputs["value/total"]) == 64
    assert value(ctx, done.outputs["value/again"]) == [2, 12, 22, 32]
    more = project.run("total", params={"parts": {"count": 6}})
    assert project.marks() == ["0", "1", "2", "3", "4", "5"]
    assert value(ctx, more.outputs["value/score"])[4:] == [41, 51]
    _, rows = shown(ctx, more.flow)
    assert rows["value/score"].why == "6 items, 4 of them reused"
    assert [rows[f"value/score[{n}]"].state for n in range(6)] == ["reused"] * 4 + ["done"] * 2
    same = project.run("total")
    assert same.outputs == {key: one for key, one in done.outputs.items() if key != "value/again"}
    assert all(one.reused for one in same.steps)
    with ctx.read() as tx:
        roles = {edge.role for edge in versions.upstream(tx, ctx.project, done.outputs["value/score"], depth=1)}
    assert roles == {"item", "part", "offset", "code", "runtime"}


def test_items_that_fail_are_reported_and_the_others_kept(spread, tmp_path):
    project = spread()
    (tmp_path / "broken").touch()
    with pytest.raises(
        StepFailed, match=r"failed for 1 of 4 items \(2\): value/score failed: ValueError: two"
    ) as caught:
        project.run("total")
    assert caught.value.details["items"] == [2]
    (tmp_path / "broken").unlink()
    project.run("total")
    assert project.marks() == ["0", "1", "2", "3", "2"]


def test_a_share_of_items_may_fail(spread, tmp_path):
    project = spread(0.25)
    (tmp_path / "broken").touch()
    done = project.run("total")
    assert value(project.ctx, done.outputs["value/score"]) == [1, 11, None, 31]
    assert next(one for one in done.steps if one.step == "value/score").failed == (2,)
    _, rows = shown(project.ctx, done.flow)
    assert rows["value/score[2]"].state == "failed"
    assert "1 failed" in rows["value/score"].why
    (tmp_path / "broken").unlink()
    assert value(project.ctx, project.run("total").outputs["value/score"]) == [1, 11, 21, 31]


def test_items_run_beside_each_other_in_processes(spread, processes):
    project = spread()
    done = project.run("total", executor=processes, workers=3)
    assert value(project.ctx, done.outputs["value/total"]) == 64
    assert sorted(project.marks()) == ["0", "1", "2", "3"]


def test_a_list_may_be_empty(spread):
    project = spread()
    done = project.run("total", params={"parts": {"count": 0}})
    assert value(project.ctx, done.outputs["value/score"]) == []


def test_a_value_that_is_no_list_is_refused(author):
    text = """
from everloop.flows import control

def parts():
    return 7


def score(part):
    return part


ASSETS = [define(parts), define(score, each=control.map("part", over="parts"))]
"""
    with pytest.raises(InvalidInput, match="gives a int, not a list"):
        author(text).run("score")


BRANCHES = """
def size(n: int = 5):
    return n


def big(size):
    return size > 10


def deep(size):
    mark("deep")
    return "deep"


def flat(size):
    mark("flat")
    return "flat"


def after(deep):
    return deep


def chosen(deep, flat):
    return [deep, flat]


ASSETS = [define(size), define(big), define(deep, only_if="big"), define(flat, unless="big"), define(after),
          define(chosen, joins=True)]
"""


def test_branches_that_are_not_taken_are_skipped_and_joined(author):
    project = author(BRANCHES)
    done = project.run("chosen", "after")
    assert value(project.ctx, done.outputs["value/chosen"]) == [None, "flat"]
    assert done.skipped == ("value/after", "value/deep")
    other = project.run("chosen", "after", params={"size": {"n": 50}})
    assert value(project.ctx, other.outputs["value/chosen"]) == ["deep", None]
    assert other.skipped == ("value/flat",)
    assert project.marks() == ["flat", "deep"]
    _, rows = shown(project.ctx, done.flow)
    assert (rows["value/deep"].state, rows["value/deep"].why) == ("skipped", "value/big is not true")


APPROVED = """
from everloop.flows.assets import Asset
from everloop.flows.control import Approval

def made(n: int = 1):
    return n


def beside():
    mark("beside")
    return 0


def shipped(made, agreed):
    mark("shipped")
    return [made, agreed]


ASSETS = [define(made), define(beside), define(shipped),
          Asset("value/agreed", None, {"made": "made"}, approval=Approval(within=WITHIN))]
"""


def test_a_run_parks_until_somebody_else_approves(author, each_context):
    project = author(APPROVED.replace("WITHIN", "60"), each_context)
    ctx = project.ctx
    done = project.run("shipped", "beside", request={"any": "thing"})
    assert (done.parked, project.marks()) == (("value/agreed",), ["beside"])
    flow, rows = shown(ctx, done.flow)
    assert (flow.state, rows["value/agreed"].state, rows["value/shipped"].state) == ("parked", "parked", "waiting")
    judge = replace(ctx, actor=Actor.of("bea", "approver"))
    wanted = operations.Decide(flow=done.flow, step="agreed", approved=True, comment="go")
    with pytest.raises(PermissionDenied, match="started this run"):
        invoke(replace(ctx, actor=Actor.of(ctx.actor.name, "approver")), operations.decide, wanted)
    with pytest.raises(PermissionDenied):
        invoke(replace(ctx, actor=Actor.of("eve", "contributor")), operations.decide, wanted)
    invoke(judge, operations.decide, wanted)
    with pytest.raises(Conflict, match="waits for no decision"):
        invoke(judge, operations.decide, wanted)
    with ctx.write() as tx:
        taken = flows.take_over(tx, ctx.project, flow, owner=owner(), now=ctx.wall())
    after = project.run("shipped", "beside", flow=taken)
    assert value(ctx, after.outputs["value/shipped"]) == [1, True]
    assert project.marks() == ["beside", "shipped"]
    flow, rows = shown(ctx, done.flow)
    assert (flow.state, rows["value/agreed"].why) == ("done", "approved by bea")


def test_a_refusal_and_the_end_of_the_time_end_the_run(author):
    for within, decision, message in (("60", False, "refused by bea: no"), ("0.001", None, "nobody decided in time")):
        project = author(APPROVED.replace("WITHIN", within))
        ctx = project.ctx
        done = project.run("shipped", request={"any": "thing"})
        flow, _ = shown(ctx, done.flow)
        if decision is not None:
            judge = replace(ctx, actor=Actor.of("bea", "approver"))
            said = operations.Decide(flow=done.flow, step="agreed", approved=False, comment="no")
            invoke(judge, operations.decide, said)
        time.sleep(0.01)
        with ctx.write() as tx:
            taken = flows.take_over(tx, ctx.project, flow, owner=owner(), now=ctx.wall())
        with pytest.raises(PolicyRefused, match=message):
            project.run("shipped", flow=taken)
        flow, rows = shown(ctx, done.flow)
        assert (flow.state, rows["value/agreed"].state) == ("failed", "refused")
        assert project.marks() == []


LONG = """
import time

def short():
    mark("short")
    return 1


def long(short):
    mark("long")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.01)
    return 2


ASSETS = [define(short), define(long)]
"""


def at_work(project):
    """The flow that is in its long step, once its short one is written (short ones are written together)."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for row in invoke(project.ctx, operations.list_flows, operations.ListFlows(state="running")).flows:
            known = shown(project.ctx, row.id)[1].get("value/short")
            if "long" in project.marks() and known is not None and known.state == "done":
                return row.id
        time.sleep(0.02)
    raise AssertionError("it never gets to its long step")


@pytest.mark.parametrize("isolated", [False, True])
def test_a_run_that_is_cancelled_ends_its_step_and_commits_nothing_of_it(author, isolated):
    project = author(LONG)
    ctx = project.ctx

    def cancel():
        flow = at_work(project)
        invoke(ctx, operations.cancel_flow, operations.OfFlow(flow=flow))

    other = threading.Thread(target=cancel)
    other.start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        project.run("long", executor=ProcessExecutor() if isolated else None)
    other.join()
    assert time.monotonic() - began < 30
    (flow,) = invoke(ctx, operations.list_flows, operations.ListFlows()).flows
    assert flow.state == "cancelled"
    _, rows = shown(ctx, flow.id)
    assert (rows["value/short"].state, rows["value/long"].state) == ("done", "cancelled")
    with ctx.read() as tx:
        assert versions.history(tx, ctx.project, "value", "long") == []
        assert len(versions.history(tx, ctx.project, "value", "short")) == 1
    with pytest.raises(Conflict):
        invoke(ctx, operations.cancel_flow, operations.OfFlow(flow=flow.id))


def test_who_lost_a_run_to_another_process_commits_nothing_more(author, each_context):
    text = LONG.replace("+ 60", "+ 4")
    project = author(text, each_context)
    ctx = project.ctx
    taken = []

    def steal():
        running = at_work(project)
        with ctx.write() as tx:
            flow = flows.get(tx, ctx.project, running)
            taken.append(flows.take_over(tx, ctx.project, flow, owner=owner(), now=ctx.wall()))

    other = threading.Thread(target=steal)
    other.start()
    with pytest.raises(Conflict, match="in other hands"):
        project.run("long")
    other.join()
    with ctx.read() as tx:
        assert versions.history(tx, ctx.project, "value", "long") == []
    done = project.run("long", flow=taken[0])
    assert [one.reused for one in done.steps] == [True, False]
    with ctx.read() as tx:
        assert len(steps.of_output(tx, ctx.project, done.outputs["value/long"])) == 1
    flow, _ = shown(ctx, done.flow)
    assert (flow.state, flow.token) == ("done", 2)


def test_a_killed_run_is_lost_and_is_gone_on_with(author, tmp_path):
    project = author(LONG.replace("+ 60", "+ (60 if os.environ.get('WAITS') else 0)"))
    ctx = project.ctx
    text = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(project.root)!r})
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.flows.assets import plan
from everloop.flows.engine import Origin, run
from everloop.flows.executors.local import LocalExecutor
from everloop.store import open_store
import flow
store = open_store({ctx.store.url!r})
catalog = Catalog.open({ctx.catalog.url!r})
ctx = Context(Actor.of("ada"), {ctx.project!r}, SystemClock(), catalog, store, home=Path({str(ctx.home)!r}))
assets = flow.project.assets()
run(ctx, plan(assets, ["long"]), origin=Origin(Path({str(project.root)!r}), "flow"),
    executor=LocalExecutor(assets, store), codecs={{"value": "everloop.flows.value:codec"}})
"""
    child = subprocess.Popen([sys.executable, "-c", text], env={**os.environ, "WAITS": "1"})
    while "long" not in project.marks():
        assert child.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (row,) = invoke(ctx, operations.list_flows, operations.ListFlows()).flows
    assert row.state == "lost"
    with ctx.write() as tx:
        flow = flows.get(tx, ctx.project, row.id)
        taken = flows.take_over(tx, ctx.project, flow, owner=owner(), now=ctx.wall())
        with pytest.raises(Conflict):
            flows.take_over(tx, ctx.project, flow, owner=owner(), now=ctx.wall())
    done = project.run("long", flow=taken)
    assert project.marks() == ["short", "long", "long"]
    assert done.outputs.keys() == {"value/short", "value/long"}


def test_what_others_made_meanwhile_is_seen(author):
    project = author(LONG.replace("+ 60", "+ 0"))
    project.run("short")
    time.sleep(FRESH)
    assert [one.reused for one in project.run("long").steps] == [True, False]

"""Searches through the engine: real Optuna, real steps, the real tracking store."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from everloop.catalog import versions
from everloop.catalog.making import flows
from everloop.catalog.making.flows import FlowStep
from everloop.catalog.tracking import experiments, querying
from everloop.core.errors import DefinitionError, InvalidInput, StepFailed
from everloop.core.ports import Resources
from everloop.flows.compute.profiles import Price, Profile, Profiles
from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.reproduce import reproduce
from everloop.flows.search.definitions import choice, floats, ints, search
from everloop.flows.search.driving import Before, spent
from everloop.flows.value import codec
from everloop.workspace.runs import TrackedRuns

CODECS = {"value": "everloop.flows.value:codec"}
FLOW = """
from everloop.core.inside.reporting import report
from everloop.flows.search.definitions import Hyperband, Median, choice, floats, ints, search

SPACE = {"kind": choice("line", "curve"), "x": floats(-4.0, 4.0), "bend": ints(1, 5).when(kind="curve")}


def parts():
    return [3.0, -1.0]


def tuned(parts, kind="line", x=0.0, bend=0):
    mark(f"{kind}:{x:.6f}:{bend}")
    return {"loss": (x - parts[1]) ** 2 + (0.5 if kind == "line" else bend / 10), "size": abs(x)}


def used(tuned):
    return tuned["params"]


ASSETS = [define(parts), define(tuned, search=search(SPACE, minimize="loss", trials=TRIALS, seed=3)), define(used)]
"""


GRID = FLOW.replace(
    'SPACE, minimize="loss", trials=TRIALS, seed=3', "{'x': floats(-2, 2, step=1.0)}, sampler='grid', MORE"
)


def value_of(project, done, key="value/tuned"):
    with project.ctx.read() as tx:
        manifest = versions.get(tx, project.ctx.project, done.outputs[key]).manifest
    return codec.load(manifest, project.ctx.store, {})


def tracked(ctx, name="tuned"):
    with ctx.read() as tx:
        found = experiments.by_name(tx, ctx.project, name)
        rows = querying.search(tx, ctx.project, {found.id: name}, limit=500).rows
    parents = [one for one in rows if "everloop.search" in one.tags]
    trials = [one for one in rows if "everloop.trial" in one.tags]
    return parents, trials


def test_the_best_trial_is_the_value_and_every_trial_a_nested_run(author, context):
    project = author(FLOW.replace("TRIALS", "24"))
    done = project.run("used", runs=TrackedRuns(context))
    best = value_of(project, done)
    assert best["params"]["kind"] == "curve"
    assert abs(best["params"]["x"] + 1) < 0.7
    assert best["values"] == {"loss": best["result"]["loss"]}
    parents, trials = tracked(context)
    assert [one.status for one in parents] == ["FINISHED"]
    assert len(trials) == 24 == len(project.marks())
    assert {one.tags["mlflow.parentRunId"] for one in trials} == {parents[0].id}
    assert {one.tags["everloop.trial.state"] for one in trials} == {"done"}
    top = next(one for one in trials if one.tags["everloop.trial"] == str(best["trial"]))
    metrics = {point.key: point.value for point in top.metrics}
    assert metrics["loss"] == pytest.approx(best["values"]["loss"])
    assert metrics["size"] == pytest.approx(best["result"]["size"])
    assert float(top.params["x"]) == pytest.approx(best["params"]["x"])
    assert all(("bend" in one.params) == (one.params["kind"] == "curve") for one in trials)
    importance = json.loads(parents[0].tags["everloop.search.importance"])["loss"]
    assert set(importance) == {"kind", "x", "bend"}
    assert max(importance, key=importance.get) == "x"
    assert json.loads(parents[0].tags["everloop.search.best"]) == [best["trial"]]


def test_a_repeated_search_runs_nothing_and_a_larger_budget_only_what_is_new(author, context):
    sink = TrackedRuns(context)
    first = author(FLOW.replace("TRIALS", "8")).run("used", runs=sink)
    again = author(FLOW.replace("TRIALS", "8"))
    repeated = again.run("used", runs=sink)
    assert len(again.marks()) == 8
    assert repeated.outputs == first.outputs
    assert all(one.reused for one in repeated.steps)
    larger = author(FLOW.replace("TRIALS", "14"))
    larger.run("used", runs=sink)
    assert len(larger.marks()) == 14
    parents, trials = tracked(context)
    newest = next(one for one in parents if json.loads(one.tags["everloop.search"])["trials"] == 14)
    mine = [one for one in trials if one.tags["mlflow.parentRunId"] == newest.id]
    assert len(mine) == 14
    assert sum(one.tags.get("everloop.trial.reused") == "true" for one in mine) == 8


def test_another_metric_of_the_same_trials_runs_none_of_a_grid_again(author):
    text = GRID
    project = author(text.replace("MORE", "minimize='loss'"))
    assert value_of(project, project.run("tuned"))["params"] == {"x": -1.0}
    assert len(project.marks()) == 5
    other = author(text.replace("MORE", "minimize='size'"))
    assert value_of(other, other.run("tuned"))["params"] == {"x": 0.0}
    assert len(other.marks()) == 5


def test_what_does_not_change_the_best_runs_nothing_behind_it(author):
    text = GRID.replace("MORE", "minimize='loss', MORE")
    first = author(text.replace("MORE", "seed=1")).run("used")
    second = author(text.replace("MORE", "seed=2")).run("used")
    assert first.outputs == second.outputs
    assert {one.step: one.reused for one in second.steps}["value/used"]


def test_trials_are_the_same_beside_each_other_in_children(author, context):
    here = author(FLOW.replace("TRIALS", "12"))
    best = value_of(here, here.run("tuned"))
    alone = here.marks()
    executor = ForkedExecutor()
    try:
        done = here.run("tuned", executor=executor, workers=4, cached=False)
    finally:
        executor.close()
    assert sorted(here.marks()[len(alone) :]) == sorted(alone)
    assert value_of(here, done) == best


PRUNED = """
from everloop.core.inside.reporting import report
from everloop.flows.search.definitions import Hyperband, Median, floats, search


def tuned(x=0.0):
    for epoch in range(1, 10):
        mark(f"{x:.6f}:{epoch}")
        report(1.0 - abs(x) / 10 + epoch / 100, step=epoch)
    return {"score": 1.0 - abs(x) / 10 + 0.09}


WANTED = search({"x": floats(-5.0, 5.0)}, maximize="score", trials=16, seed=1, sampler="random", prune=RULE)
ASSETS = [define(tuned, search=WANTED)]
"""


@pytest.mark.parametrize("rule", ["Median(startup=4)", "Hyperband(9)"])
def test_trials_that_fall_behind_are_ended_early_and_are_known_next_time(author, context, rule):
    project = author(PRUNED.replace("RULE", rule))
    done = project.run("tuned", runs=TrackedRuns(context))
    marks = project.marks()
    assert len(marks) < 16 * 9
    _, trials = tracked(context)
    states = [one.tags["everloop.trial.state"] for one in trials]
    assert 2 <= states.count("pruned") < 14
    assert states.count("done") + states.count("pruned") == 16
    best = value_of(project, done)
    tried = {float(one.params["x"]) for one in trials}
    assert abs(best["params"]["x"]) == pytest.approx(min(abs(x) for x in tried))
    # the same search anew, its own record aside: everything is known
    larger = author(PRUNED.replace("RULE", rule).replace("trials=16", "trials=20"))
    larger.run("tuned", runs=TrackedRuns(context))
    assert larger.marks()[: len(marks)] == marks
    assert len({mark.split(":")[0] for mark in larger.marks()[len(marks) :]}) == 4
    # without a rule those that were ended are run to their end, the others not again
    before = len(larger.marks())
    whole = author(PRUNED.replace(", prune=RULE", ""))
    whole.run("tuned")
    assert len(whole.marks()) - before == 9 * states.count("pruned")
    # and what is complete is held against the rule, not run
    ruled = author(PRUNED.replace("RULE", rule).replace("trials=16", "trials=15"))
    ruled.run("tuned")
    assert len(whole.marks()) - before == 9 * states.count("pruned")


FAILING = """
from everloop.flows.search.definitions import ints, search


def tuned(x=0):
    mark(str(x))
    if x % 4 == MOD:
        raise ValueError("no such luck")
    return float(x)


ASSETS = [define(tuned, search=search({"x": ints(0, 11)}, maximize="score", sampler="grid", tolerate=0.4))]
"""


def test_failing_trials_are_recorded_and_a_share_of_them_is_tolerated(author, context):
    project = author(FAILING.replace("MOD", "3"))
    done = project.run("tuned", runs=TrackedRuns(context))
    assert value_of(project, done)["params"] == {"x": 10}
    _, trials = tracked(context)
    failed = [one for one in trials if one.tags["everloop.trial.state"] == "failed"]
    assert {one.params["x"] for one in failed} == {"3", "7", "11"}
    assert {one.status for one in failed} == {"FAILED"}
    assert "no such luck" in failed[0].tags["everloop.trial.why"]


def test_a_search_ends_when_too_many_trials_failed(author, context):
    project = author(FAILING.replace("x % 4 == MOD", "x != 1"))
    with pytest.raises(StepFailed, match=r"of 12 trials failed, the first: .*no such luck"):
        project.run("tuned", runs=TrackedRuns(context))
    parents, _ = tracked(context)
    assert [one.status for one in parents] == ["FAILED"]


def test_a_metric_that_is_missing_is_said(author):
    project = author(FLOW.replace("TRIALS", "4").replace('minimize="loss"', 'minimize="lost"'))
    with pytest.raises(StepFailed, match=r"it gives no lost.*it gives loss, size"):
        project.run("tuned")


def test_several_metrics_give_the_pareto_front(author):
    project = author(FLOW.replace("TRIALS", "20").replace('minimize="loss"', 'minimize=["loss", "size"]'))
    best = value_of(project, project.run("tuned"))
    points = [(one["values"]["loss"], one["values"]["size"]) for one in best["front"]]
    assert len(points) > 2
    assert points == sorted(points)
    assert [size for _, size in points] == sorted((size for _, size in points), reverse=True)
    assert best["params"] == best["front"][0]["params"]


def test_a_budget_of_money_is_counted_by_the_price_of_the_profile_that_is_in_force(author):
    """Trials of 0.1 s at a unit of money a second: a budget of 0.35 is spent by the fourth, or before."""
    slow = FLOW.replace("trials=TRIALS", "money=0.35").replace('mark(f"', 'import time; time.sleep(0.1); mark(f"')
    project = author(slow)
    paid = Profile("paid", Resources(1.0), Price("EUR", hour=3600), default=True)
    project.run("tuned", profiles=Profiles({"paid": paid}))
    assert 1 <= len(project.marks()) <= 4


def test_a_budget_of_time_ends_it_and_one_of_money_needs_a_price(author):
    slow = FLOW.replace("trials=TRIALS", "within=0.6").replace('mark(f"', 'import time; time.sleep(0.1); mark(f"')
    project = author(slow)
    project.run("tuned")
    assert 4 <= len(project.marks()) <= 12
    dear = author(slow.replace("within=0.6", "money=1.0"))
    with pytest.raises(InvalidInput, match="nobody knows what its compute costs"):
        dear.run("tuned")
    before = len(dear.marks())
    dear.run("tuned", price=lambda _asset: 3600 / 0.5, cached=False)  # half a second for the whole budget
    assert 4 <= len(dear.marks()) - before <= 8


def test_what_is_searched_cannot_be_set(author):
    with pytest.raises(InvalidInput, match="it cannot be set"):
        author(FLOW.replace("TRIALS", "4")).run("tuned", params={"tuned": {"x": 1.0}})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: search({}, maximize="a"),
        lambda: search({"x": ints(0, 3)}),
        lambda: search({"x": floats(0, 1)}, maximize="a", sampler="grid"),
        lambda: search({"x": ints(0, 3)}, maximize="a", sampler="bayes"),
        lambda: search({"x": ints(0, 3)}, maximize="a", trials=0),
        lambda: search({"x": ints(0, 3).when(y=1), "y": ints(0, 1)}, maximize="a"),
        lambda: search({"y": choice("a", "b"), "x": ints(0, 3).when(y="c")}, maximize="a"),
        lambda: floats(0, 1, log=True),
        lambda: ints(3, 1),
        choice,
        lambda: choice("a", "a"),
    ],
)
def test_a_search_that_cannot_be_is_refused_when_it_is_defined(wrong):
    with pytest.raises(DefinitionError) as refused:
        wrong()
    assert refused.value.message


def test_a_search_of_a_parameter_that_no_step_has_is_refused(author):
    with pytest.raises(DefinitionError, match="searches 'depth'"):
        author(FLOW.replace("TRIALS", "4").replace('"x": floats', '"depth": floats'))


def test_what_a_search_found_is_reproduced_by_its_best_trial(author, context, processes):
    project = author(FLOW.replace("TRIALS", "4"))
    found = project.run("tuned").outputs["value/tuned"]
    told = {"executor": processes, "codecs": CODECS, "module": "flow"}
    assert reproduce(context, found, **told).tier == "bit"


DRIVER = """
import sys
from pathlib import Path
root, store_url, catalog_url, home, project = sys.argv[1:]
sys.path.insert(0, root)
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import SystemClock
from everloop.flows.assets import plan
from everloop.flows.engine import Options, Origin, run
from everloop.flows.executors.local import LocalExecutor
from everloop.store import open_store
from everloop.workspace.runs import TrackedRuns
import flow
store = open_store(store_url)
ctx = Context(Actor.of("ada"), project, SystemClock(), Catalog.open(catalog_url), store, home=Path(home))
assets = flow.project.assets()
run(ctx, plan(assets, ["used"]), origin=Origin(Path(root), "flow"), executor=LocalExecutor(assets, store),
    codecs={"value": "everloop.flows.value:codec"}, runs=TrackedRuns(ctx), options=Options())
"""


def test_a_search_that_was_killed_goes_on_where_it_was(author, context):
    slow = FLOW.replace("TRIALS", "16").replace('mark(f"', 'import time; time.sleep(0.08); mark(f"')
    project = author(slow)
    words = [str(project.root), context.store.url, context.catalog.url, str(context.home), context.project]
    child = subprocess.Popen([sys.executable, "-c", DRIVER, *words])
    until = time.monotonic() + 60
    while len(project.marks()) < 7 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = project.marks()
    assert 7 <= len(before) < 16
    done = project.run("used", runs=TrackedRuns(context))
    marks = project.marks()
    assert len(set(marks)) == 16
    assert len(marks) <= 16 + 3  # the trial in flight, and what of a tenth of a second was not yet written
    assert value_of(project, done)["values"]["loss"] < 1
    parents, trials = tracked(context)
    assert sorted(one.status for one in parents) == ["FINISHED", "KILLED"]
    assert "RUNNING" not in {one.status for one in trials}


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("budget", ["within=1.0", "money=1.0"])
def test_a_search_that_is_gone_on_with_has_spent_what_it_spent(author, context, budget):
    """Two waves of four trials of 0.2 s are more than a second, and a second of work is the money too."""
    slow = FLOW.replace("trials=TRIALS", budget).replace('mark(f"', 'import time; time.sleep(0.2); mark(f"')
    project = author(slow)
    price = {"price": lambda _asset: 3600.0}
    ended = []

    def interrupt(step, state, _seconds):
        ended.extend([step] if state == "done" and "[" in step else [])
        if len(ended) == 8:
            raise Interrupted

    broken = author(slow.replace(budget, budget.replace("1.0", "60")))
    with pytest.raises(Interrupted):
        broken.run("tuned", progress=interrupt, **price)
    with context.read() as tx:
        (flow,) = flows.recent(tx, context.project)
    with context.write() as tx:
        taken = flows.take_over(tx, context.project, flow, owner="another", now=context.wall())
    ran = len(project.marks())
    assert ran == 8
    project = author(slow)
    best = value_of(project, project.run("tuned", flow=taken, **price))
    assert len(project.marks()) == ran  # nothing is left to spend; what it paid for is reused, and gives the best
    assert best["values"]["loss"] >= 0
    with context.read() as tx:
        rows = [one for one in flows.steps_of(tx, context.project, flow.id) if "[" in one.step]
    assert sum(one.state == "reused" for one in rows) == 8
    assert all(one.ended - one.began >= 200_000 for one in rows if one.state == "reused")  # when they really ran


def test_time_between_two_drivers_is_nobodys():
    rows = [
        FlowStep("value/x[0]", 0, "done", began=0, ended=2_000_000),
        FlowStep("value/x[1]", 0, "reused", began=1_000_000, ended=3_000_000),
        FlowStep("value/x[2]", 0, "done", began=90_000_000, ended=91_000_000),
        FlowStep("value/x[3]", 0, "running", began=92_000_000),
        FlowStep("value/other", 0, "done", began=0, ended=50_000_000),
    ]
    assert spent(rows, "value/x") == Before(trials=3, seconds=4.0, work=5.0)

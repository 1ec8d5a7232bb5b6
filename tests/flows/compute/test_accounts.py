"""What a run used is written down at the price of its time; budgets stop runs and keep what was finished."""

import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest

from everloop.catalog import chain, facts
from everloop.catalog.context import Actor
from everloop.catalog.making import budgets, flows, uses
from everloop.catalog.making.budgets import Budget
from everloop.core.errors import InvalidInput, OverBudget, PermissionDenied, StepFailed
from everloop.core.ports import Resources, Use
from everloop.flows.compute.profiles import Price, Profile, Profiles, profile
from everloop.flows.executors.forked import ForkedExecutor
from everloop.flows.executors.process import ProcessExecutor
from everloop.flows.observation.using import Meter

HOUR = Price("EUR", hour=3600)
"""One euro a second, so that cost is time."""
PRICED = Profiles({"small": Profile("small", Resources(), HOUR, default=True)})
WORK = """
import subprocess, sys, time

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

def used(count: int = 1):
    burn(0.3)
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.3: pass"], check=True)
    block = bytearray(200_000_000)
    (MARKS.parent / "out.bin").write_bytes(bytes(3_000_000))
    return len(block)

def slow(seconds: float = 60.0):
    mark("began")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)
    return "slept"

def quick(number: int = 0):
    return number

def after(quick, slow):
    return [quick, slow]

def fails(number: int = 0):
    burn(0.05)
    raise ValueError("no")

ASSETS = [define(used), define(slow), define(quick), define(after), define(fails)]
"""


def rows_of(ctx, flow=None):
    with ctx.read() as tx:
        listed = flows.recent(tx, ctx.project)
        return uses.of_flow(tx, ctx.project, flow or listed[0].id)


def limited(ctx, scope, **limits):
    with ctx.write() as tx:
        budgets.put(tx, ctx.project, Budget(scope, at=ctx.wall(), actor="boss", **limits))


def states(ctx, flow):
    with ctx.read() as tx:
        found = flows.get(tx, ctx.project, flow)
        return found.state, {row.step: row.state for row in flows.steps_of(tx, ctx.project, flow)}


@pytest.mark.parametrize("where", ["here", "fresh", "forked"])
def test_a_step_is_measured_with_what_it_started(author, where):
    made = author(WORK)
    executor = {"here": lambda: None, "fresh": ProcessExecutor, "forked": ForkedExecutor}[where]()
    try:
        made.run("used", executor=executor, profiles=PRICED)
    finally:
        if executor is not None:
            executor.close()
    (row,) = rows_of(made.ctx)
    assert (row.step, row.state, row.profile, row.actor, row.currency) == ("value/used", "done", "small", "ada", "EUR")
    assert 0.6 <= row.cpu_seconds < 10, "its own, and that of the process that it started"
    assert row.seconds >= 0.3
    assert row.peak_memory >= 200_000_000
    assert row.peak_memory < 900_000_000 or where == "here", "here it is what the process of all tests holds"
    assert row.written >= 3_000_000 or not row.written, "memory file systems write nothing to storage"
    assert row.cost == pytest.approx(row.seconds * 1e6, abs=2)
    assert row.price == HOUR.json()
    with made.ctx.read() as tx:
        sums = uses.spent(tx, made.ctx.project, "person/ada", uses.month(made.ctx.wall()))
    assert sums["EUR"].cost == row.cost


def test_a_reused_step_costs_nothing_and_another_price_changes_no_row(author):
    made = author(WORK)
    made.run("quick", profiles=PRICED)
    first = rows_of(made.ctx)
    dearer = Profiles({"small": Profile("small", Resources(), Price("EUR", hour=999_999), default=True)})
    made.run("quick", profiles=dearer)
    assert rows_of(made.ctx) == []
    made.run("quick", profiles=dearer, cached=False)
    (second,) = rows_of(made.ctx)
    with made.ctx.read() as tx:
        held = uses.of_recipes(tx, made.ctx.project, [second.recipe])
    assert held == [*first, second]
    assert second.price["hour"] == "999999"
    assert second.cost > 10 * first[0].cost


def test_what_failed_is_paid_too(author, processes):
    made = author(WORK)
    for executor in (None, processes):
        with pytest.raises(StepFailed):
            made.run("fails", profiles=PRICED, executor=executor)
        (row,) = rows_of(made.ctx)
        assert (row.state, row.output) == ("failed", "")
        assert row.cpu_seconds >= 0.05
        assert row.cost > 0


def test_nobody_starts_a_step_when_the_budget_is_spent_and_more_of_it_goes_on(author):
    made = author(WORK)
    limited(made.ctx, "project", currency="EUR", cost=1)
    made.run("quick", profiles=PRICED)
    with pytest.raises(OverBudget, match="the budget of project for 20") as refused:
        made.run("after", profiles=PRICED)
    assert "everloop flows resume flow" in refused.value.hint
    assert made.marks() == []
    with made.ctx.read() as tx:
        (flow,) = flows.recent(tx, made.ctx.project, states=["stopped"])
    state, steps = states(made.ctx, flow.id)
    assert state == "stopped"
    assert steps == {"value/quick": "reused", "value/slow": "stopped", "value/after": "stopped"}
    limited(made.ctx, "project", currency="EUR", cost=100_000_000)
    with made.ctx.write() as tx:
        taken = flows.take_over(tx, made.ctx.project, flow, owner="me", now=made.ctx.wall())
    made.run("after", profiles=PRICED, flow=taken, params={"slow": {"seconds": 0.0}})
    assert states(made.ctx, flow.id)[0] == "done"


@pytest.mark.parametrize("where", ["here", "apart"])
def test_a_step_that_runs_is_stopped_at_the_limit_and_what_was_finished_is_kept(author, processes, where):
    made = author(WORK)
    limited(made.ctx, "person/ada", currency="EUR", cost=2_000_000)
    began = time.monotonic()
    with pytest.raises(OverBudget, match=r"person/ada .* EUR 2\.\d+ of 2\.0"):
        made.run("after", profiles=PRICED, executor=processes if where == "apart" else None)
    assert time.monotonic() - began < 20
    assert made.marks() == ["began"]
    with made.ctx.read() as tx:
        (flow,) = flows.recent(tx, made.ctx.project)
    state, steps = states(made.ctx, flow.id)
    assert (state, steps["value/quick"], steps["value/slow"]) == ("stopped", "done", "stopped")
    rows = {row.step: row for row in rows_of(made.ctx, flow.id)}
    chain.seal(made.ctx.catalog, made.ctx.clock)
    assert rows["value/slow"].state == "stopped"
    assert rows["value/slow"].cost < 8_000_000
    with made.ctx.read() as tx:
        told = [one.kind for one in facts.tail(tx, made.ctx.project, kinds=["budget.*"], limit=10)]
    assert sorted(told) == ["budget.reached", "budget.warned"], "each is told once"
    limited(made.ctx, "person/ada", currency="EUR", cost=60_000_000)
    with closing(ProcessExecutor()) as fresh:
        again = made.run("quick", profiles=PRICED, executor=fresh if where == "apart" else None)
    assert again.steps[0].reused


def test_each_without_its_own_budget_has_that_of_all(author):
    made = author(WORK)
    limited(made.ctx, "person/*", cpu_seconds=0.01)
    limited(made.ctx, "flow/*", gpu_seconds=1000.0)
    with pytest.raises(StepFailed):
        made.run("fails", profiles=Profiles())
    with pytest.raises(OverBudget, match=r"person/ada .* core-hours of 0\.0000"):
        made.run("quick", profiles=Profiles())
    limited(made.ctx, "person/ada", cpu_seconds=1000.0)
    with pytest.raises(StepFailed):
        made.run("fails", profiles=Profiles())
    with made.ctx.read() as tx:
        held = budgets.holding(tx, made.ctx.project, ["project", "person/ada", "person/bea", "flow/x"])
    assert [(one.scope, one.cpu_seconds) for one in held] == [
        ("person/ada", 1000.0),
        ("person/bea", 0.01),
        ("flow/x", None),
    ]


def test_runs_that_share_a_budget_go_over_it_by_no_more_than_what_ran(author, processes):
    made = author(
        WORK
        + """
ASSETS += [define(each, name=f"{run}{number:02}") for run in "ab" for number in range(20)
           for each in [lambda _number=number, _run=run: time.sleep(0.15) or _number]]
"""
    )
    limit = 2_000_000
    limited(made.ctx, "project", currency="EUR", cost=limit)
    ended = {}

    def go(run):
        try:
            made.run(*[f"{run}{number:02}" for number in range(20)], profiles=PRICED, title=run)
        except OverBudget as error:
            ended[run] = error

    threads = [threading.Thread(target=go, args=(run,)) for run in "ab"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    with made.ctx.read() as tx:
        spent = uses.spent(tx, made.ctx.project, "project", uses.month(made.ctx.wall()))["EUR"].cost
        listed = flows.recent(tx, made.ctx.project)
        rows = [row for flow in listed for row in uses.of_flow(tx, made.ctx.project, flow.id)]
        assert sum(row.cost for row in rows) == spent
    assert set(ended) == {"a", "b"}
    assert {flow.state for flow in listed} == {"stopped"}
    longest = sorted((row.cost for row in rows), reverse=True)[:2]
    assert limit <= spent <= limit + sum(longest), "one step of each ran when the last of it went"


def test_a_run_whose_driver_died_leaves_what_it_said(author):
    made = author(WORK)
    ctx = made.ctx
    made.run("quick", profiles=PRICED)
    with ctx.write() as tx:
        (flow,) = flows.recent(tx, ctx.project)
        said = uses.Spent(5_000_000, 3.0, 0.0)
        uses.open_up(tx, ctx.project, flow.id, actor="ada", currency="EUR", now=said, span=(ctx.wall(), ctx.wall()))
    month = uses.month(ctx.wall())
    with ctx.read() as tx:
        before = uses.spent(tx, ctx.project, "project", month)["EUR"]
        assert uses.spent(tx, ctx.project, "project", month, without=flow.id)["EUR"].cost == before.cost - 5_000_000
    with ctx.write() as tx:
        taken = flows.take_over(tx, ctx.project, flow, owner="me", now=ctx.wall())
    made.run("quick", profiles=PRICED, flow=taken)
    lost = [row for row in rows_of(ctx, flow.id) if row.state == "lost"]
    assert [(row.cost, row.cpu_seconds) for row in lost] == [(5_000_000, 3.0)]
    with ctx.read() as tx:
        assert uses.spent(tx, ctx.project, "project", month)["EUR"] == before


def test_a_cancelled_run_is_paid_to_its_end(author, processes):
    made = author(WORK)
    ctx = made.ctx

    def cancel():
        while "began" not in made.marks():
            time.sleep(0.05)
        with ctx.write() as tx:
            (flow,) = flows.recent(tx, ctx.project)
            flows.cancel(tx, ctx.project, flow.id, now=ctx.wall())

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Exception, match="cancelled"):
        made.run("slow", profiles=PRICED, executor=processes)
    thread.join()
    (row,) = rows_of(ctx)
    assert row.state == "cancelled"
    assert row.cost > 0


def test_money_of_a_budget_and_of_prices_is_one(author):
    made = author(WORK)
    limited(made.ctx, "project", currency="USD", cost=1_000_000)
    with pytest.raises(InvalidInput, match="value/quick is paid in EUR, and the budget of project is in USD"):
        made.run("quick", profiles=PRICED)
    with made.ctx.read() as tx:
        assert [flow.state for flow in flows.recent(tx, made.ctx.project)] == ["failed"]


def test_a_profile_needs_a_grant_and_the_default_none(author):
    text = WORK.replace("define(slow)", "replace(define(slow), compute='large')")
    made = author("from dataclasses import replace\n" + text)
    named = {"small": profile("small", default=True), "large": profile("large", cores=2, memory="2GB")}

    def by(*grants):
        actor = Actor.of("cyd", "contributor", grants=grants)
        return author("from dataclasses import replace\n" + text, ctx=replace(made.ctx, actor=actor))

    options = {"profiles": Profiles(named), "environment": "sandbox/cyd/x", "params": {"slow": {"seconds": 0.0}}}
    with pytest.raises(PermissionDenied, match="cyd may not use compute='large', which value/slow asks for") as no:
        by().run("slow", **options)
    assert "use compute='small', or an admin grants it: everloop access set-grants cyd" in no.value.hint
    assert "'compute.use compute/large'" in no.value.hint
    assert by().run("quick", profiles=Profiles(named), environment="sandbox/cyd/x").steps
    allowed = by("compute.use compute/large")
    with pytest.raises(InvalidInput, match="value/slow has a limit of memory"):
        allowed.run("slow", **options)
    with closing(ForkedExecutor()) as executor:
        assert allowed.run("slow", executor=executor, **options).steps
    with pytest.raises(PermissionDenied):
        allowed.run("slow", **{**options, "environment": "production"})


def test_what_a_step_may_use_is_no_use_before_it_begins():
    held = Resources(cores=64, memory=10**12)
    waiting = Meter(held)
    time.sleep(0.05)
    assert waiting.look() == Use()
    assert waiting.total(0.05).peak_memory == 0
    away = Meter(held, unseen=True)
    time.sleep(0.05)
    assert away.look().cpu_seconds >= 64 * 0.05, "on another machine nobody knows better until it tells"
    away.told = Use(0.01, 0.02, 5)
    assert away.total(9.0) == Use(0.01, 0.02, 5)

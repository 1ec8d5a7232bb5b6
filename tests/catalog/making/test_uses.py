"""Uses and their sums, on each database: written together, grouped, and held against budgets."""

import threading

import pytest

from everloop.catalog.making import budgets, uses
from everloop.catalog.making.budgets import Budget
from everloop.catalog.making.uses import Spent, UseRow
from everloop.core.clock import DAY, SECOND
from everloop.core.errors import NotFound

NOVEMBER = 1_793_491_200 * SECOND
"""2026-11-01."""


def row(step="value/a", actor="ada", at=NOVEMBER, cost=100, **more):
    fields = {"currency": "EUR", "seconds": 1.0, "cpu_seconds": 2.0, "peak_memory": 10, "written": 5, **more}
    return UseRow(step, actor, at - SECOND, at, cost=cost, **fields)


def put(ctx, *rows):
    with ctx.write() as tx:
        return uses.record(tx, ctx.project, rows)


def told(ctx, *by, since=0, until=NOVEMBER + 365 * DAY, only=None):
    with ctx.read() as tx:
        found = uses.totals(tx, ctx.project, by, since=since, until=until, only=only)
    return [(one.keys, one.currency, one.cost, one.count) for one in found]


def test_sums_are_of_what_was_written_and_say_what_they_were_before(each_context):
    ctx = each_context
    first = put(ctx, row(flow="f1"), row(cost=50, flow="f1"))
    assert first[("project", "2026-11", "EUR")] == (Spent(), Spent(150, 4.0, 0.0))
    second = put(ctx, row(cost=7, actor="bea", gpu_seconds=3.0), row(cost=0, currency="", actor=""))
    assert second[("project", "2026-11", "EUR")] == (Spent(150, 4.0, 0.0), Spent(157, 6.0, 3.0))
    assert second[("person/bea", "2026-11", "EUR")] == (Spent(), Spent(7, 2.0, 3.0))
    with ctx.read() as tx:
        assert uses.spent(tx, ctx.project, "flow/f1", "") == {"EUR": Spent(150, 4.0, 0.0)}
        assert uses.spent(tx, ctx.project, "person/ada", "2026-11") == {"EUR": Spent(150, 4.0, 0.0)}
        assert set(uses.spent(tx, ctx.project, "project", "2026-11")) == {"EUR", ""}
        assert uses.spent(tx, ctx.project, "project", "2026-10") == {}
        assert uses.spent(tx, "another", "project", "2026-11") == {}
        assert uses.named(tx, ctx.project, "person/", "2026-11", limit=9) == ["person/ada", "person/bea"]


def test_a_month_ends_at_midnight_in_utc(each_context):
    put(each_context, row(at=NOVEMBER - 1), row(at=NOVEMBER, cost=3))
    assert told(each_context, "month") == [(("2026-10",), "EUR", 100, 1), (("2026-11",), "EUR", 3, 1)]
    assert told(each_context, "month", since=NOVEMBER) == [(("2026-11",), "EUR", 3, 1)]
    days = told(each_context, "day")
    assert [int(keys[0]) for keys, *_ in days] == [NOVEMBER - DAY, NOVEMBER]


def test_groups_hold_what_belongs_to_them(each_context):
    ctx = each_context
    put(
        ctx,
        row("model/delay", output="b3:1", run="r1", profile="large", cost=9),
        row("model/delay", output="", state="failed", cost=1),
        row("data/x", cost=5, environment="sandbox/ada/x"),
        row("delay", "", kind="endpoint", cost=4),
    )
    assert told(ctx, "model") == [(("model/delay",), "EUR", 10, 2)]
    assert told(ctx, "version") == [(("b3:1",), "EUR", 9, 1)]
    assert told(ctx, "endpoint") == [(("delay",), "EUR", 4, 1)]
    assert told(ctx, "step") == [(("model/delay",), "EUR", 10, 2), (("data/x",), "EUR", 5, 1)]
    assert told(ctx, "run") == [(("r1",), "EUR", 9, 1)]
    assert told(ctx, "person", "state") == [(("ada", "done"), "EUR", 14, 2), (("ada", "failed"), "EUR", 1, 1)]
    assert told(ctx, only={"step": "data/x"}) == [((), "EUR", 5, 1)]
    with ctx.read() as tx:
        (first,) = uses.totals(tx, ctx.project, (), since=0, until=NOVEMBER + DAY)
    assert (first.seconds, first.cpu_seconds, first.peak_memory, first.written) == (4.0, 8.0, 10, 20)


def test_what_runs_counts_until_it_is_taken_back(each_context):
    ctx = each_context
    put(ctx, row(flow="f1"))
    span = (NOVEMBER, NOVEMBER + SECOND)
    with ctx.write() as tx:
        for cost in (5, 30):
            uses.open_up(tx, ctx.project, "f2", actor="ada", currency="EUR", now=Spent(cost, 1.5, 0.5), span=span)
    with ctx.read() as tx:
        assert uses.spent(tx, ctx.project, "project", "2026-11")["EUR"] == Spent(130, 3.5, 0.5)
        assert uses.spent(tx, ctx.project, "person/ada", "2026-11")["EUR"].cost == 130
        assert uses.spent(tx, ctx.project, "person/bea", "2026-11") == {}
        assert uses.spent(tx, ctx.project, "flow/f2", "")["EUR"].cost == 30
        assert uses.spent(tx, ctx.project, "project", "2026-11", without="f2")["EUR"].cost == 100
        assert uses.spent(tx, ctx.project, "project", "2026-12") == {}
    with ctx.write() as tx:
        left = uses.close_up(tx, ctx.project, "f2")
        assert (left.state, left.cost, left.seconds) == ("lost", 30, 1.0)
        assert uses.close_up(tx, ctx.project, "f2") is None


def test_writers_beside_each_other_lose_no_sum(each_context):
    ctx = each_context
    threads = [
        threading.Thread(target=lambda: [put(ctx, row(cost=1), row(cost=1, actor="bea")) for _ in range(20)])
        for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    with ctx.read() as tx:
        assert uses.spent(tx, ctx.project, "project", "2026-11")["EUR"].cost == 160
        assert uses.spent(tx, ctx.project, "person/bea", "2026-11")["EUR"].cost == 80


def test_a_row_is_read_as_it_was_written(each_context):
    ctx = each_context
    whole = row(flow="f1", recipe="b3:r", price={"currency": "EUR", "hour": "3"}, attempt=2, gpu_seconds=0.5)
    put(ctx, whole)
    with ctx.read() as tx:
        assert uses.of_flow(tx, ctx.project, "f1") == [whole]
        assert uses.of_recipes(tx, ctx.project, [f"b3:{n}" for n in range(1200)] + ["b3:r"]) == [whole]
        assert uses.of_flow(tx, "another", "f1") == []


def test_budgets_are_set_found_and_taken_away(each_context):
    ctx = each_context
    with ctx.write() as tx:
        budgets.put(tx, ctx.project, Budget("person/*", cpu_seconds=5.0, actor="boss", at=1))
        budgets.put(tx, ctx.project, Budget("person/ada", "EUR", cost=9, actor="boss", at=1))
        budgets.put(tx, ctx.project, Budget("person/ada", "EUR", cost=10, warn=0.5, actor="boss", at=2))
    with ctx.read() as tx:
        assert [one.scope for one in budgets.every(tx, ctx.project)] == ["person/*", "person/ada"]
        ada, bea = budgets.holding(tx, ctx.project, ["project", "person/ada", "person/bea"])
        assert budgets.holding(tx, "another", ["person/ada"]) == []
    assert (ada.cost, ada.warn, ada.cpu_seconds) == (10, 0.5, None)
    assert (bea.scope, bea.cpu_seconds, bea.monthly) == ("person/bea", 5.0, True)
    with ctx.write() as tx:
        budgets.remove(tx, ctx.project, "person/ada")
    with pytest.raises(NotFound, match="no budget for person/ada"), ctx.write() as tx:
        budgets.remove(tx, ctx.project, "person/ada")

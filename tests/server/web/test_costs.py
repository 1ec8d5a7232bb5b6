"""The page of costs: what was paid by whom, budgets set by a form, and what a run shows of it."""

import importlib
import sys

import pytest

from everloop.catalog.making import uses
from everloop.flows.assets import plan
from everloop.flows.compute.profiles import Price, Profile, Profiles
from everloop.flows.engine import Options, Origin, run
from everloop.flows.executors.local import LocalExecutor
from everloop.server.web.views.explaining.costs import hours, money

PROJECT = """
import everloop as el

project = el.Project("shop")


@project.step()
def counted():
    return sum(range(100_000))


@project.step()
def doubled(counted):
    return counted * 2
"""


@pytest.fixture(scope="module")
def paid(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("cost_pages")
    (root / "cost_flow.py").write_text(PROJECT)
    sys.path.insert(0, str(root))
    try:
        assets = importlib.import_module("cost_flow").project.assets()
    finally:
        sys.path.remove(str(root))
    ctx = world.by("ada")
    profiles = Profiles({"small": Profile("small", price=Price("EUR", hour=9000), default=True)})
    made = run(
        ctx,
        plan(assets, ["doubled"]),
        origin=Origin(root, "cost_flow"),
        executor=LocalExecutor(assets, ctx.store),
        codecs={"value": "everloop.flows.value:codec"},
        options=Options(title="sums", environment="sandbox/ada/main", profiles=profiles),
    )
    with ctx.read() as tx:
        return made.flow, uses.of_flow(tx, ctx.project, made.flow)


def test_the_page_says_who_paid_how_much_for_what(http, paid):
    flow, rows = paid
    total = money(sum(row.cost for row in rows), "EUR")
    text = http("ada").get("/shop/costs").text
    for said in (total, "Dearest people", "ada", "value/doubled", "There are no budgets", "Compute"):
        assert said in text
    assert "<svg" in text
    text = http("ada").get("/shop/costs?by=flow&days=7").text
    assert f'href="/shop/flows/{flow}"' in text
    assert http("ada").get("/shop/costs?by=nothing").status_code == 400
    assert http("ada").get("/shop/costs?days=0").status_code == 200
    assert 'href="/shop/costs"' in http("ada").get("/shop/flows").text


def test_a_run_shows_what_each_step_cost(http, paid):
    flow, rows = paid
    text = http("ada").get(f"/shop/flows/{flow}").text
    for row in rows:
        assert money(row.cost, "EUR") in text
    assert "of cores" in text


def test_the_plan_of_a_bisection_says_what_it_may_cost(world, paid):
    _, rows = paid
    one = next(row for row in rows if row.step == "value/doubled")
    planned = world.ask("ada", "bisect.plan", good="value/doubled", bad="value/doubled", metric="mean", seeds=4)
    assert planned.costs == {"EUR": pytest.approx(one.cost / 1e6 * 4)}  # nothing differs: one mixture
    assert "about EUR" in planned.text


def test_a_budget_is_set_and_removed_by_a_form(http, paid, site):
    ada = http("ada", headers={"Origin": site})
    asked = {
        "scope": "person/ada",
        "money": "12.50",
        "currency": "eur",
        "core_hours": "3",
        "gpu_hours": "",
        "warn": "60",
    }
    done = ada.post("/shop/costs/set", data=asked, follow_redirects=True)
    assert done.status_code == 200
    for said in ("person/ada", "EUR 12.50, 3 core-hours", "60 %", "ok"):
        assert said in done.text
    refused = ada.post("/shop/costs/set", data=asked | {"money": "a lot"})
    assert refused.status_code == 400
    assert "is no amount of money" in refused.text
    assert "person/ada" in refused.text, "said on the page itself"
    assert ada.post("/shop/costs/set", data=asked | {"core_hours": "x"}).status_code == 400
    assert ada.post("/shop/costs/nothing").status_code == 404
    seen = http().get("/shop/costs")
    assert "person/ada" in seen.text
    assert "Set a budget" not in seen.text
    done = ada.post("/shop/costs/remove", data={"scope": "person/ada"}, follow_redirects=True)
    assert "There are no budgets" in done.text


def test_amounts_are_said_so_that_people_can_read_them():
    assert [money(*one) for one in ((0, "EUR"), (1_234_567_890, "EUR"), (1234, "EUR"), (5, ""))] == [
        "EUR 0.00",
        "EUR 1,234.57",
        "EUR 0.001234",
        "-",
    ]
    assert [hours(one) for one in (0.04, 90, 600, 36_000)] == ["0.0 s", "90.0 s", "10.0 min", "10.0 h"]

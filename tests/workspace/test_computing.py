"""Profiles and prices of production hold for every run; budgets and costs as operations."""

import sys
from types import SimpleNamespace

import pytest

from everloop.catalog import chain, facts, refs, versions
from everloop.catalog.context import Actor
from everloop.catalog.making import flows, uses
from everloop.catalog.operation import invoke, operations
from everloop.changes import environments
from everloop.core.errors import Conflict, DefinitionError, InvalidInput, NotFound, OverBudget, PermissionDenied
from everloop.core.settings import Settings
from everloop.core.snapshot import Snapshot
from everloop.core.version import Version
from everloop.flows.compute.profiles import Profiles, profile
from everloop.flows.engine import Origin
from everloop.project.loading import load_project
from everloop.serving.definitions import EndpointDef, Workers
from everloop.workspace.build import Request, build
from everloop.workspace.flows import resuming
from everloop.workspace.flows.computing import check_endpoints, profile_of_endpoint
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations
from everloop.workspace.work.executors import ByKind
from everloop.workspace.work.tasks import perform

PROJECT = """
import everloop as el

project = el.Project("shop")
project.compute("small", cores=1, default=True, price=el.Price("EUR", hour="{price}"))
project.compute("large", cores=2, price=el.Price("EUR", hour="{price}"))


@project.step()
def first(number: int = 0):
    return number


@project.step(compute="large", each=el.map("one", over="listed"))
def many(one):
    return one


@project.step()
def listed(first):
    return [first, first + 1]
"""
SANDBOX = "sandbox/ada/main"


@pytest.fixture
def shop(tmp_path):
    load_operations()
    (tmp_path / "code").mkdir()
    settings = Settings(home=tmp_path / "home", project="shop")
    initialise(settings, "ada", "solo", tmp_path)
    with Workspace.open(settings) as workspace:

        def person(name, *roles, grants=()):
            return workspace.system().as_actor(Actor.of(name, *roles, grants=grants))

        def ask(who, name, /, **fields):
            operation = operations()[name]
            return invoke(who, operation, operation.command(**fields))

        def make(ctx, *targets, price="3600", number=0):
            root = tmp_path / "code"
            (root / "priced.py").write_text(PROJECT.replace("{price}", price))
            project = load_project_again(root)
            executor = ByKind(project.assets(), workspace.store)
            wanted = Request(SANDBOX, targets, params={"first": {"number": number}})
            try:
                return build(ctx, project, Origin(root, "priced", "shop"), wanted, executor=executor)
            finally:
                executor.close()

        ada = person("ada", "admin", "contributor", "approver", "deployer")
        yield SimpleNamespace(workspace=workspace, person=person, ask=ask, make=make, ada=ada)


def load_project_again(root):
    sys.modules.pop("priced", None)
    return load_project(root, "priced")


def uses_of(shop, made):
    with shop.workspace.catalog.read() as tx:
        return uses.of_flow(tx, "shop", made.results.flow)


def test_the_price_that_production_holds_is_paid_whatever_the_code_says(shop):
    first = shop.make(shop.ada, "first")
    (row,) = uses_of(shop, first)
    assert (row.profile, row.price["hour"]) == ("small", "3600"), "production knows no profile yet: the code's"
    number = shop.ask(shop.ada, "changes.propose", source=SANDBOX, target="production", title="profiles").number
    shop.ask(shop.ada, "changes.approve", number=number)
    shop.ask(shop.ada, "changes.merge", number=number)
    listed = shop.ask(shop.person("eve", "viewer"), "compute.list").profiles
    assert [(one.name, one.default, one.may_use, one.costs) for one in listed] == [
        ("large", False, False, "EUR 3600 an hour"),
        ("small", True, True, "EUR 3600 an hour"),
    ]
    cheaper = shop.make(shop.ada, "first", price="0", number=1)
    (row,) = uses_of(shop, cheaper)
    assert row.price["hour"] == "3600"
    assert row.cost > 0
    shop.make(shop.ada, "first", price="7200")
    assert shop.ask(shop.ada, "compute.show", name="large", environment=SANDBOX).price["hour"] == "7200"
    assert shop.ask(shop.ada, "compute.show", name="large").price["hour"] == "3600"
    with pytest.raises(NotFound, match="holds no compute profile 'larg'") as lost:
        shop.ask(shop.ada, "compute.show", name="larg")
    assert lost.value.hint == "did you mean large?"


def test_who_may_use_a_profile_is_granted_by_an_admin(shop):
    shop.ask(shop.ada, "access.create_user", name="cyd", roles=("contributor",))
    cyd = shop.person("cyd", "contributor")
    shop.ask(shop.ada, "environments.create_sandbox", environment="sandbox/cyd/x", base="production")
    with pytest.raises(PermissionDenied, match="cyd may not use compute='large'"):
        shop.make(cyd, "many")
    with pytest.raises(InvalidInput, match="given by roles only"):
        shop.ask(shop.ada, "access.set_grants", name="cyd", grants=("change.approve */*@production",))
    with pytest.raises(PermissionDenied, match="nobody changes their own access"):
        shop.ask(shop.ada, "access.set_grants", name="ada", grants=())
    seen = shop.ask(shop.ada, "access.set_grants", name="cyd", grants=("compute.use compute/la*",))
    assert seen.grants == ("compute.use compute/la*",)
    made = shop.make(shop.person("cyd", "contributor", grants=seen.grants), "many")
    rows = [row for row in uses_of(shop, made) if row.step.startswith("value/many")]
    assert [(row.step, row.profile) for row in rows] == [("value/many[0]", "large"), ("value/many[1]", "large")]
    shown = shop.ask(shop.ada, "flows.show", flow=made.results.flow)
    steps = {one.step: one for one in shown.steps}
    assert steps["value/many"].profile == "large"
    assert steps["value/many"].used[0].count == 2
    assert shown.used[0].cost == sum(row.cost for row in uses_of(shop, made))


def test_who_builds_an_endpoint_may_use_the_profile_of_its_workers(shop):
    profiles = Profiles({one.name: one for one in (profile("small", default=True), profile("large", cores=2))})
    cyd = shop.person("cyd", "contributor")

    def asked(who, **workers):
        endpoint = EndpointDef("delay", "model", workers=Workers(**workers))
        check_endpoints(who, [EndpointDef("other", "model"), endpoint], profiles, SANDBOX)

    with pytest.raises(PermissionDenied, match="cyd may not use compute='large', which endpoint/delay asks for"):
        asked(cyd, compute="large")
    asked(cyd, compute="small")
    granted = shop.person("cyd", "contributor", grants=("compute.use compute/la*",))
    asked(granted, compute="large", cores=1.5)
    with pytest.raises(DefinitionError, match="endpoint/delay asks for more than compute='large' gives: cores 4 of 2"):
        asked(granted, compute="large", cores=4)
    with pytest.raises(InvalidInput, match="compute='medium', which nothing defines"):
        asked(granted, compute="medium")


def test_workers_are_paid_by_the_profile_that_they_name_or_by_the_default(shop):
    ctx = shop.ada
    shop.make(ctx, "first")
    defined = (EndpointDef("delay", "model", workers=Workers(compute="large")), EndpointDef("other", "model"))
    made = [Version("endpoint", one.name, one.manifest()) for one in defined]
    with ctx.write() as tx:
        entries = environments.view(tx, "shop", SANDBOX).entries
        snapshot = Snapshot({**entries, **{one.key: one.id for one in made}}).version()
        versions.put_many(tx, "shop", [*made, snapshot], actor="ada", at=ctx.now())
        place = refs.env_ref("production")
        refs.move(tx, "shop", place, old=refs.get(tx, "shop", place), new=snapshot.id, actor="ada", at=ctx.now())
    paid = {name: profile_of_endpoint(ctx, name) for name in ("delay", "other", "gone")}
    assert {name: one.name for name, one in paid.items()} == {"delay": "large", "other": "small", "gone": "small"}


def test_costs_are_told_by_everything_that_they_can_be_grouped_by(shop):
    made = shop.make(shop.ada, "many")
    rows = uses_of(shop, made)
    total = sum(row.cost for row in rows)
    for by in ("person", "flow", "step", "profile", "environment", "month", "day", "state"):
        found = shop.ask(shop.ada, "costs.report", by=(by,))
        assert sum(one.cost for one in found.rows) == total, by
        assert [one.currency for one in found.total] == ["EUR"]
    found = shop.ask(shop.ada, "costs.report", by=("person", "step"), person="ada")
    assert {one.keys for one in found.rows} == {("ada", row.step.partition("[")[0]) for row in rows}
    for by in ("model", "version", "endpoint", "run"):
        assert shop.ask(shop.ada, "costs.report", by=(by,)).rows == ()
    assert shop.ask(shop.ada, "costs.report", until=1).rows == ()
    took = shop.ask(shop.ada, "costs.version", version="value/listed")
    own = {row.step: row.cost for row in rows}
    assert took.own[0].cost == own["value/listed"]
    assert took.lineage[0].cost == own["value/listed"] + own["value/first"]


def test_a_budget_is_an_operation_and_a_stopped_run_is_resumed(shop):
    ada, eve = shop.ada, shop.person("eve", "contributor")
    with pytest.raises(PermissionDenied):
        shop.ask(eve, "budgets.set", scope="project", money="1", currency="EUR")
    for wrong in (
        {"scope": "team/x", "core_hours": 1},
        {"scope": "project"},
        {"scope": "project", "money": "much", "currency": "EUR"},
        {"scope": "project", "money": "1", "currency": "euro"},
    ):
        with pytest.raises(InvalidInput) as refused:
            shop.ask(ada, "budgets.set", **wrong)
        assert refused.value.hint
    shop.ask(ada, "budgets.set", scope="project", money="0.000001", currency="EUR", warn=0.5)
    shop.ask(ada, "budgets.set", scope="person/*", core_hours=100)
    with pytest.raises(OverBudget) as over:
        shop.make(ada, "listed")
    assert "everloop budget set project" in over.value.hint
    (project, person) = shop.ask(eve, "budgets.list").budgets
    assert (project.cost, project.holds[0].state) == (1, "spent")
    assert [(one.scope, one.state) for one in person.holds] == [("person/ada", "ok")]
    with shop.workspace.catalog.read() as tx:
        (flow,) = flows.recent(tx, "shop", states=["stopped"])
    with pytest.raises(OverBudget):
        resuming.resume(ada, flow.id)
    shop.ask(ada, "budgets.set", scope="project", money="12.5", currency="EUR")
    with shop.workspace.catalog.read() as tx:
        token = flows.get(tx, "shop", flow.id).token
    shop.ask(ada, "flows.resume", flow=flow.id)
    assert perform(ada, "flow.go_on", {"flow": flow.id, "again": token - 1}, "")["state"] == "stopped", "of before"
    assert perform(ada, "flow.go_on", {"flow": flow.id, "again": token}, "")["parked"] == []
    assert shop.ask(ada, "flows.show", flow=flow.id).flow.state == "done"
    with pytest.raises(Conflict, match="is done"):
        shop.ask(ada, "flows.resume", flow=flow.id)
    shop.ask(ada, "budgets.remove", scope="person/*")
    with pytest.raises(NotFound):
        shop.ask(ada, "budgets.remove", scope="person/*")
    told = [(one["operation"], one["target"]) for one in audit_of(shop)]
    assert told.count(("budgets.set", "budget/project")) == 2
    assert ("budgets.remove", "budget/person/*") in told


def audit_of(shop):
    chain.seal(shop.workspace.catalog, shop.workspace.clock)
    with shop.workspace.catalog.read() as tx:
        found = facts.tail(tx, "shop", kinds=["audit.allowed"], limit=500)
    return [dict(one.payload) for one in found]


def test_nobody_raises_their_own_budget_where_another_admin_can(shop):
    shop.ask(shop.ada, "budgets.set", scope="person/ada", core_hours=1)
    shop.ask(shop.ada, "access.create_user", name="bea", roles=("admin",))
    with pytest.raises(PermissionDenied, match="nobody sets their own budget") as refused:
        shop.ask(shop.ada, "budgets.set", scope="person/ada", core_hours=2)
    assert "bea" in refused.value.hint
    with pytest.raises(PermissionDenied):
        shop.ask(shop.ada, "budgets.remove", scope="person/ada")
    shop.ask(shop.person("bea", "admin"), "budgets.set", scope="person/ada", core_hours=2)

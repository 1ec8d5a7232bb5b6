"""A project with steps of its own: parked by an approval, gone on with by a worker's task, refused, resumed."""

import json

import pytest

from everloop.catalog import tasks, versions
from everloop.catalog.context import Actor
from everloop.catalog.making import flows
from everloop.catalog.operation import invoke
from everloop.core.errors import Conflict, DefinitionError
from everloop.core.settings import Settings
from everloop.flows.engine import Origin
from everloop.flows.running.operations import Decide, ListFlows, OfFlow, cancel_flow, decide, list_flows
from everloop.flows.value import codec
from everloop.project.loading import load_project
from everloop.workspace.build import Request, build
from everloop.workspace.flows import resuming
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations
from everloop.workspace.work.executors import ByKind
from everloop.workspace.work.tasks import perform

PROJECT = """
import everloop as el

project = el.Project("shop")


@project.step()
def parts(count: int = 3):
    return list(range(count))


@project.step(each=el.map("part", over="parts"))
def doubled(part):
    return part * 2


@project.step(limits=el.limits(memory="2GB", timeout="2m"), retry=el.Retry(1))
def total(doubled):
    import os
    return [sum(doubled), os.getpid()]


project.approval("agreed", of="total", within="2h")


@project.step()
def shipped(total, agreed):
    return total[0] if agreed else None
"""
SANDBOX = "sandbox/ada/main"


@pytest.fixture
def shop(tmp_path):
    load_operations()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "shop_steps.py").write_text(PROJECT)
    settings = Settings(home=tmp_path / "home", project="shop")
    initialise(settings, "ada", "team", tmp_path)
    with Workspace.open(settings) as opened:
        yield opened, tmp_path / "code"


def built(shop, ctx):
    workspace, root = shop
    project = load_project(root, "shop_steps")
    executor = ByKind(project.assets(), workspace.store)
    try:
        request = Request(SANDBOX, ("shipped",), base="production")
        return build(ctx, project, Origin(root, "shop_steps", "shop"), request, executor=executor)
    finally:
        executor.close()


def person(workspace, name, *roles):
    return workspace.system().as_actor(Actor.of(name, *roles))


def test_a_build_waits_for_an_approval_and_a_task_goes_on_with_it(shop):
    workspace, _ = shop
    ada = person(workspace, "ada", "contributor")
    first = built(shop, ada)
    assert (first.results.parked, first.snapshot) == (("value/agreed",), "")
    identity = first.results.flow
    kinds = ["flow.go_on"]
    with workspace.catalog.read() as tx:
        (reminder,) = tasks.list(tx, "shop", kinds=kinds)
    assert reminder.not_before > workspace.clock.wall()
    bea = person(workspace, "bea", "approver")
    invoke(bea, decide, Decide(flow=identity, step="agreed", approved=True))
    with workspace.catalog.read() as tx:
        queued = tasks.list(tx, "shop", kinds=kinds)
    assert {json.dumps(dict(one.payload)) for one in queued} == {json.dumps({"flow": identity})}
    told = perform(ada, "flow.go_on", {"flow": identity}, "")
    assert told["parked"] == []
    with workspace.catalog.read() as tx:
        flow = flows.get(tx, "shop", identity)
        rows = {row.step: row for row in flows.steps_of(tx, "shop", identity)}
        manifest = versions.get(tx, "shop", rows["value/shipped"].output).manifest
    assert (flow.state, flow.token) == ("done", 2)
    assert codec.load(manifest, workspace.store, {}) == 6
    assert {rows[f"value/doubled[{n}]"].state for n in range(3)} == {"reused"}
    assert perform(ada, "flow.go_on", {"flow": identity}, "") == {"flow": identity, "state": "done"}


def test_a_parked_run_can_be_cancelled_and_not_gone_on_with(shop):
    workspace, _ = shop
    ada = person(workspace, "ada", "contributor")
    identity = built(shop, ada).results.flow
    invoke(ada, cancel_flow, OfFlow(flow=identity))
    (row,) = invoke(ada, list_flows, ListFlows()).flows
    assert row.state == "cancelled"
    assert row.counts["cancelled"] == 2
    with pytest.raises(Conflict):
        resuming.resume(ada, identity)
    with pytest.raises(Conflict):
        invoke(person(workspace, "bea", "approver"), decide, Decide(flow=identity, step="agreed", approved=True))


def test_wrong_steps_are_refused_with_their_place(tmp_path):
    cases = {
        'project.approval("agreed", of="total", within="soon")': "is no amount",
        '@project.step(limits=el.limits(memory="much"))\ndef other(): ...': "is no amount",
        "@project.step()\ndef total(): ...": "is taken by step/total",
        "project.run_with(total, retry=el.Retry(1))": "is no definition",
        '@project.step(only_if="nothing")\ndef other(): ...\nproject.assets()': "needs 'nothing'",
    }
    for number, (text, message) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / f"wrong_{number}.py").write_text(
            PROJECT.replace('project.approval("agreed", of="total", within="2h")', text)
        )
        with pytest.raises(DefinitionError, match=message) as caught:
            load_project(folder, f"wrong_{number}").assets()
        assert f"wrong_{number}.py:" in caught.value.message

"""The pages of a run of a flow: its list, its graph and times, what a step printed, and deciding in place."""

import importlib
import sys

import pytest

from everloop.catalog import tasks
from everloop.flows.assets import plan
from everloop.flows.engine import Options, Origin, run
from everloop.flows.executors.local import LocalExecutor
from everloop.server.web.views.explaining.flows import WIDTH, gantt, seconds
from everloop.workspace.runs import TrackedRuns

PROJECT = """
import everloop as el

project = el.Project("shop")


@project.step()
def parts():
    return [1, 2, 3, 4]


@project.step(each=el.map("part", over="parts", tolerate=0.5))
def halved(part):
    if part == 3:
        raise ValueError("three is odd")
    return part / 2


@project.step()
def big(halved):
    print("<b>is it big?</b>")
    return len(halved) > 10


@project.step(only_if="big")
def careful(halved):
    return 0


project.approval("agreed", of=["halved"], within="2h")


@project.step()
def published(agreed, halved):
    return True
"""


@pytest.fixture(scope="module")
def flow(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("flow_pages")
    (root / "pages_flow.py").write_text(PROJECT)
    sys.path.insert(0, str(root))
    try:
        assets = importlib.import_module("pages_flow").project.assets()
    finally:
        sys.path.remove(str(root))
    ctx = world.by("ada")
    options = Options(title="halves and <i>more</i>", environment="sandbox/ada/main", request={"module": "pages_flow"})
    made = run(
        ctx,
        plan(assets, ["published", "careful"]),
        origin=Origin(root, "pages_flow"),
        executor=LocalExecutor(assets, ctx.store),
        codecs={"value": "everloop.flows.value:codec"},
        runs=TrackedRuns(ctx),
        options=options,
    )
    return made.flow


def test_the_list_and_the_run_say_what_happened(http, flow):
    text = http("ada").get("/shop/flows").text
    for said in ("halves and &lt;i&gt;more&lt;/i&gt;", "parked", "sandbox/ada/main"):
        assert said in text
    text = http("ada").get(f"/shop/flows/{flow}").text
    for said in (
        "4 items, 0 of them reused, 1 failed",
        "value/halved[2]",
        "three is odd",
        "value/big is not true",
        "waits for approver",
        'class="dag"',
        "The run holds no worker meanwhile",
    ):
        assert said in text
    assert "<i>more" not in text
    assert http("ada").get("/shop/flows/flow-nothing").status_code == 404


def test_a_step_says_what_it_printed(http, flow):
    text = http("ada").get(f"/shop/flows/{flow}/steps/value/big").text
    assert "&lt;b&gt;is it big?&lt;/b&gt;" in text
    assert "three is odd" in http("ada").get(f"/shop/flows/{flow}/steps/value/halved[2]").text
    assert http("ada").get(f"/shop/flows/{flow}/steps/value/none").status_code == 404


def test_somebody_else_approves_by_the_form_of_the_page_without_a_script(http, world, tmp_path_factory, site):
    root = tmp_path_factory.mktemp("approved")
    (root / "approved_flow.py").write_text(PROJECT)
    sys.path.insert(0, str(root))
    try:
        assets = importlib.import_module("approved_flow").project.assets()
    finally:
        sys.path.remove(str(root))
    ctx = world.by("ada")
    made = run(
        ctx,
        plan(assets, ["published"]),
        origin=Origin(root, "approved_flow"),
        executor=LocalExecutor(assets, ctx.store),
        codecs={"value": "everloop.flows.value:codec"},
        options=Options(title="to agree", environment="sandbox/ada/main", request={"module": "approved_flow"}),
    )
    bob = http("bob", headers={"Origin": site})
    page = bob.get(f"/shop/flows/{made.flow}").text
    assert f'action="/shop/flows/{made.flow}/approve"' in page
    done = bob.post(
        f"/shop/flows/{made.flow}/approve", data={"step": "value/agreed", "comment": "well"}, follow_redirects=True
    )
    assert done.status_code == 200
    assert "<button>Approve</button>" not in done.text
    steps = {one.step: one for one in world.ask("ada", "flows.show", flow=made.flow).steps}
    said = steps["value/agreed"].decision
    assert (said["approved"], said["by"], said["comment"]) == (True, "bob", "well")
    assert bob.post(f"/shop/flows/{made.flow}/refuse", data={"step": "value/agreed"}).status_code == 409
    with ctx.read() as tx:
        assert {"flow": made.flow} in [dict(one.payload) for one in tasks.list(tx, "shop", kinds=["flow.go_on"])]


def test_who_started_a_run_cannot_approve_it_and_cancels_it(http, world, flow, site):
    ada = http("ada", headers={"Origin": site})
    refused = ada.post(f"/shop/flows/{flow}/approve", data={"step": "value/agreed"})
    assert refused.status_code == 403
    assert world.ask("ada", "flows.show", flow=flow).flow.state == "parked"
    assert ada.post(f"/shop/flows/{flow}/nothing").status_code == 404
    done = ada.post(f"/shop/flows/{flow}/cancel", follow_redirects=True)
    assert done.status_code == 200
    assert "Cancel the run" not in done.text
    assert world.ask("ada", "flows.show", flow=flow).flow.state == "cancelled"


def test_bars_lie_within_the_drawing(world, flow):
    found = world.ask("ada", "flows.show", flow=flow)
    spans = gantt(found, world.workspace.clock.wall())
    assert {span.step for span in spans} >= {"value/parts", "value/halved[2]", "value/big"}
    assert all(span.x > 0 and span.x + span.width <= WIDTH for span in spans)
    assert [seconds(amount) for amount in (0.0123, 3.21, 600)] == ["12 ms", "3.2 s", "10.0 min"]


def test_a_run_says_why_each_step_was_not_reused(http, world, tmp_path_factory):
    root = tmp_path_factory.mktemp("again")
    ctx, made = world.by("ada"), []
    for text in (PROJECT, PROJECT.replace("[1, 2, 3, 4]", "[1, 2, 4, 4] * 3")):
        (root / "again_flow.py").write_text(
            text.replace('Project("shop")', 'Project("other")').replace("parts", "bits")
        )
        sys.modules.pop("again_flow", None)
        importlib.invalidate_caches()
        sys.path.insert(0, str(root))
        try:
            assets = importlib.import_module("again_flow").project.assets()
        finally:
            sys.path.remove(str(root))
        done = run(
            ctx,
            plan(assets, ["halved"]),
            origin=Origin(root, "again_flow"),
            executor=LocalExecutor(assets, ctx.store),
            codecs={"value": "everloop.flows.value:codec"},
            options=Options(environment="sandbox/ada/main", request={"module": "again_flow"}),
        )
        made.append(done.flow)
    first, second = (http("ada").get(f"/shop/flows/{flow}").text for flow in made)
    assert "first execution" in first
    assert "code again_flow:bits changed" in second
    steps = [one.step for one in world.ask("ada", "flows.show", flow=made[1]).steps]
    assert steps == ["value/bits", "value/halved", *(f"value/halved[{number}]" for number in range(12))]
    assert all(not one.reason for one in world.ask("ada", "flows.show", flow=made[1]).steps)  # only when asked
    spent = [one.keys[0] for one in world.ask("ada", "costs.report", by=("step",), days=30, limit=500).rows]
    assert "value/halved" in spent  # items are their step's
    assert not [key for key in spent if "[" in key]

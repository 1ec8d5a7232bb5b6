"""A run over HTTP while it goes: its stream of steps and lines, its end by REST, and going on with it."""

import importlib
import json
import sys
import threading
import time

import pytest

from everloop.catalog import tasks
from everloop.core.errors import Cancelled, StepFailed
from everloop.flows.assets import plan
from everloop.flows.engine import Options, Origin, run
from everloop.flows.executors.local import LocalExecutor
from everloop.workspace.runs import TrackedRuns

PROJECT = """
import time
from pathlib import Path

import everloop as el

project = el.Project("shop")
GO = Path(__file__).parent / "go"


@project.step()
def told(lines: int = 3):
    for number in range(lines):
        print(f"line {number} of <told>", flush=True)
    end = time.monotonic() + 60
    while not GO.exists() and time.monotonic() < end:
        time.sleep(0.02)
    print("last", flush=True)
    return lines


@project.step()
def after(told, fails: bool = False):
    if fails:
        raise ValueError("no")
    return told
"""


class Running:
    """A run in a thread of its own, as a driver elsewhere would be."""

    def __init__(self, world, root, **options):
        (root / "go").unlink(missing_ok=True)
        self.error, self._known = None, set()
        ctx = self.ctx = world.by("ada")
        assets = importlib.import_module("followed_flow").project.assets()
        before = {one.id for one in world.ask("ada", "flows.list").flows}

        def go():
            try:
                run(
                    ctx,
                    plan(assets, ["after"]),
                    origin=Origin(root, "followed_flow"),
                    executor=LocalExecutor(assets, ctx.store),
                    codecs={"value": "everloop.flows.value:codec"},
                    runs=TrackedRuns(ctx),
                    options=Options(cached=False, environment="sandbox/ada/main", **options),
                )
            except (Cancelled, StepFailed) as error:
                self.error = error

        self.thread = threading.Thread(target=go)
        self.thread.start()
        until = time.monotonic() + 20
        fresh = []
        while not fresh and time.monotonic() < until:
            fresh = [one.id for one in world.ask("ada", "flows.list").flows if one.id not in before]
            time.sleep(0.02)
        (self.flow,) = fresh

    def end(self, root):
        (root / "go").touch()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("followed")
    (made / "followed_flow.py").write_text(PROJECT)
    sys.path.insert(0, str(made))
    yield made
    sys.path.remove(str(made))


def events(lines):
    """(id, event, data) of a stream."""
    found = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            found[name] = value
        elif "event" in found:
            yield found.get("id", ""), found["event"], json.loads(found["data"]) if found.get("data") else None
            found = {}


def test_a_stream_tells_states_and_lines_as_they_come(http, world, root):
    going = Running(world, root, title="told")
    heard, had = [], ""
    try:
        with http("ada").stream("GET", f"/shop/flows/{going.flow}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for identity, kind, data in events(answer.iter_lines()):
                heard.append((kind, data))
                had = identity or had
                if kind == "line" and data["text"] == "line 2 of <told>":
                    assert ("value/told", "running") in {(one["step"], one["state"]) for k, one in heard if k == "step"}
                    (root / "go").touch()
                if kind == "over":
                    break
    finally:
        going.end(root)
    lines = [data["text"] for kind, data in heard if kind == "line"]
    assert lines == ["line 0 of <told>", "line 1 of <told>", "line 2 of <told>", "last"]
    assert {(one["step"], one["state"]) for kind, one in heard if kind == "step"} >= {
        ("value/told", "done"),
        ("value/after", "done"),
    }
    assert [one["state"] for kind, one in heard if kind == "flow"][-1] == "done"
    with http("ada", headers={"Last-Event-ID": had}).stream("GET", f"/shop/flows/{going.flow}/events") as answer:
        again = list(events(answer.iter_lines()))
    assert [kind for _, kind, _ in again if kind == "line"] == []
    assert again[-1][1] == "over"


def test_what_is_asked_wrongly_is_refused_before_the_stream(http, world, root):
    assert http("ada").get("/shop/flows/flow-nothing/events").status_code == 404
    flow = world.ask("ada", "flows.list").flows[0].id
    refused = http("ada", headers={"Last-Event-ID": "nonsense"}).get(f"/shop/flows/{flow}/events")
    assert refused.status_code == 400


def test_rest_ends_a_run_and_the_stream_says_so(http, world, root, site):
    going = Running(world, root, title="cancelled")
    ada = http("ada", headers={"Origin": site})
    try:
        with ada.stream("GET", f"/shop/flows/{going.flow}/events") as answer:
            states = []
            for _, kind, data in events(answer.iter_lines()):
                if kind == "line" and data["text"].startswith("line 2"):
                    done = http("ada", headers={"Origin": site}).post(
                        "/rest/v1/shop/flows.cancel", json={"flow": going.flow}
                    )
                    assert done.status_code == 200, done.text
                states += [data["state"]] if kind == "flow" else []
                if kind == "over":
                    break
    finally:
        going.end(root)
    assert isinstance(going.error, Cancelled)
    assert states[-1] == "cancelled"
    again = ada.post("/rest/v1/shop/flows.cancel", json={"flow": going.flow})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert ada.post("/rest/v1/shop/flows.resume", json={"flow": going.flow}).status_code == 409


def test_rest_has_a_worker_go_on_with_what_failed(http, world, root, site):
    fails = {"after": {"fails": True}}
    going = Running(world, root, title="failed", params=fails, request={"module": "followed_flow"})
    going.end(root)
    assert isinstance(going.error, StepFailed)
    ada = http("ada", headers={"Origin": site})
    assert "Go on with the run" in ada.get(f"/shop/flows/{going.flow}").text
    done = ada.post("/rest/v1/shop/flows.resume", json={"flow": going.flow})
    assert done.status_code == 200, done.text
    with going.ctx.read() as tx:
        queued = tasks.list(tx, "shop", kinds=["flow.go_on"])
    assert {"flow": going.flow, "again": 1} in [dict(one.payload) for one in queued]
    pressed = ada.post(f"/shop/flows/{going.flow}/resume", follow_redirects=True)
    assert pressed.status_code == 200

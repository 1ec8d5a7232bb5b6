"""Steps on a real Ray of two nodes on this machine, with its own token; a node that is killed costs only its steps."""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from everloop.catalog import versions
from everloop.catalog.making import flows
from everloop.catalog.tables.core import steps as step_rows
from everloop.catalog.tracking import experiments, querying
from everloop.core.errors import InvalidInput, StepFailed
from everloop.core.settings import forget_ray_token, use_ray_token
from everloop.flows.identity import project_tree
from everloop.flows.value import codec

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402 - only where Ray is installed
from ray_host import Host  # noqa: E402
from shop_house import PROJECT_FILE, Shop  # noqa: E402

from everloop.flows.executors.on_ray import RayExecutor  # noqa: E402

DRIVER = str(Path(__file__).with_name("ray_driver.py"))

STEPS = """
import time
import numpy

MARKS = Path("MARKS_HERE")

from everloop.core.ports import Resources
from everloop.flows import control
from everloop.flows.search.definitions import floats, search


def parts(count: int = 8):
    return list(range(count))


def worked(part, wait: float = 0.0):
    mark(str(part))
    time.sleep(wait)
    return [part, float(numpy.random.rand()), os.environ["PYTHONHASHSEED"]]


def total(worked):
    return [one[0] for one in worked]


def tuned(x=0.0):
    return {"loss": (x - 1) ** 2}


def raises():
    raise ValueError("the label has one class only")


def slow():
    time.sleep(60)


def needs_two():
    return os.environ["OMP_NUM_THREADS"]


ASSETS = [define(parts), define(worked, each=control.map("part", over="parts")), define(total), define(raises),
          define(tuned, search=search({"x": floats(-3.0, 3.0)}, minimize="loss", trials=8, seed=2)),
          define(slow, resources=Resources(seconds=2.0)), define(needs_two, resources=Resources(cores=2))]
"""


def value(project, identity):
    with project.ctx.read() as tx:
        return codec.load(versions.get(tx, project.ctx.project, identity).manifest, project.ctx.store, {})


def test_a_cluster_is_named_and_has_a_token(context):
    for address, token in (("", "x"), ("auto", "x"), ("local", "x"), ("127.0.0.1:1", "")):
        with pytest.raises(InvalidInput):
            RayExecutor(address, token, files={}, blobs=context.store)


@pytest.fixture
def cluster(monkeypatch):
    token = secrets.token_hex(32)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # put back in the end
    use_ray_token(token)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 10**8})
    try:
        yield nodes, token
    finally:
        ray.shutdown()
        nodes.shutdown()
        monkeypatch.undo()
        forget_ray_token()


@pytest.mark.slow
def test_a_flow_runs_on_two_nodes_and_survives_the_loss_of_one(cluster, author, processes, tmp_path):
    nodes, token = cluster
    second = nodes.add_node(num_cpus=2, object_store_memory=10**8)
    nodes.wait_for_nodes()
    project = author(STEPS.replace("MARKS_HERE", str(tmp_path / "marks")))  # nodes have the code elsewhere
    tree = project_tree(project.root, project.ctx.store, "flow")
    files = tree.version.manifest["files"]
    executor = RayExecutor(nodes.address, token, files=files, blobs=project.ctx.store)
    done = project.run("total", "needs_two", executor=executor, workers=4)
    assert value(project, done.outputs["value/total"]) == list(range(8))
    assert value(project, done.outputs["value/needs_two"]) == "2"
    here = project.run("total", executor=processes, cached=False)
    assert here.outputs == {key: one for key, one in done.outputs.items() if key != "value/needs_two"}
    searched = project.run("tuned", executor=executor, workers=4)
    assert searched.outputs == project.run("tuned", executor=processes, cached=False).outputs
    with pytest.raises(StepFailed, match="one class only"):
        project.run("raises", executor=executor)
    with pytest.raises(StepFailed, match="took longer than 2 s"):
        project.run("slow", executor=executor)

    def kill():
        while len(project.marks()) < 20:
            time.sleep(0.05)
        nodes.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    params = {"parts": {"count": 8}, "worked": {"wait": 1.5}}
    after = project.run("total", executor=executor, workers=4, params=params)
    killer.join()
    assert value(project, after.outputs["value/total"]) == list(range(8))
    executor.close()
    assert os.environ["RAY_AUTH_TOKEN"] == token


def items_done(ctx):
    """How many items of the one run are recorded as done."""
    with ctx.read() as tx:
        rows = [row for flow in flows.recent(tx, ctx.project) for row in flows.steps_of(tx, ctx.project, flow.id)]
    return sum(row.state == "done" and "[" in row.step for row in rows)


@pytest.mark.slow
def test_a_run_whose_head_died_fails_soon_and_goes_on_when_it_is_back(author, tmp_path):
    project = author(STEPS.replace("MARKS_HERE", str(tmp_path / "marks")))
    ctx = project.ctx
    asked = {"root": str(project.root), "store": ctx.store.url, "catalog": ctx.catalog.url, "project": ctx.project}
    asked |= {"home": str(ctx.home), "title": "one", "targets": ["total"], "params": {"worked": {"wait": 1.0}}}

    def drive(host):
        said = json.dumps(asked | {"address": host.address, "token": host.token})
        return subprocess.Popen([sys.executable, DRIVER, said], stdout=subprocess.PIPE, text=True)

    host = Host(secrets.token_hex(32), nodes=0)
    try:
        driver = drive(host)
        until = time.monotonic() + 120
        while items_done(ctx) < 2 and driver.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        host.kill(0)
        said = driver.communicate(timeout=120)[0]
    finally:
        host.kill()
    assert driver.returncode == 1
    assert "head of the cluster" in said
    assert "resume" in said
    with ctx.read() as tx:
        (flow,) = flows.recent(tx, ctx.project)
    assert flow.state == "failed"  # it could say so: Ray would have ended the process after a minute
    host = Host(secrets.token_hex(32), nodes=0)
    try:
        again = drive(host)
        again.communicate(timeout=120)
    finally:
        host.kill()
    assert again.returncode == 0
    with ctx.read() as tx:
        (flow,) = flows.recent(tx, ctx.project)
        rows = {row.step: row for row in flows.steps_of(tx, ctx.project, flow.id)}
        query = select(func.count()).where(step_rows.c.status == "done", step_rows.c.cached.is_(False))
        twice = tx.execute(query.group_by(step_rows.c.recipe)).scalars().all()
    assert (flow.state, flow.token) == ("done", 2)
    assert value(project, rows["value/total"].output) == list(range(8))
    assert set(twice) == {1}
    assert "reused" in {row.state for row in rows.values() if "[" in row.step}


@pytest.mark.slow
def test_the_command_line_runs_a_project_on_two_nodes(cluster, tmp_path):
    nodes, token = cluster
    nodes.add_node(num_cpus=2, object_store_memory=10**8)
    nodes.wait_for_nodes()
    shop = Shop(tmp_path / "shop", policy="solo")
    there = shop.cli("--json", "run", "--ray", nodes.address, check=True, timeout=300, RAY_AUTH_TOKEN=token)
    made = {step["step"]: (step["version"], step["reused"]) for step in json.loads(there.stdout)["steps"]}
    assert any(step.startswith("model/") for step in made)
    assert not any(reused for _, reused in made.values())
    here = shop.cli("--json", "run", "--again", check=True)  # on this machine, all of it
    assert {step["step"]: step["version"] for step in json.loads(here.stdout)["steps"]} == {
        step: version for step, (version, _) in made.items()
    }
    refused = shop.cli("run", "--ray", nodes.address, RAY_AUTH_TOKEN="")
    assert (refused.returncode, "needs its token" in refused.stderr) == (2, True)
    shop.close()


LOGS = """    mlflow.log_metric("rows", frame.height)
    import os
    import psutil
    parents = " ".join(str(one.pid) for one in psutil.Process().parents())
    mlflow.log_params({"parents": parents, "server": os.environ["MLFLOW_TRACKING_URI"]})
    try:
        mlflow.MlflowClient().create_experiment("not mine")
    except mlflow.exceptions.MlflowException as error:
        mlflow.set_tag("refused", error.error_code)
"""


@pytest.mark.slow
def test_what_a_step_logs_on_another_node_is_in_its_own_run_and_nowhere_else(cluster, tmp_path):
    nodes, token = cluster
    second = nodes.add_node(num_cpus=4, object_store_memory=10**8)
    nodes.wait_for_nodes()
    text = PROJECT_FILE.read_text().replace('    mlflow.log_metric("rows", frame.height)\n', LOGS)
    text += "\n\nproject.compute('wide', cores=3)\nproject.run_with(comeback, compute='wide')\n"  # the head has two
    shop = Shop(tmp_path / "shop", policy="solo", text=text)
    try:
        shop.up()
        variables = {"RAY_AUTH_TOKEN": token, "EVERLOOP_FLOWS_TRACKING": shop.url, "EVERLOOP_FLOWS_RAY": nodes.address}
        shop.cli("--json", "run", check=True, timeout=300, **variables)
        ctx = shop.workspace.system()
        with ctx.read() as tx:
            held = experiments.by_name(tx, ctx.project, "comeback")
            (run,) = querying.search(tx, ctx.project, {held.id: held.name}, limit=5).rows
            made = versions.find(tx, ctx.project, "model/comeback")
            assert "not mine" not in set(experiments.names(tx, ctx.project).values())
        assert str(second.all_processes["raylet"][0].process.pid) in run.params["parents"].split()
        assert run.params["server"] == shop.url
        assert (run.tags["mlflow.user"], run.tags["refused"]) == ("ada", "PERMISSION_DENIED")
        assert {one.key for one in run.metrics} >= {"rows", "roc_auc"}
        assert made.number == 1
    finally:
        shop.close()

"""`everloop up` as people meet it: it heals, it stops, it says what is wrong; its worker loses nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import psutil
import pytest
from shop_house import Shop, processes_of, wait_for

from everloop.server.supervisor import Child, supervise


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Processes over a workspace without a model."""
    made = Shop(tmp_path_factory.mktemp("up") / "shop", policy="solo", days=1)
    yield made.up()
    made.close()


def healthy(shop):
    try:
        return httpx2.get(f"{shop.url}/health", timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


def kill(shop, name):
    """Kill a process outright; returns its id once another one has its place."""
    old = shop.pids[name]
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: shop.pids.get(name, old) != old, 20, f"another {name}")
    return old


@pytest.mark.parametrize("name", ["server", "gateway", "worker-0"])
def test_who_is_killed_is_started_again(shop, name):
    others = {n: p for n, p in shop.pids.items() if n != name}
    kill(shop, name)
    wait_for(lambda: healthy(shop), 30, "it answers again")
    assert {n: p for n, p in shop.pids.items() if n != name} == others
    assert shop.person("ada").call("access.whoami").name == "ada"


def test_a_request_waits_for_a_server_that_restarts(shop):
    client = shop.person("ada")
    old = shop.pids["server"]
    os.kill(old, signal.SIGKILL)
    # the supervisor has seen it end: a process that is still dying may take a connection and drop it
    wait_for(lambda: shop.pids.get("server", old) != old, 5, "it is replaced")
    assert client.call("access.whoami").name == "ada"


def test_a_task_that_fails_says_why(shop):
    task = shop.task("flow.retrain", {"model": "nothing", "environment": "sandbox/auto/1", "reason": "a test"})
    assert (task.state, task.attempt) == ("failed", 1)
    assert "production holds no trainer of nothing" in json.loads(task.error)["detail"]


def test_a_task_with_a_payload_that_makes_no_sense_says_so(shop):
    task = shop.task("flow.retrain", {})
    assert (task.state, task.attempt) == ("failed", 1)
    assert json.loads(task.error)["detail"]
    assert "Traceback" not in task.error


def test_a_task_outlives_its_worker_and_is_done_once(shop):
    client = shop.person("ada")
    for warm in psutil.Process(shop.pids["worker-0"]).children():
        warm.kill()  # so that the task takes the second that imports take
    made = client.call("tasks.enqueue", kind="watch.tick", payload={"environment": "production"})
    wait_for(lambda: client.call("tasks.show", task=made.id).state == "running", 20, "somebody works on it")
    kill(shop, "worker-0")

    def ended():
        view = client.call("tasks.show", task=made.id)
        return view if view.state in ("done", "failed") else None

    done = wait_for(ended, 25, "somebody else did it")
    assert (done.state, done.attempt) == ("done", 2)
    told = [
        f
        for f in client.call("audit.facts", kind="audit.*", limit=200).facts
        if f.payload.get("operation") == "watch.tick"
    ]
    assert len(told) <= 1


def test_a_taken_port_is_one_clear_error(shop):
    port = shop.url.rpartition(":")[2]
    done = shop.cli("up", "--port", port)
    assert done.returncode == 6
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert healthy(shop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly(tmp_path, number):
    shop = Shop(tmp_path / "shop", policy="solo", days=0).up()
    try:
        assert set(shop.pids) == {"supervisor", "gateway", "server", "worker-0"}
        mine = processes_of(shop.home)
        assert set(shop.pids.values()) <= set(mine)
        shop.running.send_signal(number)
        assert shop.running.wait(20) == 0
        assert [pid for pid in mine if pid in processes_of(shop.home)] == []
        assert not (shop.home / "run" / "pids").exists()
        assert "Traceback" not in shop.folder.with_suffix(".log").read_text()
        port = int(shop.url.rpartition(":")[2])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    finally:
        shop.close()


def test_nobody_is_left_when_the_supervisor_is_killed(tmp_path):
    shop = Shop(tmp_path / "shop", policy="solo", days=0).up()
    try:
        mine = processes_of(shop.home)
        shop.running.kill()
        shop.running.wait(10)
        wait_for(lambda: not [p for p in mine if p in processes_of(shop.home)], 20, "all are gone")
    finally:
        shop.running = None
        shop.close()


def test_a_child_that_keeps_dying_is_started_ever_less_often(tmp_path):
    child = Child("brief", [sys.executable, "-c", "raise SystemExit(3)"], os.environ, tmp_path / "log")
    said, began = [], time.monotonic()

    def enough():
        if len(said) >= 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert supervise([child], said.append, enough, lambda: None) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert time.monotonic() - began > 0.6  # 0.2 and 0.4 s between the three
    assert all("ended with status 3" in line for line in said)
    assert child.process is None or child.process.poll() is not None


def test_up_without_a_workspace_makes_one_and_says_so(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    shop = Shop.__new__(Shop)
    shop.folder, shop.host, shop.elsewhere = folder, "127.0.0.1", {}
    done = subprocess.run(
        [sys.executable, "-m", "everloop", "up", "--port", "1"],
        cwd=folder,
        env=shop.environ(EVERLOOP_HOST="192.0.2.1"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 6
    assert "made a workspace" in done.stdout
    assert "every request needs a token" in done.stdout
    assert "cannot listen on 192.0.2.1:1" in done.stderr

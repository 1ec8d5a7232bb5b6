"""Live feed: events pushed over HTTP at 20,000 a second through `everloop up`, read into versions, each exactly once.

Real processes on this machine: gateway, server, worker, and the feed's reader. Every tenth batch is sent twice, and the
reader is killed (SIGKILL) in the middle. What counts: events a second that were acknowledged and are in versions, the
longest time from an event's arrival to its version, events missing or doubled, CPU seconds of all our processes.

    python benchmarks/data_streams.py [--quick]
"""

import argparse
import gzip
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
from figure import figure, finish

from everloop import data
from everloop.catalog import refs, versions
from everloop.catalog.governance import access
from everloop.core.clock import DAY
from everloop.core.grants import Grant
from everloop.core.settings import load
from everloop.data.definitions import SourceDef
from everloop.data.streams.origins import Push
from everloop.workspace.opened import Workspace

RATE, DELAY = 20_000, 5.0
PACE = 23_000
"""Events a second that are sent: more than the goal, so that what is measured is not the sender's clock."""
BATCH, SENDERS = 1_000, 2
COLUMNS = {"id": "string", "user": "int64", "at": "timestamp[us,UTC]", "amount": "float64", "page": "string"}


@contextmanager
def running(folder: Path) -> Iterator[tuple[Workspace, str, int]]:
    """`everloop up` with a feed: its workspace, address, process id."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("EVERLOOP_")} | {"LOGNAME": "ada"}
    everloop = [sys.executable, "-m", "everloop"]
    subprocess.run([*everloop, "init"], cwd=folder, env=environ, check=True, capture_output=True)
    workspace = Workspace.open(load({"home": folder / ".everloop"}, {}))
    source = SourceDef("clicks", Push(COLUMNS, id="id", every="1s"), key="user", event_time="at")
    ctx = workspace.system()
    with ctx.write() as tx:
        versions.put(tx, ctx.project, source.version(), actor="ada", at=ctx.now())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "up.log").open("wb") as log:
        up = subprocess.Popen([*everloop, "up", "--port", str(port)], cwd=folder, env=environ, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                if httpx2.get(f"{url}/health", timeout=1).status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.1)
        yield workspace, url, up.pid
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(30)
        workspace.close()


def body(first: int) -> bytes:
    """A batch of events, as a sender packs it."""
    events = (
        f'{{"id":"e{n}","user":{n % 9973},"at":"2026-03-01T12:00:00Z","amount":{n / 8},"page":"/p/{n % 50}"}}'
        for n in range(first, first + BATCH)
    )
    return gzip.compress("\n".join(events).encode(), 1)


def send(place: tuple[str, str], numbers: range, bodies: list[bytes], begin: float, again: list[int]) -> None:
    """Send batches at their times, every tenth of them twice; again after a refusal."""
    url, secret = place
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
        for number in numbers:
            time.sleep(max(0.0, begin + number * BATCH / PACE - time.monotonic()))
            for _ in range(2 if number % 10 == 0 else 1):
                while True:
                    key = {"Idempotency-Key": f"b{number}"}
                    answer = client.post("/feeds/default/clicks", content=bodies[number], headers=key)
                    if answer.status_code == 202:
                        break
                    again.append(answer.status_code)
                    time.sleep(0.2)


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def cpu(pid: int) -> float:
    """CPU seconds of a process and all below it, those that ended among them."""
    total = 0.0
    for process in tree(pid):
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def kill_reader(pid: int) -> bool:
    """SIGKILL the process that reads the feed."""
    for process in tree(pid):
        if process.status() != psutil.STATUS_ZOMBIE and "everloop.server.feeds.reader" in process.cmdline():
            process.kill()
            return True
    return False


def fed(workspace: Workspace) -> tuple[int, list[str]]:
    """Rows of the head, and their ids."""
    ctx = workspace.system()
    with ctx.read() as tx:
        head = refs.get(tx, ctx.project, refs.head_ref("production", "clicks"))
    ids = [] if head is None else data.read(ctx, head).select("id").collect()["id"].to_list()
    return len(ids), ids


def watch(workspace: Workspace, stop: threading.Event, seen: dict[int, int]) -> None:
    """Note every commit of the feed."""
    ctx = workspace.system()
    while not stop.is_set():
        with ctx.read() as tx:
            head = refs.get(tx, ctx.project, refs.head_ref("production", "clicks"))
            rows = 0 if head is None else int(versions.get(tx, ctx.project, head).manifest["rows"])
        seen.setdefault(rows, time.monotonic_ns())
        stop.wait(0.1)


def figures(quick: bool, peers: Path | None = None) -> Iterator[dict[str, Any]]:  # noqa: ARG001 - as its neighbours
    """One run: 10 seconds of events, or 40."""
    seconds = 10 if quick else 40
    batches = seconds * PACE // BATCH
    bodies = [body(number * BATCH) for number in range(batches)]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as (workspace, url, pid):
        ctx = workspace.system()
        with ctx.write() as tx:
            issued = access.issue_token(
                tx,
                "ada",
                label="bench",
                grants=[Grant.parse("feed.push data/clicks@production")],
                project="",
                at=ctx.wall(),
                expires=ctx.wall() + DAY,
            )
        place = (url, issued[1])
        seen: dict[int, int] = {}
        stop = threading.Event()
        again: list[int] = []
        watcher = threading.Thread(target=watch, args=(workspace, stop, seen))
        watcher.start()
        send(place, range(1), bodies, time.monotonic(), again)  # the reader starts with the first batch
        while fed(workspace)[0] < BATCH:
            time.sleep(0.1)
        spent, begin = cpu(pid), time.monotonic()
        senders = [
            threading.Thread(target=send, args=(place, range(1 + i, batches, SENDERS), bodies, begin, again))
            for i in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        time.sleep(seconds / 2)
        killed = kill_reader(pid)
        for sender in senders:
            sender.join()
        sent = time.monotonic() - begin
        while fed(workspace)[0] < batches * BATCH and time.monotonic() - begin < 6 * seconds + 60:
            time.sleep(0.2)
        whole, spent = time.monotonic() - begin, cpu(pid) - spent
        stop.set()
        watcher.join()
        count, ids = fed(workspace)
        delays = delay_of(seen, begin, batches * BATCH)
    events, late = (batches - 1) * BATCH, max(delays)
    wrong = abs(batches * BATCH - count) + count - len(set(ids))
    each = spent / (events / RATE)
    yield figure("live feed: acknowledged", "events a second", events / sent, limit=RATE, more_is_better=True)
    yield figure("live feed: in versions, till all are", "events a second", events / whole)
    yield figure("live feed: sent to readable, longest, the kill included", "seconds", late, limit=DELAY)
    yield figure("live feed: sent to readable, median", "seconds", sorted(delays)[len(delays) // 2], limit=DELAY)
    yield figure("live feed: missing or doubled", "events", wrong if killed else 1, limit=0)
    yield figure("live feed: CPU of all processes for 20,000 events", "CPU seconds", each, limit=2)
    yield figure("live feed: sent again after a refusal", "batches", len(again))


def delay_of(seen: dict[int, int], begin: float, total: int) -> list[float]:
    """How late each batch was readable after its time of sending, where the schedule was kept."""
    commits = sorted((rows, at / 1e9) for rows, at in seen.items())
    found = []
    for number in range(1, total // BATCH):
        readable = next((at for rows, at in commits if rows >= (number + 1) * BATCH), None)
        found.append(float("inf") if readable is None else readable - (begin + number * BATCH / PACE))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="10 seconds in place of 40")
    finish(figures(arguments.parse_args().quick))


if __name__ == "__main__":
    main()

"""A gateway under full load while everything goes wrong around it; one JSON object a line (see `figure`).

    python benchmarks/serving_chaos.py [--quick]

Load comes from `wrk` (16 connections, one thread), and from a closed loop where answers are told apart. Each part
counts failed requests, which must be none, and compares the 99th percentile with that of a quiet run just before, on
the same endpoint. The gateway is a real process; tables are signed and swapped as the controller does, and the bad
canary is turned back by the controller itself, from a change that was merged. The client and the gateway share the
machine, and workers start beside them: run it when nothing else does.
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import uvloop
from chaos_canary import revert_seconds
from chaos_features import looked_up
from figure import Record, figure, tell
from serving import listening

from everloop.core.signing import SigningKey
from everloop.serving import table as tables
from everloop.serving.rollout.entries import weighted
from everloop.serving.table import Revision, Route, Table

COLUMNS = [["x", "FP64"]]
BODY = b'{"x": 1.0}'
CONNECTIONS = 16
LONGEST = 600.0
"""Seconds that a load runs at most, should nobody end it."""
SCRIPT = """
wrk.method = "POST"
wrk.body = '%s'
wrk.headers["content-type"] = "application/json"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%d\\n", summary.requests, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(99)))
end
"""


@dataclass
class Load:
    """What one run of load came to."""

    requests: int = 0
    failed: int = 0
    p99: float = 0.0
    """Milliseconds."""


@dataclass
class House:
    """One gateway in a folder of its own."""

    home: Path
    key: SigningKey = field(default_factory=SigningKey.generate)
    sequence: int = 0
    made: int = 0
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    loads: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the key known."""
        (self.home / "keys").mkdir()
        (self.home / "keys" / "verify.pem").write_bytes(self.key.public.to_pem())

    def start(self, *options: str) -> None:
        """Start the gateway."""
        bound = listening()
        self.port = bound.getsockname()[1]
        words = [sys.executable, "-m", "everloop.serving.gateway", "--home", str(self.home), *options]
        self.process = subprocess.Popen(
            [*words, "--fd", str(bound.fileno())],
            pass_fds=(bound.fileno(),),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )

    def revision(self, kind: str = "good", weight: int = 100, **more: Any) -> Revision:
        """A new revision of a model that behaves so."""
        self.made += 1
        folder = self.home / f"model{self.made}"
        folder.mkdir()
        (folder / "chaos.json").write_text(json.dumps({"kind": kind, "value": float(self.made)}))
        identity = f"b3:{self.made:064x}"
        fields = {"inputs": COLUMNS, "caller": COLUMNS, "example": {"x": [0.0]}, **more}
        return Revision(
            id=identity,
            number=self.made,
            weight=weight,
            model=identity,
            folder=str(folder),
            loader="chaos_models:load",
            **fields,
        )

    def serve(self, *revisions: Revision, others: tuple[Route, ...] = (), **more: Any) -> None:
        """Make these the revisions of the endpoint, and wait until the gateway has adopted them."""
        self.sequence += 1
        route = Route("chaos", "m", list(revisions), **more)
        tables.write(
            self.home / "serving" / "routes.json", Table(self.sequence, "production", [route, *others]), self.key
        )
        self.until(lambda said: said["sequence"] == self.sequence)

    def told(self) -> dict[str, Any]:
        """The gateway's counters."""
        try:
            said: dict[str, Any] = json.loads((self.home / "serving" / "stats" / "g0.json").read_bytes())
        except FileNotFoundError:
            return {"sequence": -1, "endpoints": {}}
        return said

    def until(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> dict[str, Any]:
        """Wait for counters that satisfy a condition."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition(said := self.told()):
                return said
            time.sleep(0.02)
        raise AssertionError(f"never so: {json.dumps(self.told())[:2000]}")

    def of(self, revision: Revision) -> dict[str, Any]:
        """What is counted of a revision."""
        its: dict[str, Any] = self.told()["endpoints"].get("chaos.m", {}).get(revision.id, {})
        return its

    def warm(self, *revisions: Revision) -> None:
        """Wait until their workers answer."""
        self.until(lambda _: all(self.of(one).get("state") == "ready" for one in revisions))

    def stop(self) -> None:
        """End the gateway, and whoever asks it still."""
        for load in self.loads:
            load.kill()
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


class Wrk:
    """`wrk` at work until `end`; of as many seconds as it was given."""

    def __init__(self, house: House, seconds: float, name: str = "m") -> None:
        script = house.home / "load.lua"
        script.write_text(SCRIPT % BODY.decode())
        url = f"http://127.0.0.1:{house.port}/endpoints/chaos/{name}/predict"
        words = [
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{max(int(seconds), 1)}s",
            "--timeout",
            "20s",
            "-s",
            str(script),
            url,
        ]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        house.loads.append(self.process)

    @property
    def running(self) -> bool:
        """Whether it asks still."""
        return self.process.poll() is None

    def end(self) -> Load:
        """Stop asking; what came of it."""
        self.process.send_signal(signal.SIGINT)
        output = self.process.communicate(timeout=60)[0]
        line = next(line for line in output.splitlines() if line.startswith("RESULT"))
        requests, failed, p99 = (int(text) for text in line.split()[1:])
        return Load(requests, failed, p99 / 1e3)


class Loop:
    """A closed loop of our own, which knows the answers that were stood in for."""

    def __init__(self, house: House, seconds: float, name: str = "m", body: bytes = BODY) -> None:
        self.house, self.seconds, self.path, self.body = house, seconds, f"/endpoints/chaos/{name}/predict", body
        self.plain: list[float] = []
        self.stood_in: list[float] = []
        self.failed = 0

    def run(self) -> Load:
        """Ask; answers that were stood in for are left out of the percentile."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self.all())
        ordered = sorted(self.plain)
        p99 = ordered[int(len(ordered) * 0.99)] * 1e3 if ordered else 0.0
        return Load(len(self.plain) + len(self.stood_in), self.failed, p99)

    async def all(self) -> None:
        """Ask from every connection."""
        until = time.perf_counter() + self.seconds
        await asyncio.gather(*(self._one(until) for _ in range(CONNECTIONS)))

    async def _one(self, until: float) -> None:
        head = f"POST {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        request = f"{head}content-length: {len(self.body)}\r\n\r\n".encode() + self.body
        reader, writer = await asyncio.open_connection("127.0.0.1", self.house.port)
        while time.perf_counter() < until:
            began = time.perf_counter()
            writer.write(request)
            try:
                answered = await reader.readuntil(b"\r\n\r\n")
                length = int(answered.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError):
                self.failed += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", self.house.port)
                continue
            took = time.perf_counter() - began
            if not answered.startswith(b"HTTP/1.1 200"):
                self.failed += 1
            (self.stood_in if b"everloop-fallback" in answered.lower() else self.plain).append(took)
        writer.close()


def quiet(house: House, seconds: float) -> Load:
    """The endpoint as it is, with nothing going wrong."""
    Wrk(house, 1).process.wait()
    load = Wrk(house, seconds)
    load.process.wait()
    return load.end()


def told(name: str, load: Load, before: Load, *, times: float | None = 2.0) -> Iterator[Record]:
    """Failed requests, and the percentile against the quiet one."""
    yield figure(f"{name}: failed requests", "requests", load.failed, limit=0.0, requests=load.requests)
    ratio = load.p99 / before.p99 if before.p99 else 0.0
    yield figure(f"{name}: p99 against the quiet one", "times", ratio, limit=times, ms=load.p99, quiet_ms=before.p99)


def changes(house: House, count: int, seconds: float) -> Iterator[Record]:
    """Upgrades, canary steps and roll-backs, one after the other."""
    old, new = house.revision(), house.revision()
    house.serve(old)
    before, load, done, rolled = quiet(house, seconds), Wrk(house, LONGEST), 0, 0
    while done < count:
        for weight in (10, 50, 100):
            house.serve(weighted(new, weight), weighted(old, 100 - weight))
        done += 3
        if done % 2:  # back at once, and try the next
            house.serve(weighted(old, 100), weighted(new, 0))
            done, rolled = done + 1, rolled + 1
        else:
            old = new
        new = house.revision()
    yield from told(f"{done} upgrades, steps and roll-backs", load.end(), before)
    house.serve(old)


def kills(house: House, count: int, seconds: float) -> Iterator[Record]:
    """The worker of the revision that answers is killed again and again; the revision before is warm."""
    old, new = house.revision(weight=0), house.revision()
    house.serve(new, old)
    house.warm(new, old)
    before, load = quiet(house, seconds), Wrk(house, LONGEST)
    killed: set[int] = set()
    for _ in range(count):
        house.until(lambda _: house.of(new)["state"] == "ready" and house.of(new)["pid"] not in killed)
        killed.add(pid := house.of(new)["pid"])
        os.kill(pid, signal.SIGKILL)
    yield from told(f"{count} kills of workers", load.end(), before)


def hanging(house: House, seconds: float) -> Iterator[Record]:
    """A canary of 10 % hangs for ever; what is not routed to it must not notice."""
    old, new = house.revision(), house.revision("hangs", 10)
    house.serve(old)
    before = Loop(house, seconds).run()
    house.serve(new, weighted(old, 90), deadline_micros=2_000_000)
    loop = Loop(house, seconds * 3)
    yield from told("a model that hangs", loop.run(), before)
    worst = max(loop.stood_in, default=0.0)
    yield figure("a model that hangs: longest of those routed to it", "s", worst, limit=2.0, of=len(loop.stood_in))


def eating(house: House, seconds: float, megabytes: int) -> Iterator[Record]:
    """A canary of half the traffic eats memory; the gateway's bound holds, and nobody is failed."""
    old, new = house.revision(), house.revision("eats", 50)
    house.serve(old)
    before = Loop(house, seconds).run()
    house.serve(new, weighted(old, 50))
    most, loop = 0.0, Loop(house, seconds * 3)
    assert house.process is not None
    watched = psutil.Process(house.process.pid)

    async def watch() -> None:
        nonlocal most
        while True:
            for child in watched.children():
                try:
                    most = max(most, child.memory_info().rss / 2**20)
                except psutil.Error:
                    continue
            await asyncio.sleep(0.1)

    async def both() -> None:
        task = asyncio.create_task(watch())
        await loop.all()
        task.cancel()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both())
    ordered = sorted(loop.plain)
    load = Load(len(ordered) + len(loop.stood_in), loop.failed, ordered[int(len(ordered) * 0.99)] * 1e3)
    yield from told("a model that eats memory", load, before)
    yield figure("a model that eats memory: its largest worker", "MiB", most, bound=megabytes)


def full_disk(house: House, seconds: float) -> Iterator[Record]:
    """The log cannot be written any more, and the endpoint serves unlogged."""
    one = house.revision()
    house.serve(one, full_disk="unlogged")
    before = quiet(house, seconds)
    assert house.process is not None
    largest = max((p.stat().st_size for p in (house.home / "serving" / "log").rglob("*.seg")), default=0)
    limits = resource.prlimit(house.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(house.process.pid, resource.RLIMIT_FSIZE, (max(largest, 1 << 16) + 4096, limits[1]))
    load = quiet(house, seconds)
    house.until(lambda _: house.of(one)["unlogged"] > 0)
    unlogged = float(house.of(one)["unlogged"])
    resource.prlimit(house.process.pid, resource.RLIMIT_FSIZE, limits)
    yield from told("a full log disk, served unlogged", load, before)
    yield figure("a full log disk: answers without an id", "answers", unlogged, limit=1.0, more_is_better=True)


def figures(*, quick: bool) -> Iterator[Record]:
    """Everything, each in a house of its own."""
    seconds = 2.0 if quick else 8.0
    megabytes = 400
    parts: list[tuple[Callable[[House], Iterator[Record]], tuple[str, ...]]] = [
        (lambda house: changes(house, 12 if quick else 100, seconds), ()),
        (lambda house: kills(house, 5 if quick else 50, seconds), ()),
        (lambda house: hanging(house, seconds), ()),
        (lambda house: eating(house, seconds, megabytes), ("--memory", str(megabytes))),
        (lambda house: full_disk(house, seconds), ()),
        (lambda house: slow_store(house, seconds), ()),
    ]
    for part, options in parts:
        with tempfile.TemporaryDirectory() as folder:
            house = House(Path(folder))
            house.start(*options)
            try:
                yield from part(house)
            finally:
                house.stop()
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        house.start()
        try:
            yield from bad_canary(house)
        finally:
            house.stop()


def slow_store(house: House, seconds: float) -> Iterator[Record]:
    """One endpoint looks up in a store that takes 30 ms an answer, and then is silent; another looks up nothing."""
    with looked_up(house.home, house.revision) as (route, slow, silent):
        plain = house.revision()
        house.serve(plain, others=(route,))
        before = quiet(house, seconds)
        for name, act in (("slow", slow), ("silent", silent)):
            act()
            load, beside = Wrk(house, LONGEST), Loop(house, seconds, "looked", b'{"key": "a", "x": 1.0}')
            theirs = beside.run()
            yield from told(f"a {name} feature store, beside it", load.end(), before)
            yield figure(f"a {name} feature store: its own failed requests", "requests", theirs.failed, limit=0.0)


def bad_canary(house: House) -> Iterator[Record]:
    """From the third failed request of a broken canary until callers meet the old revision alone."""

    def ask() -> tuple[bool, str]:
        url = f"http://127.0.0.1:{house.port}/endpoints/chaos/m/predict"
        answer = httpx2.post(url, content=BODY, headers={"content-type": "application/json"}, timeout=30)
        assert answer.status_code == 200, answer.text
        return "everloop-fallback" in answer.headers, answer.headers["everloop-revision"]

    took, failed = revert_seconds(house.home, house.key, ask)
    yield figure("a bad canary goes back after its evidence", "s", took, limit=5.0, failed_over=failed)


def main() -> int:
    """Run; exit 1 when a target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="12 changes, 5 kills, two seconds a part")
    quick = parser.parse_args().quick
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed (apt install wrk)")
    return 0 if tell(figures(quick=quick)) else 1


if __name__ == "__main__":
    sys.exit(main())

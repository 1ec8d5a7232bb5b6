"""The gateway against a bare uvicorn application that runs the same model; one JSON object a line.

    python benchmarks/serving.py [--quick]

Model: HistGradientBoostingClassifier, 100 trees, 20 features, one row a request. Ours goes through the gateway, the
feature-less route, a model worker and the prediction log; the peer parses JSON and calls `predict_proba` in the one
process that answers. Both listen on a pre-bound socket, use uvloop and httptools, and one thread. Answers are compared
first. The load generator is a closed loop over keep-alive connections in this process; it takes CPU from both alike,
so CPU per request is the steadiest figure.
"""

import argparse
import asyncio
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
import psutil
import uvloop
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from everloop.core.signing import SigningKey
from everloop.serving import table as tables
from everloop.serving.table import Revision, Route, Table

FEATURES = [f"f{n}" for n in range(20)]
IDENTITY = f"b3:{1:064x}"
PEER = """
import pickle, socket, sys
import numpy as np, orjson, uvicorn
model = pickle.load(open(sys.argv[2], "rb"))
async def app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    values = orjson.loads(body)
    row = np.array([values[f"f{n}"] for n in range(20)], np.float64).reshape(1, 20)
    answer = orjson.dumps({"predictions": model.predict_proba(row)[:, 1].tolist()})
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})
config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", lifespan="off", log_level="error",
                        access_log=False)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


@dataclass
class Cell:
    """What one closed loop measured."""

    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0
    wall: float = 0.0

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        return float(np.quantile(self.seconds, share)) * 1e3

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.seconds) / self.wall

    @property
    def cpu_each(self) -> float:
        """CPU milliseconds of all server processes per request."""
        return self.cpu / len(self.seconds) * 1e3


class Connection(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it is answered."""

    def __init__(self, request: bytes, cell: Cell, until: float) -> None:
        self.request, self.cell, self.until = request, cell, until
        self.rest, self.started = b"", 0.0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Ask for the first time."""
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Ask once."""
        self.started = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer."""
        self.rest += data
        head, found, body = self.rest.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        assert head.startswith(b"HTTP/1.1 200"), self.rest
        now = time.perf_counter()
        self.cell.seconds.append(now - self.started)
        self.rest = b""
        if now < self.until:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Say that it ended."""
        self.ended.set_result(None)


async def closed_loop(port: int, request: bytes, connections: int, seconds: float) -> Cell:
    """Ask from `connections` connections for `seconds`."""
    cell, loop = Cell(), asyncio.get_running_loop()
    started = time.perf_counter()
    made = [
        (await loop.create_connection(lambda: Connection(request, cell, started + seconds), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.ended for connection in made))
    cell.wall = time.perf_counter() - started
    return cell


def cpu_of(pid: int) -> float:
    """CPU seconds of a process tree."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    path: str


def measure(server: Server, body: bytes, connections: int, seconds: float) -> Cell:
    """Warm up, then measure one cell."""
    path, port, pid = server.path, server.port, server.process.pid
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(closed_loop(port, request, connections, min(1.0, seconds / 2)))
        before = cpu_of(pid)
        cell = runner.run(closed_loop(port, request, connections, seconds))
    cell.cpu = cpu_of(pid) - before
    return cell


def listening() -> socket.socket:
    """A pre-bound socket with TCP_NODELAY, as the supervisor makes it."""
    bound = socket.socket()
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.bind(("127.0.0.1", 0))
    bound.listen(1024)
    return bound


def start_ours(home: Path, model: Any) -> Server:
    """A gateway with the model in our own format."""
    key = SigningKey.generate()
    (home / "keys").mkdir()
    (home / "keys" / "verify.pem").write_bytes(key.public.to_pem())
    folder = home / "model"
    folder.mkdir()
    inputs = [{"name": name, "type": "double"} for name in FEATURES]
    card = {"format": "pickle", "file": "model.pkl", "inputs": inputs, "output": "probability"}
    (folder / "everloop.json").write_bytes(msgspec.json.encode(card))
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    columns = [[name, "FP64"] for name in FEATURES]
    revision = Revision(IDENTITY, 1, 100, IDENTITY, str(folder), columns, columns, {})
    tables.write(home / "serving" / "routes.json", Table(1, "production", [Route("b", "m", [revision])]), key)
    bound = listening()
    process = subprocess.Popen(
        [sys.executable, "-m", "everloop.serving.gateway", "--home", str(home), "--fd", str(bound.fileno())],
        pass_fds=(bound.fileno(),),
    )
    return Server(process, bound.getsockname()[1], "/endpoints/b/m/predict")


def start_peer(home: Path, model: Any) -> Server:
    """The bare application."""
    (home / "peer.pkl").write_bytes(pickle.dumps(model))
    (home / "peer.py").write_text(PEER)
    bound = listening()
    process = subprocess.Popen(
        [sys.executable, str(home / "peer.py"), str(bound.fileno()), str(home / "peer.pkl")],
        pass_fds=(bound.fileno(),),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return Server(process, bound.getsockname()[1], "/")


@dataclass(frozen=True)
class Line:
    """One figure; `target` bounds ours / theirs, from above when `less` is better."""

    name: str
    unit: str
    ours: float
    theirs: float
    floor: float
    target: float
    less: bool = True

    def print(self) -> bool:
        """Print it; returns whether the target is met."""
        ratio = self.ours / self.theirs
        met = ratio <= self.target if self.less else ratio >= self.target
        line = {
            "name": self.name,
            "unit": self.unit,
            "ours": round(self.ours, 3),
            "peer": "bare uvicorn",
            "theirs": round(self.theirs, 3),
            "floor": round(self.floor, 3),
            "ratio": round(ratio, 3),
            "target": f"{'<=' if self.less else '>='} {self.target:g}x",
            "met": met,
        }
        print(json.dumps(line), flush=True)
        return met


def main() -> int:
    """Run; exit 1 when a target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one second a cell instead of four")
    seconds = 1.0 if parser.parse_args().quick else 4.0
    rng = np.random.default_rng(11)
    table = rng.normal(size=(4000, 20))
    model = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=1)
    model.fit(table, table[:, 0] + rng.normal(size=4000) > 0)
    row = table[0]
    body = json.dumps(dict(zip(FEATURES, row.tolist(), strict=True))).encode()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = start_ours(Path(folder), model), start_peer(Path(folder), model)
        try:
            for server in (ours, theirs):
                answer = ask_until_answered(f"http://127.0.0.1:{server.port}{server.path}", body)
                assert abs(answer["predictions"][0] - model.predict_proba(row[None])[0, 1]) < 1e-9, answer
            return compare(ours, theirs, body, seconds, in_process(model, row[None]))
        finally:
            for server in (ours, theirs):
                server.process.send_signal(signal.SIGTERM)
                server.process.wait(20)


def in_process(model: Any, row: Any) -> float:
    """Milliseconds of one prediction without any server, one thread: the floor."""
    with threadpool_limits(1):
        took = []
        for _ in range(300):
            started = time.perf_counter()
            model.predict_proba(row)
            took.append(time.perf_counter() - started)
    return float(np.median(took)) * 1e3


def compare(ours: Server, theirs: Server, body: bytes, seconds: float, floor: float) -> int:
    """Measure the cells in turn and report."""
    a1, b1 = (measure(server, body, 1, seconds) for server in (ours, theirs))
    a32, b32 = (measure(server, body, 32, seconds) for server in (ours, theirs))
    lines = [
        Line("one row, 1 connection, p50", "ms", a1.quantile(0.5), b1.quantile(0.5), floor, 1.7),
        Line("one row, 1 connection, p99", "ms", a1.quantile(0.99), b1.quantile(0.99), floor, 2.5),
        Line("one row, 32 connections, p50", "ms", a32.quantile(0.5), b32.quantile(0.5), floor, 0.6),
        Line("one row, 32 connections, p99", "ms", a32.quantile(0.99), b32.quantile(0.99), floor, 1.0),
        Line("one row, 32 connections", "requests/s", a32.rate, b32.rate, 1e3 / floor, 2.0, less=False),
        Line("CPU a request, 32 connections", "ms", a32.cpu_each, b32.cpu_each, floor, 0.6),
    ]
    met = [line.print() for line in lines]
    return 0 if all(met) else 1


def ask_until_answered(url: str, body: bytes) -> dict[str, Any]:
    """The first answer of a server that starts."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            response = httpx2.post(url, content=body, headers={"content-type": "application/json"}, timeout=30)
        except httpx2.TransportError:
            time.sleep(0.1)
            continue
        if response.status_code == 200:
            return response.json()
        time.sleep(0.1)
    message = f"{url} does not answer"
    raise TimeoutError(message)


if __name__ == "__main__":
    sys.exit(main())

"""The gateway against a bare uvicorn application that runs the same model; one JSON object a line (see `figure`).

    python benchmarks/serving.py [--quick] [--peers [NAME …]] [--kept FOLDER]

Model: HistGradientBoostingClassifier, 100 trees, 20 features, one row a request. Ours goes through the gateway, the
feature-less route, a model worker and the prediction log; the peer parses JSON and calls `predict_proba` in the one
process that answers. Both listen on a pre-bound socket, use uvloop and httptools, and one thread. Answers are compared
first. The load is `wrk`, which is light: the servers have the machine.
"""

import argparse
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
import polars as pl
import psutil
from figure import Record, figure, tell
from serving_graph import graph_revision
from serving_load import Cell, cpu_of, loaded
from serving_peers import PEERS, ended, installed, last_words, started
from serving_peers import encoded as peer_question
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from everloop.core.signing import SigningKey
from everloop.features.expressions import col
from everloop.models.codec import codec
from everloop.models.compiled.definitions import Onnx
from everloop.models.predictor import materialize
from everloop.models.training import Fitted
from everloop.serving import log
from everloop.serving import table as tables
from everloop.serving.columns import Layout
from everloop.serving.graph.nodes import Switch, node_of
from everloop.serving.table import INLINE, Revision, Route, Table
from everloop.store import open_store

Wanted = tuple[Sequence[str], Path | None]
"""Names of peers, and where their environments are kept."""
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
    row = np.array([values[f"f{n}"] for n in range(20)], np.float64).reshape(20, -1).T
    answer = orjson.dumps({"predictions": model.predict_proba(row)[:, 1].tolist()})
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})
config = uvicorn.Config(app, loop="uvloop", http="httptools", ws="none", lifespan="off", log_level="error",
                        access_log=False)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    path: str
    began: float = 0.0


def measure(server: Server, body: bytes, connections: int, seconds: float, kind: dict[str, str] | None = None) -> Cell:
    """Warm up, then measure one cell; `kind` are the headers that say what the body is, JSON if None."""
    url = f"http://127.0.0.1:{server.port}{server.path}"
    headers = kind or {"content-type": "application/json"}
    return loaded((url, server.process.pid), body, headers, connections, max(int(seconds), 1))


def listening() -> socket.socket:
    """A pre-bound socket with TCP_NODELAY, as the supervisor makes it."""
    bound = socket.socket()
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.bind(("127.0.0.1", 0))
    bound.listen(1024)
    return bound


def packaged(home: Path, model: Any, rows: Any, compiled: bool) -> Path:
    """The model in our own format, as a training step leaves it; compiled only where that was verified."""
    frame = pl.DataFrame({**{name: rows[:, place] for place, name in enumerate(FEATURES)}, "y": [0, 1] * 50})
    facts: dict[str, Any] = {"label": "y", "output": "probability", "columns": FEATURES}
    facts |= {"compile": Onnx().manifest()} if compiled else {}
    store = open_store(home / "store")
    manifest = codec.save(Fitted(model, frame, frame), "m", store, facts).version.manifest
    assert not compiled or manifest["compiled"]["verified"], manifest["compiled"]
    return materialize(manifest, store, home / ("compiled" if compiled else "native"))


def start_ours(home: Path, model: Any, rows: Any) -> Server:
    """A gateway with the model in our own format."""
    key = SigningKey.generate()
    (home / "keys").mkdir()
    (home / "keys" / "verify.pem").write_bytes(key.public.to_pem())
    columns = [[name, "FP64"] for name in FEATURES]
    native, compiled = (packaged(home, model, rows, compiled) for compiled in (False, True))
    revision = Revision(IDENTITY, 1, 100, IDENTITY, str(native), columns, columns, {})
    within = msgspec.structs.replace(revision, folder=str(compiled), loader=INLINE)
    beside = msgspec.structs.replace(revision, folder=str(compiled))
    graph = node_of(Switch((col("f0") > 1000, "m"), otherwise="m"))
    parts = {"model champion": revision.workers[""]}  # the same worker
    switched = msgspec.structs.replace(revision, graph=graph, parts=parts)
    routes = [Route("b", "m", [revision]), Route("b", "g", [switched])]
    looked = graph_revision(home, revision, FEATURES, float(rows[0, -1]))
    routes += [Route("b", "whole", [looked], least=0)]
    routes += [Route("b", "onnx", [beside], least=0), Route("b", "inline", [within], least=0)]
    tables.write(home / "serving" / "routes.json", Table(1, "production", routes), key)
    bound = listening()
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "everloop.serving.gateway", "--home", str(home), "--fd", str(bound.fileno())],
        pass_fds=(bound.fileno(),),
    )
    return Server(process, bound.getsockname()[1], "/endpoints/b/m/predict", began)


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


def main() -> int:
    """Run; exit 1 when a target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one second a cell instead of four")
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peers", nargs="*", default=names, choices=names, help="installed by uv; none: without")
    parser.add_argument("--kept", type=Path, help="a folder where the peers' environments are kept for the next run")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed (apt install wrk)")
    seconds = 1.0 if arguments.quick else 4.0
    rng = np.random.default_rng(11)
    table = rng.normal(size=(4000, 20))
    model = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=1)
    model.fit(table, table[:, 0] + rng.normal(size=4000) > 0)
    return 0 if tell(figures(model, table[:100], seconds, (arguments.peers, arguments.kept))) else 1


def figures(model: Any, rows: Any, seconds: float, peers: Wanted) -> Iterator[Record]:
    """Start both, compare their answers, and tell everything."""
    body = encoded(rows[:1])
    with tempfile.TemporaryDirectory() as folder:
        ours = start_ours(Path(folder), model, rows)
        servers = [ours]
        try:
            checked(ours, body, model, rows)
            took = time.perf_counter() - ours.began
            yield figure("start to first answer", "s", took, limit=1.5, cpu_seconds=round(cpu_of(ours.process.pid), 2))
            yield figure("idle memory, gateway and worker", "MB", idle_memory(ours.process.pid), limit=220.0)
            servers.append(start_peer(Path(folder), model))
            checked(servers[1], body, model, rows)
            checked(replace(ours, path=GRAPH), looked_up(rows[:1]), model, rows)
            bare = yield from compare(ours, servers[1], rows, seconds, in_process(model, rows[:1]))
            yield logging_cost(rows)
            yield from against_peers(bare, (model, rows, seconds), peers, Path(folder))
        finally:
            for server in servers:
                server.process.send_signal(signal.SIGTERM)
                server.process.wait(20)


def checked(server: Server, body: bytes, model: Any, rows: Any) -> None:
    """Wait for the first answer, and compare it with the model's own."""
    answer = ask_until_answered(f"http://127.0.0.1:{server.port}{server.path}", body)
    assert abs(answer["predictions"][0] - model.predict_proba(rows[:1])[0, 1]) < 1e-9, answer


def in_process(model: Any, row: Any) -> float:
    """Milliseconds of one prediction without any server, one thread: the floor."""
    with threadpool_limits(1):
        took = []
        for _ in range(300):
            started = time.perf_counter()
            model.predict_proba(row)
            took.append(time.perf_counter() - started)
    return float(np.median(took)) * 1e3


def compare(ours: Server, theirs: Server, rows: Any, seconds: float, floor: float) -> Generator[Record, None, float]:
    """Measure the cells in turn; a ratio is how many times more the peer takes (or serves, if more is better)."""
    one, many = (encoded(rows[:count]) for count in (1, 100))
    a1, b1 = (measure(server, one, 1, seconds) for server in (ours, theirs))
    a32, b32 = (measure(server, one, 32, seconds) for server in (ours, theirs))
    added = a1.p50 - b1.p50
    at_one, at_32 = "one row, 1 connection", "one row, 32 connections"
    yield figure(f"{at_one}, p50", "ms", a1.p50, peer=PEER_NAME, theirs=b1.p50, floor=floor)
    yield figure(f"{at_one}, p50 over the peer's", "ms", added, limit=0.6)
    yield against(f"{at_one}, p99", a1.p99, b1.p99, 1 / 2.5)
    yield against(f"{at_32}, p99", a32.p99, b32.p99, 1 / 1.3)
    yield against(f"{at_32}, CPU a request", a32.cpu_each, b32.cpu_each, None)
    yield figure(
        f"{at_32}, requests over the peer's",
        "times",
        a32.rate / b32.rate,
        limit=5.0,
        more_is_better=True,
        requests_per_second=round(a32.rate),
    )
    a100, b100 = (measure(server, many, 32, seconds) for server in (ours, theirs))
    yield figure(
        "100 rows, 32 connections, requests over the peer's",
        "times",
        a100.rate / b100.rate,
        limit=2.0,
        more_is_better=True,
        requests_per_second=round(a100.rate),
    )
    yield from compiled(ours, (b1, b32, b100), rows, seconds)
    # last and in turns: what machines do meanwhile must not fall on one of them
    questions = {ours.path: one, SWITCHED: one, GRAPH: looked_up(rows[:1])}
    places = [replace(ours, path=path) for path in questions]
    turns = [[measure(place, questions[place.path], 1, seconds).p50 for place in places] for _ in range(3)]
    plain, switched, whole = (float(np.median(told)) for told in zip(*turns, strict=True))
    yield figure("a switch in front of the model, p50 over the model's", "ms", switched - plain, limit=0.25)
    yield figure(
        "look-up, transform, model and switch, p50 over the model's", "ms", whole - plain, limit=0.25, p50=whole
    )
    return a32.rate


def compiled(ours: Server, theirs: tuple[Cell, Cell, Cell], rows: Any, seconds: float) -> Iterator[Record]:
    """The verified compiled form, in a worker and in the gateway, and binary tensors, beside the bare application."""
    bare1, bare32, bare100 = theirs
    one = encoded(rows[:1])
    for name in ("onnx", "inline"):
        there = replace(ours, path=f"/endpoints/b/{name}/predict")
        ask_until_answered(f"http://127.0.0.1:{there.port}{there.path}", one)
        alone, many = measure(there, one, 1, seconds), measure(there, one, 32, seconds)
        where = "in the gateway" if name == "inline" else "in a worker"
        goal = {"limit": 0.35} if name == "inline" else {}
        yield figure(f"compiled, {where}, 1 connection, p50", "ms", alone.p50, theirs=bare1.p50, **goal)
        times = {"limit": 7.0} if name == "inline" else {}
        rate = {"requests_per_second": round(many.rate)}
        yield figure(
            f"compiled, {where}, 32 connections, requests over the bare application's",
            "times",
            many.rate / bare32.rate,
            more_is_better=True,
            **times,
            **rate,
        )
    raw = np.ascontiguousarray(rows, np.float64).tobytes()
    there = replace(ours, path="/v2/models/b.m/infer")
    kind = {"content-type": "application/octet-stream", "inference-header-content-length": "0"}
    binary = measure(there, raw, 32, seconds, kind)
    yield figure(
        "100 rows as a binary tensor, 32 connections, requests over the bare application's",
        "times",
        binary.rate / bare100.rate,
        limit=3.0,
        more_is_better=True,
        requests_per_second=round(binary.rate),
    )


def logging_cost(rows: Any) -> Record:
    """Microseconds that the prediction log takes of a request, on the path to its answer."""
    layout = Layout.from_pairs([[name, "FP64"] for name in FEATURES])
    payload = layout.pack({name: rows[:1, place] for place, name in enumerate(FEATURES)}, 1)
    said = (log.raw(layout.pairs()), payload, log.raw([["prediction", "FP64", []]]), payload[:8])
    with tempfile.TemporaryDirectory() as folder:
        appender = log.Appender(Path(folder))
        taken = []
        for number in range(20_000):
            began = time.perf_counter()
            entry = log.Entry(f"{number:032x}", 1, 1, "b", "m", IDENTITY, 1, *said, {}, 900, "", "predict")
            appender.append(entry)
            taken.append(time.perf_counter() - began)
        appender.close()
    return figure("prediction log, median of a request", "µs", float(np.median(taken)) * 1e6, limit=5.0)


def against_peers(rate: float, what: tuple[Any, Any, float], peers: Wanted, folder: Path) -> Iterator[Record]:
    """Each peer in turn: its latency, rate, start and memory, and how many times more we serve."""
    model, rows, seconds = what
    names, kept = peers
    best = 0.0
    for peer in (one for one in PEERS if one.name in names):
        home = folder / peer.name.replace(" ", "-")
        home.mkdir()
        env, reason = installed(peer, home if kept is None else kept.resolve() / home.name)
        if env is None:
            sys.stderr.write(f"{peer.name}: not installed: {reason}\n")
            continue
        began = time.perf_counter()
        process = None
        try:
            process, port = started(peer, env, home / "run", pickle.dumps(model))
            server = Server(process, port, peer.path)
            one, many = (peer_question(peer, rows[:count].tolist()) for count in (1, 100))
            answer = ask_until_answered(f"http://127.0.0.1:{port}{peer.path}", one, 90)
            assert abs(peer.read(answer) - model.predict_proba(rows[:1])[0, 1]) < 1e-9, answer
            took = time.perf_counter() - began
            alone, together, wide = (
                measure(server, body, count, seconds) for body, count in ((one, 1), (one, 32), (many, 32))
            )
        except (TimeoutError, AssertionError, subprocess.SubprocessError, KeyError, TypeError) as error:
            sys.stderr.write(f"{peer.name}: {type(error).__name__} {str(error)[:200]}; {last_words(home / 'run')}\n")
            continue
        finally:
            if process is not None:
                memory = idle_memory(process.pid) if process.poll() is None else 0.0
                ended(process)
            shutil.rmtree(home, ignore_errors=True)
        best = max(best, together.rate)
        yield figure(
            f"requests at 32 connections over those of {peer.name}",
            "times",
            rate / together.rate,
            more_is_better=True,
            peer=peer.name,
            theirs=round(together.rate),
            p50_ms=round(alone.p50, 2),
            p99_at_32_ms=round(together.p99, 1),
            hundred_rows_per_second=round(wide.rate),
            start_seconds=round(took, 1),
            memory_mb=round(memory),
            **({"limit": 15.0} if peer.name == "mlflow models serve" else {}),
        )
    if best:
        yield figure(
            "requests at 32 connections over the best peer's", "times", rate / best, limit=6.0, more_is_better=True
        )


SWITCHED, GRAPH = "/endpoints/b/g/predict", "/endpoints/b/whole/predict"
PEER_NAME = "bare uvicorn"


def against(name: str, mine: float, theirs: float, times: float | None) -> Record:
    """Milliseconds beside the peer's, which must be `times` as many; no goal where that is None."""
    goal = {} if times is None else {"times": round(times, 3)}
    return figure(name, "ms", mine, peer=PEER_NAME, theirs=theirs, **goal)


def encoded(rows: Any) -> bytes:
    """The question for these rows: values for one, lists for several."""
    columns = {name: rows[:, place].tolist() for place, name in enumerate(FEATURES)}
    return json.dumps({n: v[0] for n, v in columns.items()} if len(rows) == 1 else columns).encode()


def looked_up(row: Any) -> bytes:
    """The question for the same row where the last feature is looked up."""
    values = {name: row[0, place] for place, name in enumerate(FEATURES[:-1])}
    return json.dumps({**values, "place": "7"}).encode()


def idle_memory(pid: int) -> float:
    """Megabytes of a process tree, shared pages by their share."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def ask_until_answered(url: str, body: bytes, seconds: float = 30) -> Any:
    """The first answer of a server that starts."""
    end = time.monotonic() + seconds
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

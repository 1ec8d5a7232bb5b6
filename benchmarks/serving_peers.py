"""The peers of `benchmarks/serving.py`: each in a virtual environment of its own, made by uv, serving the same model.

Each is set up as its manual says, at what serves this model best: batching on where there is batching, one thread for
the numeric libraries, one process where several only share the machine's two cores. What cannot be installed or does
not start is told with its reason.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

INSTALL_SECONDS = 600
_LOAD = """
import os, pickle, numpy as np
model = pickle.load(open(os.path.join(os.environ["BENCH_HOME"], "peer.pkl"), "rb"))
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer: what is installed, the files that it needs, how it starts, and how it is asked."""

    name: str
    packages: tuple[str, ...]
    files: dict[str, str]
    command: tuple[str, ...]
    """`{port}` and `{home}` are put in; the first word is a program of its environment."""
    path: str
    body: Callable[[list[list[float]]], Any]
    read: Callable[[Any], float]
    """The probability of the first row in an answer."""
    prepare: str = ""
    """A script that runs once before it starts."""
    variables: dict[str, str] = field(default_factory=dict)


def _first(value: Any) -> float:
    """The last number of the first row, wherever rows lie."""
    while isinstance(value, list):
        value = value[0] if value and isinstance(value[0], list) else value[-1]
    return float(value)


PEERS = (
    Peer(
        "mlflow models serve",
        ("mlflow>=3.10,<4",),
        {},
        ("mlflow", "models", "serve", "-m", "{home}/saved", "-p", "{port}", "--env-manager", "local"),
        "/invocations",
        lambda rows: {"inputs": rows},
        lambda answer: _first(answer["predictions"][0]),
        prepare=_LOAD
        + """
import mlflow.sklearn
kwargs = {"serialization_format": "cloudpickle", "pyfunc_predict_fn": "predict_proba"}
mlflow.sklearn.save_model(model, os.environ["BENCH_HOME"] + "/saved", **kwargs)
""",
        variables={"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"},
    ),
    Peer(
        "MLServer",
        ("mlserver", "mlserver-sklearn", "uvloop<0.22"),  # a newer uvloop ends its default configuration
        {
            "settings.json": '{"http_port": {port}, "grpc_port": {other}, "metrics_port": {third}, '
            '"host": "127.0.0.1", "parallel_workers": 0, "debug": false}',
            "model-settings.json": '{"name": "m", "implementation": "mlserver_sklearn.SKLearnModel", '
            '"max_batch_size": 64, "max_batch_time": 0.001, "parameters": {"uri": "./peer.joblib"}}',
        },
        ("mlserver", "start", "{home}"),
        "/v2/models/m/infer",
        lambda rows: {
            "inputs": [{"name": "x", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": rows}],
            "outputs": [{"name": "predict_proba"}],
        },
        lambda answer: float(answer["outputs"][0]["data"][1]),
        prepare=_LOAD + 'import joblib; joblib.dump(model, os.environ["BENCH_HOME"] + "/peer.joblib")\n',
    ),
    Peer(
        "BentoML",
        ("bentoml",),
        {
            "service.py": _LOAD
            + """
import bentoml

@bentoml.service(traffic={"timeout": 30})
class Svc:
    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return model.predict_proba(rows)[:, 1]
"""
        },
        ("bentoml", "serve", "service:Svc", "--port", "{port}", "--host", "127.0.0.1", "--working-dir", "{home}"),
        "/predict",
        lambda rows: {"rows": rows},
        lambda answer: float(answer[0]),
        variables={"BENTOML_DO_NOT_TRACK": "true"},
    ),
    Peer(
        "LitServe",
        ("litserve",),
        {
            "server.py": _LOAD
            + """
import sys, litserve as ls

class Api(ls.LitAPI):
    def setup(self, device):
        self.model = model
    def decode_request(self, request):
        return np.asarray(request["input"], np.float64)
    def batch(self, inputs):
        self.sizes = [len(one) for one in inputs]
        return np.concatenate(inputs)
    def predict(self, rows):
        return self.model.predict_proba(rows)[:, 1]
    def unbatch(self, output):
        return np.split(output, np.cumsum(self.sizes)[:-1])
    def encode_response(self, output):
        return {"output": np.asarray(output).tolist()}

if __name__ == "__main__":
    api = Api(max_batch_size=32, batch_timeout=0.001)
    ls.LitServer(api, accelerator="cpu").run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False)
"""
        },
        ("python", "{home}/server.py", "{port}"),
        "/predict",
        lambda rows: {"input": rows},
        lambda answer: float(answer["output"][0]),
    ),
    Peer(
        "KServe",
        ("kserve", "setuptools<81"),
        {
            "server.py": _LOAD
            + """
import sys, kserve

class M(kserve.Model):
    def load(self):
        self.ready = True
        return True
    def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": model.predict_proba(np.asarray(payload["instances"]))[:, 1].tolist()}

if __name__ == "__main__":
    one = M("m"); one.load()
    kserve.ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1, access_log_format=None).start([one])
"""
        },
        ("python", "{home}/server.py", "{port}"),
        "/v1/models/m:predict",
        lambda rows: {"instances": rows},
        lambda answer: float(answer["predictions"][0]),
    ),
    Peer(
        "Ray Serve",
        ("ray[serve]",),
        {
            "server.py": _LOAD
            + """
import sys, time, ray
from ray import serve

@serve.deployment(max_ongoing_requests=64)
class M:
    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0)
    async def many(self, rows):
        sizes = [len(one) for one in rows]
        answer = model.predict_proba(np.concatenate(rows))[:, 1]
        return np.split(answer, np.cumsum(sizes)[:-1])
    async def __call__(self, request):
        body = await request.json()
        return {"predictions": (await self.many(np.asarray(body["rows"]))).tolist()}

if __name__ == "__main__":
    ray.init(address="local", include_dashboard=False, _temp_dir=sys.argv[2], log_to_driver=False, num_cpus=2)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(M.bind(), route_prefix="/")
    while True:
        time.sleep(3600)
"""
        },
        ("python", "{home}/server.py", "{port}", "{short}"),
        "/",
        lambda rows: {"rows": rows},
        lambda answer: float(answer["predictions"][0]),
        variables={"RAY_USAGE_STATS_ENABLED": "0"},
    ),
)


def installed(peer: Peer, folder: Path) -> tuple[Path | None, str]:
    """The peer's environment with this one's scikit-learn, made by uv; None and the reason when it cannot be."""
    uv = shutil.which("uv")
    if uv is None:
        return None, "uv is not on the PATH"
    home = folder / "env"
    if (home / "whole").exists():
        return home, ""
    same = [f"{name}=={version(name)}" for name in ("scikit-learn", "orjson")]
    more = ["numpy"] if peer.packages else []
    for command in (
        [uv, "venv", "-q", "--python", sys.executable, str(home)],
        [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(home / "bin" / "python"),
         *peer.packages, *same, *more],
    ):  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return None, f"not installed within {INSTALL_SECONDS} s"
        if done.returncode:
            return None, (done.stderr.strip().splitlines() or ["uv failed"])[-1][:200]
    (home / "whole").touch()
    return home, ""


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def started(peer: Peer, env: Path, folder: Path, model: bytes) -> tuple[subprocess.Popen[bytes], int]:
    """Start it in a process group of its own; what it prints goes into `log` of its folder."""
    folder.mkdir(exist_ok=True)
    (folder / "peer.pkl").write_bytes(model)
    ports = free_ports(3)
    words = {"{port}": str(ports[0]), "{other}": str(ports[1]), "{third}": str(ports[2]), "{home}": str(folder)}
    words["{short}"] = str(folder.parent / "r")
    for name, content in peer.files.items():
        (folder / name).write_text(_put(content, words) if name.endswith(".json") else content)
    kept = ("PATH", "HOME", "TMPDIR", "LANG")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"BENCH_HOME": str(folder), "OMP_NUM_THREADS": "1", **peer.variables}
    environment["PATH"] = f"{env / 'bin'}{os.pathsep}{environment.get('PATH', '')}"
    with (folder / "log").open("wb") as log:
        if peer.prepare:
            script = [str(env / "bin" / "python"), "-c", peer.prepare]
            subprocess.run(script, env=environment, stdout=log, stderr=log, timeout=120, check=True, cwd=folder)
        program, *arguments = (_put(word, words) for word in peer.command)
        process = subprocess.Popen(
            [str(env / "bin" / program), *arguments],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    return process, ports[0]


def _put(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def ended(process: subprocess.Popen[bytes]) -> None:
    """End it and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.poll()


def last_words(folder: Path) -> str:
    """What it printed last, as the reason why it does not serve."""
    lines = (folder / "log").read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
    return lines[-1][:200]


def encoded(peer: Peer, rows: Sequence[Sequence[float]]) -> bytes:
    """A question for these rows."""
    return json.dumps(peer.body([list(row) for row in rows])).encode()

"""The peers of `benchmarks/flows.py`: each in a virtual environment of its own, made by uv, running the same chain.

A script is written for each: a chain of trivial steps (a number plus one), timed inside the process after everything
was imported; again for what is cached, where the peer has a cache. Servers that a peer starts, and its imports, are not
counted. What cannot be installed or run is told with its reason.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALL_SECONDS, RUN_SECONDS = 600, 300
"""What a peer may take."""
_TIMED = """
import json, sys, time
N = int(sys.argv[1])

def told(cold, cached=None, fan=None):
    print("FOUND " + json.dumps({"cold": cold, "cached": cached, "fan": fan}))

def timed(go):
    began = time.perf_counter()
    go()
    return time.perf_counter() - began
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer: what is installed, and the script."""

    name: str
    packages: tuple[str, ...]
    script: str
    arguments: tuple[str, ...] = ()


PEERS = (
    Peer(
        "redun",
        ("redun", "setuptools<81"),
        """
from redun import Scheduler, task
from redun.config import Config

redun_namespace = "bench"

@task()
def inc(x):
    return x + 1

@task()
def chain(n):
    x = 0
    for _ in range(n):
        x = inc(x)
    return x

scheduler = Scheduler(config=Config({"backend": {"db_uri": "sqlite:///redun.db"}}))
scheduler.load()
cold = timed(lambda: scheduler.run(chain(N)))
told(cold, timed(lambda: scheduler.run(chain(N))))
""",
    ),
    Peer(
        "Kedro",
        ("kedro",),
        """
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import node, pipeline
from kedro.runner import SequentialRunner

def inc(x):
    return x + 1

def go():
    nodes = [node(inc, f"x{i}", f"x{i + 1}", name=f"n{i}") for i in range(N)]
    SequentialRunner().run(pipeline(nodes), DataCatalog({"x0": MemoryDataset(0)}))

told(timed(go))
""",
    ),
    Peer(
        "Dagster",
        ("dagster",),
        """
from dagster import DagsterInstance, graph, op

@op
def zero():
    return 0

@op
def inc(x):
    return x + 1

@graph
def chain():
    x = zero()
    for i in range(N - 1):
        x = inc.alias(f"inc_{i}")(x)

job = chain.to_job()
told(timed(lambda: job.execute_in_process(instance=DagsterInstance.local_temp("."))))
""",
    ),
    Peer(
        "Prefect",
        ("prefect", "fastapi<0.120"),  # with a newer one its server does not start
        """
from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE

@task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True)
def inc(x):
    return x + 1

@flow
def chain(n):
    x = 0
    for _ in range(n):
        x = inc(x)
    return x

chain(0)
cold = timed(lambda: chain(N))
told(cold, timed(lambda: chain(N)))
""",
    ),
    Peer(
        "ZenML",
        ("zenml[local]",),
        """
from zenml import pipeline, step

@step
def zero() -> int:
    return 0

@step
def inc(x: int) -> int:
    return x + 1

@pipeline
def chain():
    x = zero()
    for _ in range(N - 1):
        x = inc(x)

cold = timed(chain)
told(cold, timed(chain))
""",
    ),
    Peer(
        "Metaflow",
        ("metaflow", "setuptools<81"),
        """
import subprocess
lines = ["from metaflow import FlowSpec, step", "class Chain(FlowSpec):"]
names = ["start", *(f"s{i}" for i in range(N - 2)), "end"]
for at, name in enumerate(names):
    body = "self.x = 0" if at == 0 else "self.x += 1"
    lines += ["    @step", f"    def {name}(self):", f"        {body}"]
    lines += [f"        self.next(self.{names[at + 1]})"] if at + 1 < len(names) else []
lines += ["if __name__ == '__main__':", "    Chain()"]
open("chain_flow.py", "w").write(chr(10).join(lines))
told(timed(lambda: subprocess.run([sys.executable, "chain_flow.py", "run"], check=True, capture_output=True)))
""",
    ),
    Peer(
        "bare Ray",
        ("ray",),
        """
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)

@ray.remote
def inc(x):
    return x + 1

ray.get(inc.remote(0))

def chain():
    x = 0
    for _ in range(N):
        x = inc.remote(x)
    return ray.get(x)

cold = timed(chain)
told(cold, None, timed(lambda: ray.get([inc.remote(i) for i in range(1000)])))
""",
    ),
)
_ENVIRONMENT = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "DO_NOT_TRACK": "1",
    "ZENML_ANALYTICS_OPT_IN": "false",
    "ZENML_LOGGING_VERBOSITY": "ERROR",
    "METAFLOW_USER": "bench",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a peer took in seconds for the whole chain, or why it did not run."""

    cold: float | None = None
    cached: float | None = None
    fan: float | None = None
    reason: str = ""


def measure(peer: Peer, folder: Path, steps: int, *, keep: Path | None = None) -> Found:
    """Make the peer's environment (in `keep`, where it may be already) and run its script."""
    home = folder / peer.name.replace(" ", "_")
    home.mkdir(parents=True)
    place = (keep or folder / "venvs") / peer.name.replace(" ", "_")
    python = place / "bin" / "python"
    if not python.exists():
        uv = shutil.which("uv")
        if uv is None:
            return Found(reason="uv is not installed")
        for words in ([uv, "venv", "-q", "--python", sys.executable, place], _install(uv, python, peer.packages)):
            failed = _run(words, home, INSTALL_SECONDS)[1]
            if failed:
                shutil.rmtree(place, ignore_errors=True)
                return Found(reason=f"not installed: {failed}")
    script = home / "bench_chain.py"
    script.write_text(_TIMED + peer.script)
    said, failed = _run([python, script, str(steps), *peer.arguments], home, RUN_SECONDS)
    line = next((one for one in said.splitlines()[::-1] if one.startswith("FOUND ")), "")
    return Found(**json.loads(line.removeprefix("FOUND "))) if line else Found(reason=f"did not run: {failed}")


def _install(uv: str, python: Path, packages: Sequence[str]) -> list[str | Path]:
    return [uv, "pip", "install", "-q", "--python", python, *packages]


def _run(words: Sequence[str | Path], folder: Path, seconds: int) -> tuple[str, str]:
    """What a command printed, and why it failed."""
    environ = {**os.environ, **_ENVIRONMENT, "HOME": str(folder)}
    environ |= {"PREFECT_HOME": str(folder / "prefect"), "ZENML_CONFIG_PATH": str(folder / "zenml")}
    environ.pop("PYTHONPATH", None)
    environ["UV_CACHE_DIR"] = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    try:
        done = subprocess.run(
            [str(word) for word in words],
            check=False,
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return "", f"it took longer than {seconds} s"
    last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1][:200]
    return done.stdout, "" if done.returncode == 0 else last

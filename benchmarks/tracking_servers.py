"""Servers that the tracking benchmarks start, and what their processes cost."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from everloop.server.up import healthy

_MB = 1 << 20
_PATIENCE = 300  # their four workers start one after another, and a shared machine is slow


@dataclass
class Server:
    """One server: its address and its processes."""

    name: str
    url: str
    process: psutil.Process
    start: float = 0.0
    """Seconds until it answered."""

    def family(self) -> list[psutil.Process]:
        """The processes that serve."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """CPU seconds that its processes took until now."""
        times = [member.cpu_times() for member in self.family()]
        return sum(one.user + one.system for one in times)

    def memory(self) -> float:
        """Resident MB of all its processes."""
        return sum(member.memory_info().rss for member in self.family()) / _MB


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(name: str, command: list[str], folder: Path, url: str, more: Mapping[str, str] | None = None) -> Server:
    """Start a server and wait for `/health`."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("EVERLOOP_", "MLFLOW_"))}
    env |= {"MLFLOW_DISABLE_TELEMETRY": "true", **(more or {})}
    began = time.perf_counter()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    place = urlsplit(url)
    while not healthy(place.hostname or "", place.port or 80):
        if process.poll() is not None or time.perf_counter() - began > _PATIENCE:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise SystemExit(f"{name} does not answer:\n{(folder / 'log').read_text()[-3000:]}")
        time.sleep(0.01)
    return Server(name, url, psutil.Process(process.pid), time.perf_counter() - began)


def stopped(server: Server) -> None:
    """Stop a server and all its processes, those that it left behind too."""
    family = server.family() if server.process.is_running() else []
    with contextlib.suppress(psutil.NoSuchProcess):
        server.process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=20)
    for member in left:
        member.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)


@contextmanager
def running(name: str, command: list[str], folder: Path, url: str, more: Mapping[str, str]) -> Iterator[Server]:
    """A server for as long as it is needed."""
    server = started(name, command, folder, url, more)
    try:
        yield server
    finally:
        stopped(server)

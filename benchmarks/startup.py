"""How fast processes start and how small they stay: `everloop up`, the command line, and defining a project.

`everloop up` is started on a fresh folder (it makes the workspace first) and again on the same folder, and asked for
`/health` until it answers; then its processes are left alone, and their resident memory is read. The floor of a start
is an interpreter that imports the libraries which the server is made of, and nothing of ours; that of the command line
is a bare interpreter. Best of some repeats: what is measured is the program, not the machine's other work. Prints a
JSON object a line; exit status 1 when a target is missed.

    python benchmarks/startup.py [--quick]
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from everloop.server.up import healthy

EVERLOOP = [sys.executable, "-m", "everloop"]
PROJECT = Path(__file__).parent.parent / "everloop" / "demo" / "project"
UP_SECONDS, ALL_MEGABYTES, DEFINE_MS, CLI_MS = 3.0, 400.0, 400.0, 500.0
LIBRARIES = "import sqlalchemy, pydantic, fastapi, uvicorn, uvloop, cryptography.hazmat.primitives.serialization"
FORBIDDEN = ("sqlalchemy", "duckdb", "mlflow")
DEFINE = f"""
import sys, time
began = time.perf_counter()
sys.path.insert(0, {str(PROJECT)!r})
import flights
taken = time.perf_counter() - began
print(taken * 1000, *[name for name in {FORBIDDEN} if name in sys.modules])
"""
_MB = 1024 * 1024


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def up(folder: Path, settle: float) -> tuple[float, dict[str, float]]:
    """Seconds until `everloop up` answers, and the resident MB of its processes when idle."""
    port = free_port()
    env = {key: value for key, value in os.environ.items() if not key.startswith("EVERLOOP_")}
    began = time.perf_counter()
    process = subprocess.Popen(
        [*EVERLOOP, "up", "--port", str(port)], cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        while not healthy("127.0.0.1", port):
            if process.poll() is not None or time.perf_counter() - began > 60:
                raise SystemExit("everloop up does not answer")
            time.sleep(0.01)
        taken = time.perf_counter() - began
        time.sleep(settle)
        memory = {child.name: child.rss for child in processes(folder)} if settle else {}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return taken, memory


class Process:
    """One of the processes of `everloop up`."""

    def __init__(self, line: str) -> None:
        """Read a line of `run/pids`; children (model workers) count with their parent."""
        self.name, _, pid = line.partition(" ")
        found = psutil.Process(int(pid))
        family = [found] if self.name == "supervisor" else [found, *found.children(recursive=True)]
        self.rss = sum(member.memory_info().rss for member in family) / _MB


def processes(folder: Path) -> list[Process]:
    """Supervisor, gateway, server, workers."""
    return [Process(line) for line in (folder / ".everloop" / "run" / "pids").read_text().splitlines()]


def wall(command: list[str]) -> float:
    """Milliseconds of a command, from its start to its end."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def define() -> tuple[float, list[str]]:
    """Milliseconds to define the flights project in a fresh interpreter, and what it should not have loaded."""
    answer = subprocess.run([sys.executable, "-c", DEFINE], check=True, capture_output=True, text=True).stdout.split()
    return float(answer[0]), answer[1:]


def report(name: str, unit: str, value: float, target: float | None, floor: float | None = None) -> bool:
    """Print one line."""
    met = target is None or value <= target
    line: dict[str, Any] = {
        "name": name,
        "unit": unit,
        "ours": round(value, 2),
        "peer": None,
        "theirs": None,
        "floor": None if floor is None else round(floor, 2),
        "ratio": None if not floor else round(value / floor, 2),
        "target": target,
        "met": met,
    }
    print(json.dumps(line), flush=True)
    return met


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    repeats = 2 if parser.parse_args().quick else 5
    bare = min(wall([sys.executable, "-c", ""]) for _ in range(repeats))
    libraries = min(wall([sys.executable, "-c", LIBRARIES]) for _ in range(repeats)) / 1000
    met = []
    first, again, memory = [], [], {}
    for number in range(repeats):
        with tempfile.TemporaryDirectory(prefix="everloop-bench-") as folder:
            first.append(up(Path(folder), 0)[0])
            taken, found = up(Path(folder), 0 if number else 5)
            again.append(taken)
            memory = found or memory
    met.append(report("everloop up answers, new workspace", "s", min(first), UP_SECONDS, libraries))
    met.append(report("everloop up answers", "s", min(again), UP_SECONDS, libraries))
    for name, size in memory.items():
        report(f"idle memory, {name}", "MB", size, None)
    met.append(report("idle memory, all processes", "MB", sum(memory.values()), ALL_MEGABYTES))
    defined = [define() for _ in range(repeats)]
    met.append(report("define the flights project", "ms", min(taken for taken, _ in defined), DEFINE_MS))
    met.append(report("heavy libraries loaded by defining it", "count", len(defined[0][1]), 0))
    for words in (["version"], ["--help"]):
        taken = min(wall([*EVERLOOP, *words]) for _ in range(repeats))
        met.append(report(f"everloop {' '.join(words)}", "ms", taken, CLI_MS, bare))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())

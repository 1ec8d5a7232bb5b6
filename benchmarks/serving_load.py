"""The load of `benchmarks/serving.py`: `wrk`, a closed loop over keep-alive connections in one light thread.

A generator in Python would take as much CPU of the machine's two cores as the server that it measures.
"""

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

_SCRIPT = """
wrk.method = "POST"
local file = io.open("%(body)s", "rb")
wrk.body = file:read("*a")
file:close()
%(headers)s
function done(summary, latency)
  local wrong = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
  io.write(string.format("RESULT %%d %%d %%d", summary.requests, summary.duration, wrong + summary.errors.timeout))
  for _, share in ipairs({50, 99}) do io.write(string.format(" %%f", latency:percentile(share))) end
  io.write("\\n")
end
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one closed loop measured."""

    requests: int
    seconds: float
    p50: float
    """Milliseconds."""
    p99: float
    cpu: float
    """CPU seconds of all server processes."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def cpu_each(self) -> float:
        """CPU milliseconds of all server processes per request."""
        return self.cpu / self.requests * 1e3


def cpu_of(pid: int) -> float:
    """CPU seconds of a process tree."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def loaded(server: tuple[str, int], body: bytes, headers: Mapping[str, str], connections: int, seconds: int) -> Cell:
    """Warm up, then ask `server` (URL and process) for `seconds`; every answer must be a good one."""
    url, pid = server
    with tempfile.TemporaryDirectory() as folder:
        content, script = Path(folder, "body"), Path(folder, "load.lua")
        content.write_bytes(body)
        said = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        script.write_text(_SCRIPT % {"body": content, "headers": said})
        _wrk(url, script, connections, 1)
        before = cpu_of(pid)
        requests, micros, wrong, p50, p99 = _wrk(url, script, connections, seconds)
        cpu = cpu_of(pid) - before
    assert not wrong, f"{wrong:.0f} of {requests:.0f} questions were not answered"
    return Cell(int(requests), micros / 1e6, p50 / 1e3, p99 / 1e3, cpu)


def _wrk(url: str, script: Path, connections: int, seconds: int) -> list[float]:
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), url]
    output = subprocess.run(words, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT"))
    return [float(word) for word in line.split()[1:]]

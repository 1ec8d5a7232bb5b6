"""What a step's processes and its machine use, measured every few seconds in a thread of its own.

Names that mlflow's client uses mean what they mean there, the whole machine, so that one chart serves runs of both;
`system/process_*` is the step's process with all that it started. Long runs are thinned as they grow: after every
`ROUND` samples the interval doubles, so that their number grows with the logarithm of the time (a day: 1,700).
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence

import psutil

from everloop.core.clock import Micros
from everloop.core.errors import EverloopError
from everloop.core.ports import Sample
from everloop.flows.observation.gpu import Gpus, open_gpus

INTERVAL_SECONDS = 5.0
"""The first interval; a step that is shorter is measured once, when it ends."""
ROUND = 240
_BATCH = 6
"""Samples that are written together; the first goes at once."""

Take = Callable[[Sequence[Sample]], None]


class Sampler:
    """Measures from `start` to `finish`, and gives samples to `take` in batches. What fails is left out."""

    def __init__(self, take: Take, now: Callable[[], Micros], *, interval: float = INTERVAL_SECONDS) -> None:
        """Nothing runs yet."""
        self._take, self._now, self._interval = take, now, interval
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._machine = _Machine()
        self._tree: _Tree | None = None
        self._gpus: Gpus | None = None
        self._waiting: list[Sample] = []
        self._taken = 0

    def start(self, pid: int) -> None:
        """Measure the process `pid` and everything below it from now on."""
        self._tree = _Tree(pid)
        self._thread = threading.Thread(target=self._loop, name="sampler", daemon=True)
        self._thread.start()

    def finish(self, seconds: float = 0.0, cpu_seconds: float = 0.0, peak_memory: int = 0) -> None:
        """Stop and write what is left; the totals describe a step that ended before its first sample."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        values = self._machine.read()
        if self._taken == 0 and seconds > 0:
            values["system/process_cpu_percentage"] = cpu_seconds / seconds * 100
            values["system/process_memory_megabytes"] = peak_memory / 1e6
        self._add(values)
        self._write()

    def _loop(self) -> None:
        interval = self._interval
        while not self._over.wait(interval):
            self._sample()
            if self._taken % ROUND == 0:
                interval *= 2

    def _sample(self) -> None:
        assert self._tree is not None
        if self._gpus is None:
            self._gpus = open_gpus()
        values = self._machine.read() | self._tree.read()
        self._add(values | self._gpus.read(self._tree.pids))
        if self._taken == 1 or len(self._waiting) >= _BATCH:
            self._write()

    def _add(self, values: dict[str, float]) -> None:
        rounded = {name: round(value, 3) for name, value in values.items()}
        self._waiting.append(Sample(self._now(), self._taken, rounded))
        self._taken += 1

    def _write(self) -> None:
        try:
            self._take(self._waiting)
        except EverloopError:  # the catalog is away: the step goes on, and the next batch holds these too
            del self._waiting[:-ROUND]
            return
        self._waiting.clear()


class _Machine:
    """The whole machine, as mlflow's client measures it."""

    def __init__(self) -> None:
        self._busy, self._all = _cpu()
        self._received, self._sent = _network()

    def read(self) -> dict[str, float]:
        busy, every = _cpu()
        passed = every - self._all
        share = (busy - self._busy) / passed * 100 if passed > 0 else 0.0
        self._busy, self._all = busy, every
        received, sent = _network()
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.sep)
        return {
            "system/cpu_utilization_percentage": min(100.0, max(0.0, share)),
            "system/system_memory_usage_megabytes": memory.used / 1e6,
            "system/system_memory_usage_percentage": memory.used / memory.total * 100,
            "system/disk_usage_percentage": disk.percent,
            "system/disk_usage_megabytes": disk.used / 1e6,
            "system/disk_available_megabytes": disk.free / 1e6,
            "system/network_receive_megabytes": (received - self._received) / 1e6,
            "system/network_transmit_megabytes": (sent - self._sent) / 1e6,
        }


class _Tree:
    """A process and everything below it.

    Memory is the sum of resident sizes: pages that forks share count in each. A process that comes and goes between
    two samples is not seen; the step's own totals, which the kernel counts, are in its row.
    """

    def __init__(self, pid: int) -> None:
        self.pids: tuple[int, ...] = (pid,)
        self._root = pid
        self._cpu: dict[int, float] = {}
        self._at = time.monotonic()
        self._disk: dict[int, tuple[int, int]] = {}
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                self._cpu[process.pid] = _cpu_of(process)

    def read(self) -> dict[str, float]:
        now = time.monotonic()
        before, self._cpu = self._cpu, {}
        used = memory = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.Error), process.oneshot():
                spent = _cpu_of(process)
                self._cpu[process.pid] = spent
                used += spent - before.get(process.pid, 0.0)
                memory += process.memory_info().rss
                with contextlib.suppress(psutil.Error, AttributeError):  # not on every system, not for every process
                    counted = process.io_counters()
                    self._disk[process.pid] = counted.read_bytes, counted.write_bytes
        passed, self._at = now - self._at, now
        self.pids = tuple(self._cpu)
        if not self._cpu:
            return {}
        found = {
            "system/process_cpu_percentage": max(0.0, used) / passed * 100 if passed > 0 else 0.0,
            "system/process_memory_megabytes": memory / 1e6,
        }
        if self._disk:
            found["system/process_disk_read_megabytes"] = sum(read for read, _ in self._disk.values()) / 1e6
            found["system/process_disk_write_megabytes"] = sum(written for _, written in self._disk.values()) / 1e6
        return found

    def _processes(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._root)
            return [root, *root.children(recursive=True)]
        except psutil.Error:  # it has ended
            return []


def _cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _cpu() -> tuple[float, float]:
    """Busy and all seconds of all cores since the machine started."""
    times = psutil.cpu_times()
    # Linux counts guests' time in that of their hosts too
    every = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return every - times.idle - getattr(times, "iowait", 0.0), every


def _network() -> tuple[int, int]:
    counted = psutil.net_io_counters()
    return (counted.bytes_recv, counted.bytes_sent) if counted is not None else (0, 0)

"""What a process used between two moments, as the kernel counts it; and what a running step used so far."""

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from everloop.core.ports import Observer, Resources, Use
from everloop.flows.observation.gpu import Gpus, open_gpus


class Counting:
    """Counts what this process uses from now on; with `whole`, since it began, children that ended included."""

    def __init__(self, *, whole: bool = False) -> None:
        """Begin; the most memory held is counted anew where the system can do that."""
        self._began = time.perf_counter()
        self._cpu, self._written = (0.0, 0) if whole else (_cpu(), _written())
        self._children = _most(resource.RUSAGE_CHILDREN)
        if not whole:
            _forget_most()

    def use(self) -> Use:
        """What was used until now."""
        children = _most(resource.RUSAGE_CHILDREN)
        most = max(peak_memory(), children if children > self._children else 0)
        return Use(time.perf_counter() - self._began, _cpu() - self._cpu, most, 0.0, _written() - self._written)


def peak_memory() -> int:
    """The most bytes of memory that this process held at once; what `getrusage` tells begins with its parent's."""
    return 1024 * _told("/proc/self/status", b"\nVmHWM:") or _most(resource.RUSAGE_SELF)


@contextmanager
def telling(observer: Observer | None) -> Iterator[None]:
    """Tell an observer what this process used for the block, whatever comes of it."""
    if observer is None:
        yield
        return
    counting = Counting()
    try:
        yield
    finally:
        observer.used(counting.use())


class Meter:
    """What a step used so far: of its process with all below it, or what this process counts for it itself.

    A step that is `unseen` from here, on another machine, is taken to use what it may until its node tells.
    """

    def __init__(self, resources: Resources, *, unseen: bool = False) -> None:
        """Of a step that may use this much."""
        self._resources, self._unseen = resources, unseen
        self._began = time.monotonic()
        self._pid = 0
        self._here: Counting | None = None
        self._gpus: Gpus | None = None
        self._seen = Use()
        self._at = self._began
        self._cpu: dict[int, float] = {}
        self.told: Use | None = None
        """What the step's process said itself, once it ended."""

    @property
    def seen(self) -> Use:
        """What it used when it was last looked at."""
        return self._seen

    def start(self, pid: int) -> None:
        """It runs in this process of this machine now."""
        self._pid, self._began = pid, time.monotonic()
        self._at = self._began
        if pid == os.getpid():
            self._here = Counting()

    def look(self) -> Use:
        """What it used until now."""
        now = time.monotonic()
        seconds = now - self._began
        if self._here is not None:
            found = self._here.use()
        elif self._pid:
            found = self._tree(seconds)
        elif self._unseen:
            found = Use(seconds, seconds * self._resources.cores, self._resources.memory or 0)
        else:  # its process has not begun
            return self._seen
        gpus = self._seen.gpu_seconds + self._held() * (now - self._at)
        self._at = now
        self._seen = Use(
            seconds,
            max(found.cpu_seconds, self._seen.cpu_seconds),
            max(found.peak_memory, self._seen.peak_memory),
            max(gpus, seconds * self._resources.gpus),
            max(found.written, self._seen.written),
        )
        return self._seen

    def total(self, seconds: float) -> Use:
        """What it used when it has ended after so many seconds; its own counting stands before what was seen."""
        own, seen = self.told or (self._here.use() if self._here is not None else Use(seconds)), self._seen
        seconds = own.seconds
        if self.told is not None and not self._pid:  # what was seen is only what it may
            seen = Use()
        return Use(
            seconds,
            max(own.cpu_seconds, seen.cpu_seconds if self._here is None else 0.0),
            max(own.peak_memory, seen.peak_memory),
            max(own.gpu_seconds, seen.gpu_seconds, seconds * self._resources.gpus),
            max(own.written, seen.written),
        )

    def _tree(self, seconds: float) -> Use:
        memory = written = 0
        with suppress(psutil.Error):
            root = psutil.Process(self._pid)
            for one in (root, *root.children(recursive=True)):
                with suppress(psutil.Error), one.oneshot():
                    times = one.cpu_times()
                    self._cpu[one.pid] = max(self._cpu.get(one.pid, 0.0), times.user + times.system)
                    memory += one.memory_info().rss
                    with suppress(psutil.Error, AttributeError):
                        written += one.io_counters().write_bytes
        return Use(seconds, sum(self._cpu.values()), memory, 0.0, written)

    def _held(self) -> int:
        """How many GPUs hold memory of the step now, where that can be seen."""
        if not self._pid or self._here is not None:
            return 0
        if self._gpus is None:
            self._gpus = open_gpus()
        if not len(self._gpus):
            return 0
        read = self._gpus.read(list(self._cpu))
        return sum(name.endswith("_process_memory_megabytes") for name in read)


def _cpu() -> float:
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def _most(who: int) -> int:
    found = resource.getrusage(who).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def _written() -> int:
    return _told("/proc/self/io", b"\nwrite_bytes:")


def _told(path: str, name: bytes) -> int:
    """A number that the kernel tells of this process; 0 where it does not."""
    with suppress(OSError, ValueError, IndexError):
        return int(os.pread(_opened(path, os.O_RDONLY), 4096, 0).split(name)[1].split(None, 1)[0])
    return 0


def _forget_most() -> None:
    """Let the kernel count the most memory held anew, from what is held now."""
    with suppress(OSError):
        os.write(_opened("/proc/self/clear_refs", os.O_WRONLY), b"5")


_files: dict[tuple[int, str], int] = {}


def _opened(path: str, flags: int) -> int:
    """A file of the kernel about this process, open once: several are read for every step, and opening costs most.

    What a fork inherits is still about its parent, so each process has its own.
    """
    key = (os.getpid(), path)
    if key not in _files:
        _files[key] = os.open(path, flags)
    return _files[key]

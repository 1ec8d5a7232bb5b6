"""Holding a step's process to its time and its memory, from outside: whatever it does, and whatever it started.

Where a control group can be made (`cgroups`) the kernel holds the step, with all that it starts, to memory and cores.
Inside, it holds its process to its data segment and CPU time (`flows.child`); that gives Python's own `MemoryError`
where Python allocates. Memory that libraries map, and what child processes hold, is only seen from here.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from everloop.core.errors import StepFailed
from everloop.core.ports import Job
from everloop.flows.executors.cgroups import Group, make

_LOOK = 0.05
"""Seconds between two looks at the memory."""


class Limits:
    """The watch over one process group, from its start until `finish`."""

    def __init__(self, job: Job, pid: int, kill: Callable[[], None], group: Group | None = None) -> None:
        """Watch `pid` and what it starts, which the kernel holds as `group`; `kill` ends them all."""
        self._job, self._pid, self._kill = job, pid, kill
        self._done = threading.Event()
        self._over = ""
        self._peak = 0
        self._ended = False
        """Whether the kernel ended something of it for its memory."""
        self._thread: threading.Thread | None = None
        self._group = group
        if job.resources.limited:
            self._thread = threading.Thread(target=self._watch, name="limits", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Stop watching."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        if self._group is not None:
            self._peak = max(self._peak, self._group.peak())
            self._ended = self._group.killed()

    def error(self, output: str, *, cpu: bool, died: str = "") -> StepFailed | None:
        """Which limit ended the step; None when it was none. `cpu`: the kernel ended it for its CPU time."""
        wanted = self._job.resources
        if self._over == "memory" or self._ended or (died in ("SIGKILL", "SIGABRT", "SIGSEGV") and self._near()):
            assert wanted.memory is not None
            return self._failed(
                f"it took more than its {wanted.memory / 1e6:,.0f} MB of memory (seen: {self._peak / 1e6:,.0f} MB)",
                "give it more (memory=), or read less at once",
                "MemoryError",
                output,
            )
        if self._over == "time" or cpu:
            what = "of CPU time" if cpu and self._over != "time" else ""
            return self._failed(
                f"it took longer than {wanted.seconds:g} s {what}".rstrip(),
                "give it more time or more cores, or less work",
                "TimeoutError",
                output,
            )
        return None

    def _near(self) -> bool:
        return self._job.resources.memory is not None and self._peak > 0.8 * self._job.resources.memory

    def _failed(self, said: str, hint: str, kind: str, output: str) -> StepFailed:
        return StepFailed(
            f"{self._job.step} failed: {said}",
            hint=hint,
            step=self._job.step,
            exception=kind,
            kinds=[kind, "Exception"],
            traceback="",
            output=output[-4000:],
        )

    def _watch(self) -> None:
        wanted = self._job.resources
        until = None if wanted.seconds is None else time.monotonic() + wanted.seconds
        while True:
            left = _LOOK if wanted.memory is not None else 3600.0
            if until is not None:
                left = min(left, until - time.monotonic())
            if self._done.wait(max(0.0, left)):
                return
            if until is not None and time.monotonic() >= until:
                self._over = "time"
            elif wanted.memory is not None:
                self._peak = max(self._peak, held_by(self._pid))
                # the kernel may have ended one of several, which the step then waits for without knowing
                killed = self._group is not None and self._group.killed()
                self._over = "memory" if killed or self._peak > wanted.memory else ""
            if self._over:
                self._kill()
                return


def group_of(job: Job) -> Group | None:
    """A control group for a step with a limit, where the kernel lets us make one; the step's process joins it."""
    wanted = job.resources
    return make(wanted.memory, wanted.cores) if wanted.limited else None


def held_by(pid: int) -> int:
    """Bytes of memory that a process and all that it started hold."""
    found = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                found += one.memory_info().rss
    return found

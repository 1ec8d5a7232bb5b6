"""The workers of one part: as many processes as its load asks for, none while nobody asks.

One process takes all that waits as its next batch, so a second one pays only when requests wait although every process
is at work. Which of them a request goes to is decided when it comes: the one with the shortest queue.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import psutil

from everloop.core.errors import Overloaded, Unavailable
from everloop.serving import wire
from everloop.serving.columns import Layout, Outputs
from everloop.serving.distributed.linking import Cluster
from everloop.serving.gateway.starting.shared import Shared
from everloop.serving.gateway.workers import LOST, ModelProcess, Waiter
from everloop.serving.streaming.parts import Parts
from everloop.serving.table import Part

_BUSY = 4.0
"""Requests that wait for each process, on average, from which another is started."""
_CALM = 0.5
"""And below which one too many ends."""
_UP_SECONDS, _DOWN_SECONDS = 1.0, 30.0
"""How long that must last."""
_SMOOTHING = 0.2
_DRAIN_SECONDS, _LAST_DRAIN_SECONDS = 15.0, 2.0
_QUEUE_THAT_COUNTS = 8


@dataclass(frozen=True, slots=True)
class Size:
    """How many processes a part may have."""

    least: int = 1
    most: int = 1
    idle_seconds: float = 900.0
    """With `least` 0: how long nobody asks before the last process ends."""
    awaited: bool = True
    """Whether a revision must show that this part answers, before it serves."""
    shared: str = ""
    """Names the process that it shares with other parts; empty: it has processes of its own."""

    def joined(self, other: "Size") -> "Size":
        """What satisfies both: a part may be of several endpoints."""
        return Size(
            max(self.least, other.least),
            max(self.most, other.most),
            max(self.idle_seconds, other.idle_seconds),
            shared=self.shared if self.shared == other.shared else "",
        )


class Crew:
    """The worker processes of one part; asked as if it were one."""

    def __init__(
        self, part: Part, size: Size, awake: "set[Any] | None" = None, cluster: Cluster | Shared | None = None
    ) -> None:
        """Nobody works yet; `wake` starts, and notes it in `awake`: who sleeps is not looked at.

        On a cluster one connection stands for all replicas, of which Ray Serve starts as many as the load asks for. In
        a process that is shared, the part is one thread.
        """
        self.part, self.size, self._cluster = part, size, cluster
        self._awake: set[Any] = set() if awake is None else awake
        self.model_inputs = Layout.from_pairs(part.inputs)
        self.outputs: Outputs = ()
        self.shown: Outputs = ()
        self.outputs_raw = msgspec.Raw(b"\x90")
        self.engine = ""
        """What its workers answer by, as they say."""
        self.ready = asyncio.Event()
        self.asked_at = time.monotonic()
        self._processes: list[ModelProcess] = []
        self._ended: set[asyncio.Task[None]] = set()
        self._past_restarts = 0
        self._drain = _DRAIN_SECONDS
        self._load = 0.0
        self._since = time.monotonic()

    @property
    def problem(self) -> str:
        """Why nobody is ready; empty while somebody is or may become so."""
        return "" if self.ready.is_set() else next((p.problem for p in self._processes if p.problem), "")

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return sum(process.waiting for process in self._processes)

    @property
    def restarts(self) -> int:
        """How often a process died and was started again."""
        return self._past_restarts + sum(process.restarts for process in self._processes)

    @property
    def pids(self) -> list[int]:
        """Of the processes that run on this machine."""
        return [process.pid for process in self._processes if process.pid]

    @property
    def working(self) -> int:
        """Processes that run, on this machine or a cluster."""
        return sum(process.replicas for process in self._processes)

    @property
    def state(self) -> str:
        """`ready`, `starting`, `failed` or `asleep`."""
        if not self._processes:
            return "asleep"
        return "ready" if self.ready.is_set() else "failed" if self.problem else "starting"

    @property
    def memory(self) -> int:
        """Bytes in memory of all its processes; of a part in a shared one, by how much that grew."""
        total = sum(process.memory for process in self._processes if not process.pid)
        for pid in self.pids:
            try:
                total += psutil.Process(pid).memory_info().rss
            except psutil.Error:
                continue  # it died just now
        return total

    def relieve(self) -> None:
        """Replace its largest process, if that grew to twice of what it took when it became warm."""
        own = [process for process in self._processes if isinstance(process, ModelProcess)]
        grown = [process for process in own if process.ready.is_set() and process.grown]
        if grown:
            max(grown, key=lambda one: one.memory).replace()

    def wake(self) -> None:
        """Start the processes that it has at least, if it has none."""
        self.asked_at = time.monotonic()
        self._awake.add(self)
        while len(self._processes) < self._needed:
            self._add()

    async def become_ready(self, seconds: float) -> bool:
        """Wait until somebody is warm, or nobody can become so."""
        end = time.monotonic() + seconds
        while not self.ready.is_set() and not self.problem and time.monotonic() < end:
            try:
                await asyncio.wait_for(self.ready.wait(), 0.05)
            except TimeoutError:
                continue
        return self.ready.is_set()

    def ask(
        self, payload: bytes, rows: int, deadline: float, parts: Parts | None = None
    ) -> "asyncio.Future[wire.Frame]":
        """Send one request to the shortest queue; the future ends with the answer, `StepFailed` or `Unavailable`.

        Raises `Overloaded` when what waits will hardly be answered by the deadline.
        """
        return self._chosen(deadline).ask(payload, rows, deadline, parts)

    def send(self, payload: bytes, rows: int, deadline: float, waiter: Waiter) -> None:
        """As `ask`; `waiter` is told instead."""
        self._chosen(deadline).send(payload, rows, deadline, waiter)

    def _chosen(self, deadline: float) -> ModelProcess:
        able = [process for process in self._processes if process.ready.is_set()]
        if not able:
            raise Unavailable(self.problem or LOST, hint="it is being restarted; try again")
        process = able[0] if len(able) == 1 else min(able, key=lambda one: one.waiting)
        now = self.asked_at = time.monotonic()
        if process.waiting >= _QUEUE_THAT_COUNTS and (wait := process.waiting * process.pace) > deadline - now:
            raise Overloaded(
                f"{process.waiting} requests wait for this model, some {wait:.1f} s", hint="come later", seconds=wait
            )
        return process

    def tend(self, now: float) -> None:
        """Give up on what is late, start a process where work piles up, end one that has nothing to do."""
        for process in self._processes:
            process.expire(now)
        if not self._processes:
            return
        count = len(self._processes)
        self._load += _SMOOTHING * (self.waiting / count - self._load)
        if _CALM <= self._load <= _BUSY:
            self._since = now
        lasted = now - self._since
        if self._cluster is not None:  # which counts its replicas by itself
            self._processes[0].resize(self._replicas)
            if self._idle(now):
                self._end_all()
        elif self._load > _BUSY and lasted > _UP_SECONDS and count < self.size.most and self.ready.is_set():
            self._add()
            self._since = now
        elif self._load < _CALM and lasted > _DOWN_SECONDS and count > self._needed:
            self._end(min(self._processes, key=lambda one: one.waiting))
            self._since = now
        elif self._idle(now):
            self._end_all()

    @property
    def _needed(self) -> int:
        """Processes of ours while anybody works."""
        return 1 if self._cluster is not None else max(self.size.least, 1)

    @property
    def _replicas(self) -> tuple[int, int]:
        return max(self.size.least, 1), max(self.size.most, self.size.least, 1)

    def _idle(self, now: float) -> bool:
        """Whether its last process may end."""
        if self.size.least or self.waiting or self.state == "starting":
            return False
        return now - self.asked_at > self.size.idle_seconds

    async def sleep(self) -> None:
        """End every process, once it answered what it was asked; `wake` starts others."""
        self._end_all()
        await asyncio.gather(*self._ended)

    async def retire(self) -> None:
        """End for good, sooner."""
        self._drain = _LAST_DRAIN_SECONDS
        await self.sleep()

    def _add(self) -> None:
        process = ModelProcess(self.part, self._changed, self._cluster, self._replicas)
        self._processes.append(process)
        process.begin()

    def _end_all(self) -> None:
        for process in list(self._processes):
            self._end(process)

    def _end(self, process: ModelProcess) -> None:
        self._processes.remove(process)
        self._past_restarts += process.restarts
        self._changed(process)
        task = asyncio.get_running_loop().create_task(process.retire(self._drain))
        self._ended.add(task)
        task.add_done_callback(self._ended.discard)

    def _changed(self, process: ModelProcess) -> None:
        """A process became warm, or is so no more."""
        if process.outputs:
            self.outputs, self.shown, self.outputs_raw = process.outputs, process.shown, process.outputs_raw
            self.engine = process.engine
        if any(one.ready.is_set() for one in self._processes):
            if not self.ready.is_set():
                self.asked_at = time.monotonic()  # who waited for it is only now about to ask
            self.ready.set()
        else:
            self.ready.clear()


def told(crew: Crew) -> dict[str, Any]:
    """What a crew does, as JSON."""
    return {
        "state": crew.state,
        "pid": crew.pids[0] if crew.pids else 0,
        "pids": crew.pids,
        "processes": crew.working,
        "restarts": crew.restarts,
        "waiting": crew.waiting,
        "engine": crew.engine,
    }

"""Model workers as the gateway sees them: started, warmed, asked, healed, retired."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import psutil

from everloop.core.errors import EverloopError, NotFound, StepFailed, Unavailable
from everloop.serving import wire
from everloop.serving.columns import Layout, Outputs, outputs_from
from everloop.serving.distributed.linking import Cluster
from everloop.serving.fusing.derived import shown
from everloop.serving.gateway.starting import spare
from everloop.serving.gateway.starting.shared import Shared
from everloop.serving.modelworker import MOST_ROWS, Setup
from everloop.serving.streaming.parts import Parts
from everloop.serving.table import Part

_FIRST_DELAY, _MOST_DELAY, _HEALTHY_SECONDS = 0.05, 5.0, 10.0
_SILENT_SECONDS = 1.0
_PACE_SMOOTHING = 0.02
_MICROS = 4
LOST = "the model worker died"


class StepFailedBehind(StepFailed):
    """What a model raised, and how long the fused steps before the one that raised took."""

    def __init__(self, text: str, took: tuple[int, ...]) -> None:
        """`text` is what the worker says; `took` are microseconds."""
        super().__init__("the model failed: " + text)
        self.took = took


class Waiter(Protocol):
    """Who waits for an answer: a future, or what is as good as one."""

    def done(self) -> bool:
        """Whether it was told already, or left."""
        ...

    def set_result(self, frame: wire.Frame, /) -> None:
        """Take the answer."""
        ...

    def set_exception(self, error: EverloopError, /) -> None:
        """Take the reason why there is none."""
        ...


def tell(waiter: Waiter, frame: wire.Frame) -> None:
    """Tell who waits what a model answered: the answer, or that it failed."""
    if waiter.done():
        return
    if frame.kind == wire.ANSWER:
        waiter.set_result(frame)
    elif frame.kind == wire.GONE:
        waiter.set_exception(Unavailable(LOST, hint="it is being restarted; try again"))
    else:
        ends = _MICROS * frame.rows
        took = tuple(memoryview(frame.payload[:ends]).cast("i")) if ends else ()
        waiter.set_exception(StepFailedBehind(frame.payload[ends:].decode(errors="replace"), took))


class _Link(asyncio.Protocol):
    """One connection to one worker process."""

    def __init__(self, on_frame: Callable[["_Link", wire.Frame], None], on_lost: Callable[["_Link"], None]) -> None:
        self._reader = wire.Reader()
        self._on_frame, self._on_lost = on_frame, on_lost
        self.transport: Any = None
        self._sending: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, frame: bytes) -> None:
        """Send with what is sent in this turn of the loop: they are the worker's next batch, not one and the rest."""
        if not self._sending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._sending.append(frame)

    def _flush(self) -> None:
        frames, self._sending = self._sending, []
        if self.transport.is_closing():
            return  # the worker died in this very turn: who waits for it is told so
        self.transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            self._on_frame(self, frame)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._on_lost(self)


class ModelProcess:
    """One worker process of a part: restarted when it dies, until it is retired.

    Or, on a cluster, all replicas of the part: asked as one process is, and looked after over there. Or what one model
    is in a process that several share.
    """

    def __init__(
        self,
        part: Part,
        changed: Callable[["ModelProcess"], None],
        cluster: Cluster | Shared | None = None,
        size: tuple[int, int] = (1, 1),
    ) -> None:
        """Describe it; `begin` starts it. `changed` is told when it becomes warm, and when it is so no more.

        `size` are the replicas that it may have on a cluster, at least and at most.
        """
        self.part, self._changed, self._cluster, self._size = part, changed, cluster, size
        self.replicas = 1
        """Of a cluster: those that answer."""
        self.model_inputs = Layout.from_pairs(part.inputs)
        self.outputs: Outputs = ()
        self.shown: Outputs = ()
        """The outputs that callers see."""
        self.outputs_raw = msgspec.Raw(b"\x90")
        self.ready = asyncio.Event()
        self.engine = ""
        """What its worker says that it answers by: `native`, `onnx`, or `native (why not otherwise)`."""
        self.problem = ""
        """Why it is not ready; empty while it is or may become so."""
        self.restarts = 0
        self.pid = 0
        self._link: _Link | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: dict[int, tuple[Waiter, float]] = {}
        self._streams: dict[int, tuple[Parts, float]] = {}
        """Of answers that come in parts: who takes them, and how long each may take."""
        self._next = 0
        self._retired = False
        self._delay = _FIRST_DELAY
        self._ready_at = 0.0
        self._heard = 0.0
        self.pace = 0.0
        """Seconds between two answers while requests wait, smoothed."""
        self._last = 0.0
        self._warm_memory = 0
        self._grown = 0
        """Bytes by which a shared process grew when it loaded this model."""
        self._healing: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return len(self._asked)

    @property
    def state(self) -> str:
        """`ready`, `starting` or `failed`."""
        return "ready" if self.ready.is_set() else "failed" if self.problem else "starting"

    @property
    def memory(self) -> int:
        """Bytes in memory; 0 when it died just now."""
        if self._process is None:
            return self._grown if self.ready.is_set() else 0
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    @property
    def grown(self) -> bool:
        """Whether it takes twice the memory that it took when it became warm."""
        return self.memory > 2 * self._warm_memory

    def replace(self) -> None:
        """Kill it; who waits for it is answered by others, and another process takes its place."""
        if self._process is not None:
            self._not_ready()
            self._process.kill()

    def begin(self) -> None:
        """Start a process; `ready` is set once it is warm."""
        if isinstance(self._cluster, Cluster) and self.part.environment:
            self.problem = "a cluster has one environment: that of its nodes"
            return
        if self._cluster is not None:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    self._cluster.take(theirs)
                except (Unavailable, OSError) as error:  # the other end closes: it is lost at once, and made again
                    self.problem = error.message if isinstance(error, Unavailable) else str(error)
        else:
            threads = -(-self.part.needs.get("cores", 1000) // 1000)
            try:
                self._process, ours = spare.taken(threads, self.part.environment)
            except (NotFound, OSError) as error:  # who runs this gateway has to say where it is
                self.problem = f"{error.message} ({error.hint})" if isinstance(error, NotFound) else str(error)
                return
            self.pid = self._process.pid
        self._healing = asyncio.get_running_loop().create_task(self._connect(ours))

    async def _connect(self, ours: socket.socket) -> None:
        """Send the new process its setup."""
        _, link = await asyncio.get_running_loop().create_unix_connection(
            lambda: _Link(self._on_frame, self._on_lost), sock=ours
        )
        self._link = link
        part = self.part
        budget, (least, most) = part.budget_micros / 1e6, self._size
        steps = [Setup(s.folder, s.loader, s.inputs, s.example, sealed=s.sealed) for s in part.steps]
        said = (part.folder, part.loader, part.inputs, part.example)
        setup = Setup(*said, MOST_ROWS, budget, least, most, steps, part.needs, part.sealed)
        link.transport.write(wire.encode(wire.ASK, 0, 0, msgspec.json.encode(setup)))

    def ask(
        self, payload: bytes, rows: int, deadline: float, parts: Parts | None = None
    ) -> "asyncio.Future[wire.Frame]":
        """Send one request; the future ends with the answer, `StepFailed` or `Unavailable`.

        With `parts` a model that yields fills them meanwhile, and each of them may take as long as the first.
        """
        future: asyncio.Future[wire.Frame] = asyncio.get_running_loop().create_future()
        if parts is None:
            self.send(payload, rows, deadline, future)
        elif (identity := self._noted(deadline, future)) and self._link is not None:
            self._stream(identity, parts, future, deadline)
            self._link.send(wire.encode(wire.STREAM, identity, rows, payload))
        return future

    def send(self, payload: bytes, rows: int, deadline: float, waiter: "Waiter") -> None:
        """Send one request; `waiter` is told the answer, `StepFailed` or `Unavailable`, maybe at once."""
        if (identity := self._noted(deadline, waiter)) and self._link is not None:
            self._link.send(wire.encode(wire.ASK, identity, rows, payload))

    def _noted(self, deadline: float, waiter: "Waiter") -> int:
        """The number of a request that `waiter` waits for; 0, and it was told so, when nobody can be asked."""
        if self._link is None or not self.ready.is_set():
            waiter.set_exception(Unavailable(self.problem or LOST, hint="it is being restarted; try again"))
            return 0
        self._next += 1
        if not self._asked:
            self._last = time.monotonic()
        self._asked[self._next] = (waiter, deadline)
        return self._next

    def _stream(self, identity: int, parts: Parts, future: "asyncio.Future[wire.Frame]", deadline: float) -> None:
        self._streams[identity] = (parts, max(deadline - time.monotonic(), 0.0))
        parts.more = lambda count: self._tell(wire.MORE, identity, count)

        def ended(_future: object) -> None:
            self._streams.pop(identity, None)
            if future.cancelled() and self._asked.pop(identity, None) is not None:
                self._tell(wire.FORGET, identity, 0)  # the caller left: the model need not go on

        future.add_done_callback(ended)

    def _tell(self, kind: int, identity: int, count: int, payload: bytes = b"") -> None:
        if self._link is not None:
            self._link.send(wire.encode(kind, identity, count, payload))

    def resize(self, size: tuple[int, int]) -> None:
        """Let a cluster have between so many and so many replicas."""
        if size != self._size:
            self._size = size
            self._tell(wire.SIZE, 0, 0, msgspec.json.encode(size))

    def expire(self, now: float) -> None:
        """Give up on requests past their deadline; a worker that has been silent meanwhile hangs, and is replaced."""
        expired = [identity for identity, (_, deadline) in self._asked.items() if deadline < now]
        held = {identity for identity, (parts, _) in self._streams.items() if parts.held}  # by their callers
        for identity in expired:
            future, _ = self._asked.pop(identity)
            if not future.done():
                future.set_exception(Unavailable("the model did not answer in time", hint="ask for less at once"))
            if self._link is not None:  # nobody waits for it: a worker that has not begun it leaves it
                self._link.send(wire.encode(wire.FORGET, identity, 0, b""))
        silent = now - self._heard > _SILENT_SECONDS
        expired = [identity for identity in expired if identity not in held]
        ends = self._cluster if isinstance(self._cluster, Shared) else self._process
        if expired and silent and ends is not None and self.ready.is_set():
            self._not_ready()
            ends.kill()

    def _not_ready(self) -> None:
        self.ready.clear()
        self._changed(self)

    def _on_frame(self, link: _Link, frame: wire.Frame) -> None:
        self._heard = time.monotonic()
        if frame.kind == wire.HELLO:
            hello = msgspec.json.decode(frame.payload)
            self.outputs = outputs_from(hello["outputs"])
            self.shown = shown(self.outputs)
            self.outputs_raw = msgspec.Raw(msgspec.msgpack.encode(hello["outputs"]))
            self.engine = str(hello.get("engine", ""))
            self._grown = int(hello.get("grown", 0))
            self.problem = ""
            self._ready_at = time.monotonic()
            self._warm_memory = self.memory
            self.ready.set()
            self._changed(self)
        elif frame.kind == wire.UNFIT:
            self.problem = frame.payload.decode(errors="replace")
        elif frame.kind == wire.PART:
            self._on_part(frame)
        elif frame.kind == wire.TOLD:
            self.replicas = frame.rows
        else:
            asked = self._asked.pop(frame.id, None)
            now = self._heard
            self.pace += _PACE_SMOOTHING * (now - self._last - self.pace)
            self._last = now
            if asked is not None and link is self._link:
                tell(asked[0], frame)

    def _on_part(self, frame: wire.Frame) -> None:
        streamed = self._streams.get(frame.id)
        if streamed is not None:
            parts, patience = streamed
            future, _ = self._asked[frame.id]
            self._asked[frame.id] = (future, self._heard + patience)
            parts.put(msgspec.msgpack.decode(frame.payload))

    def _on_lost(self, link: _Link) -> None:
        if link is not self._link:
            return
        self._link = None
        healthy = self.ready.is_set() and time.monotonic() - self._ready_at > _HEALTHY_SECONDS
        self._not_ready()
        if self.part.environment and not self._ready_at and not self.problem:
            self.problem = f"its process ended at once: is Everloop installed in {self.part.environment!r}?"
        asked, self._asked = self._asked, {}
        for future, _ in asked.values():
            if not future.done():
                future.set_exception(Unavailable(LOST, hint="it is being restarted; try again"))
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if not self._retired:
            self._delay = _FIRST_DELAY if healthy else min(self._delay * 2, _MOST_DELAY)
            self._healing = asyncio.get_running_loop().create_task(self._heal())

    async def _heal(self) -> None:
        await asyncio.sleep(self._delay)
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)
        if not self._retired:
            self.restarts += 1
            self.begin()

    async def retire(self, drain_seconds: float) -> None:
        """Let it answer what it was asked, then end it."""
        await self._drained(drain_seconds)
        self._retired = True
        self._end()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, 2)
            except subprocess.TimeoutExpired:
                self._process.kill()

    async def _drained(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._asked and time.monotonic() < end:  # noqa: ASYNC110 - an event on the hot path would cost more
            await asyncio.sleep(0.02)

    def _end(self) -> None:
        self._not_ready()
        if self._healing is not None:
            self._healing.cancel()
        if self._link is not None:
            self._link.transport.close()
        if self._process is not None:
            self._process.terminate()

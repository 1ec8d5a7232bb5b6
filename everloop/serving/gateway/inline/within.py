"""A compiled model inside the gateway, with the face of a crew of workers.

Only compiled models are asked here: loading one runs no code of its author's. Requests of few rows are answered on the
event loop, which costs less than handing them to a thread: all that came in one of its turns together, in the next.
Many rows go to a thread, where the runtime lets go of the interpreter. A worker is the safer place: what ends the
process here ends the gateway.
"""

import asyncio
import time
from collections import deque
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from everloop.core.errors import Unavailable
from everloop.serving import wire
from everloop.serving.columns import Layout, Outputs
from everloop.serving.distributed.linking import Cluster
from everloop.serving.gateway.crew import Crew, Size
from everloop.serving.gateway.starting.shared import Shared
from everloop.serving.gateway.workers import Waiter, tell
from everloop.serving.modelworker import Answerer, warm
from everloop.serving.sealing.files import check
from everloop.serving.table import INLINE, Part

_AT_ONCE = 16
"""Rows of a request that is answered on the event loop; compiled trees take some 2 microseconds a row."""
_TOGETHER = 256
"""Rows from which those that came in one turn are answered in several."""


class Inline:
    """A part that the gateway answers by itself; asked as if it were a crew."""

    engine = ""
    restarts = 0
    working = 0
    memory = 0
    """None of its own: it is within the gateway's."""

    def __init__(self, part: Part, size: Size, awake: set[Any]) -> None:
        """Nothing is loaded yet; `wake` does, and notes it in `awake`."""
        self.part, self.size, self._awake = part, size, awake
        self.model_inputs = Layout.from_pairs(part.inputs)
        self.outputs: Outputs = ()
        self.shown: Outputs = ()
        self.outputs_raw = msgspec.Raw(b"\x90")
        self.ready = asyncio.Event()
        self.asked_at = time.monotonic()
        self.problem = ""
        self.pids: list[int] = []
        self._answerer: Answerer | None = None
        self._queue: deque[tuple[wire.Frame, Waiter]] = deque()
        self._threads: set[asyncio.Task[None]] = set()
        self._loading: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """`ready`, `starting`, `failed` or `asleep`."""
        if self.ready.is_set():
            return "ready"
        return "failed" if self.problem else "asleep" if self._loading is None else "starting"

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return len(self._queue) + len(self._threads)

    def wake(self) -> None:
        """Load the model, in a thread."""
        self.asked_at = time.monotonic()
        self._awake.add(self)
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load())

    async def _load(self) -> None:
        try:
            model, self.outputs = await asyncio.to_thread(self._loaded)
        except Exception as error:  # noqa: BLE001 - the edge of the runtime: whatever it raises is why it does not serve
            self.problem = f"{type(error).__name__}: {error}"[:500]
            return
        self._answerer = Answerer(model, self.model_inputs, self.outputs)
        self.shown, self.engine = self.outputs, f"{model.engine}, in the gateway"
        self.outputs_raw = msgspec.Raw(msgspec.msgpack.encode([output.listed() for output in self.outputs]))
        self.ready.set()

    def _loaded(self) -> tuple[Any, Outputs]:
        # only gateways that answer by themselves load what models are loaded by
        check(self.part.folder, self.part.sealed)
        engine, card = import_module("everloop.models.compiled.loader").chosen(Path(self.part.folder))
        if engine != "onnx":
            raise Unavailable(f"no compiled model to answer here: {engine}")
        model = import_module("everloop.models.compiled.session").load(Path(self.part.folder), card, None)
        return model, warm(model, self.model_inputs, self.part.example)

    async def become_ready(self, seconds: float) -> bool:
        """Wait until it answers, or cannot."""
        end = time.monotonic() + seconds
        while not self.ready.is_set() and not self.problem and time.monotonic() < end:  # noqa: ASYNC110 - two things may end it
            await asyncio.sleep(0.01)
        return self.ready.is_set()

    def ask(self, payload: bytes, rows: int, deadline: float, parts: Any = None) -> "asyncio.Future[wire.Frame]":  # noqa: ARG002 - a crew's shape
        """Answer in the loop's next turn, or from a thread; the future ends with the answer or `StepFailed`."""
        future: asyncio.Future[wire.Frame] = asyncio.get_running_loop().create_future()
        self.send(payload, rows, deadline, future)
        return future

    def send(self, payload: bytes, rows: int, deadline: float, waiter: Waiter) -> None:  # noqa: ARG002 - a crew's shape
        """As `ask`; `waiter` is told instead."""
        self.asked_at = time.monotonic()
        frame = wire.Frame(wire.ASK, 0, rows, payload)
        if self._answerer is None:
            waiter.set_exception(Unavailable("the model is not loaded", hint="try again"))
        elif rows > _AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._in_thread(self._answerer, frame, waiter))
            self._threads.add(task)
            task.add_done_callback(self._threads.discard)
        else:
            if not self._queue:
                asyncio.get_running_loop().call_soon(self._answer, self._answerer)
            self._queue.append((frame, waiter))

    @staticmethod
    async def _in_thread(answerer: Answerer, frame: wire.Frame, waiter: Waiter) -> None:
        (reply,) = await asyncio.to_thread(answerer.answer, [frame])
        tell(waiter, reply)

    def _answer(self, answerer: Answerer) -> None:
        """Answer what came in the turn before; of very much the first of it, and the rest in the next turn."""
        batch, rows = [], 0
        while self._queue and rows < _TOGETHER:
            batch.append(self._queue.popleft())
            rows += batch[-1][0].rows
        if self._queue:
            asyncio.get_running_loop().call_soon(self._answer, answerer)
        for (_, waiter), reply in zip(batch, answerer.answer([frame for frame, _ in batch]), strict=True):
            tell(waiter, reply)

    def tend(self, now: float) -> None:
        """Nothing to look after."""

    async def sleep(self) -> None:
        """Let go of the model."""
        self.ready.clear()
        self._answerer, self._loading = None, None

    async def retire(self) -> None:
        """End for good."""
        await self.sleep()


def crew_for(part: Part, size: Size, awake: set[Any], cluster: Cluster | Shared | None = None) -> Any:
    """Who answers for a part: the gateway itself where the table says so and it can, else workers, here or there."""
    if part.loader == INLINE and find_spec("onnxruntime") is not None:
        return Inline(part, size, awake)
    return Crew(part, size, awake, cluster)

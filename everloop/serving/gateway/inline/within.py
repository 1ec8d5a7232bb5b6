"""A compiled model inside the gateway, with the face of a crew of workers.

Only compiled models are asked here: loading one runs no code of its author's. A few rows are answered at once, on the
event loop, which costs less than handing them to a thread; many rows go to a thread, where the runtime lets go of the
interpreter. A worker is the safer place: what ends the process here ends the gateway.
"""

import asyncio
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from everloop.core.errors import EverloopError, StepFailed, Unavailable
from everloop.serving import wire
from everloop.serving.columns import Layout, Outputs, pack_answer
from everloop.serving.gateway.crew import Crew, Size
from everloop.serving.modelworker import named, warm
from everloop.serving.table import INLINE, Part

_AT_ONCE = 16
"""Rows that are answered on the event loop; compiled trees take some 2 microseconds a row."""


class Inline:
    """A part that the gateway answers by itself; asked as if it were a crew."""

    engine = ""
    restarts = 0
    memory = 0
    """None of its own: it is within the gateway's."""

    def __init__(self, part: Part, size: Size) -> None:
        """Nothing is loaded yet; `wake` does."""
        self.part, self.size = part, size
        self.model_inputs = Layout.from_pairs(part.inputs)
        self.outputs: Outputs = ()
        self.shown: Outputs = ()
        self.outputs_raw = msgspec.Raw(b"\x90")
        self.ready = asyncio.Event()
        self.asked_at = time.monotonic()
        self.problem = ""
        self.waiting = 0
        self.pids: list[int] = []
        self._model: Any = None
        self._loading: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """`ready`, `starting`, `failed` or `asleep`."""
        if self.ready.is_set():
            return "ready"
        return "failed" if self.problem else "asleep" if self._loading is None else "starting"

    def wake(self) -> None:
        """Load the model, in a thread."""
        self.asked_at = time.monotonic()
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load())

    async def _load(self) -> None:
        try:
            self._model, self.outputs = await asyncio.to_thread(self._loaded)
        except Exception as error:  # noqa: BLE001 - the edge of the runtime: whatever it raises is why it does not serve
            self.problem = f"{type(error).__name__}: {error}"[:500]
            return
        self.shown, self.engine = self.outputs, f"{self._model.engine}, in the gateway"
        self.outputs_raw = msgspec.Raw(msgspec.msgpack.encode([output.listed() for output in self.outputs]))
        self.ready.set()

    def _loaded(self) -> tuple[Any, Outputs]:
        # only gateways that answer by themselves load what models are loaded by
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
        """Answer now, or from a thread when there are many rows; the future ends with the answer or `StepFailed`."""
        loop = asyncio.get_running_loop()
        self.asked_at = time.monotonic()
        if rows > _AT_ONCE:
            return loop.create_task(self._in_thread(payload, rows))
        future: asyncio.Future[wire.Frame] = loop.create_future()
        try:
            future.set_result(self._answer(payload, rows))
        except EverloopError as error:
            future.set_exception(error)
        return future

    async def _in_thread(self, payload: bytes, rows: int) -> wire.Frame:
        self.waiting += 1
        try:
            return await asyncio.to_thread(self._answer, payload, rows)
        finally:
            self.waiting -= 1

    def _answer(self, payload: bytes, rows: int) -> wire.Frame:
        try:
            answer = named(self._model.predict(self.model_inputs.unpack(payload, rows)), rows)
            packed = pack_answer(self.outputs, {name: np.asarray(values) for name, values in answer.items()})
        except Exception as error:  # noqa: BLE001 - the edge of a model: whatever it raises is its answer
            raise StepFailed(f"the model failed: {type(error).__name__}: {error}"[:500]) from None
        return wire.Frame(wire.ANSWER, 0, rows, packed)

    def tend(self, now: float) -> None:
        """Nothing to look after."""

    async def sleep(self) -> None:
        """Let go of the model."""
        self.ready.clear()
        self._model, self._loading = None, None

    async def retire(self) -> None:
        """End for good."""
        await self.sleep()


def crew_for(part: Part, size: Size, awake: set[Any]) -> Any:
    """Who answers for a part: the gateway itself where the table says so and it can, else worker processes."""
    if part.loader == INLINE and find_spec("onnxruntime") is not None:
        return Inline(part, size)
    return Crew(part, size, awake)

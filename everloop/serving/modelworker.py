"""A model worker: one process, one model revision, one connection to its gateway.

It loads a folder, warms up on the signature's example, then predicts whatever waits on the socket as
one batch ("natural" micro-batching: no timer; what queued while it was busy is the next batch). A batch
that fails is repeated request by request, so that one poisoned request fails alone.

    python -m everloop.serving.modelworker --fd 5
"""

import argparse
import gc
import importlib
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec
import numpy as np

from everloop.core.errors import DataError
from everloop.flows.executors.parent import die_with_parent
from everloop.serving import wire
from everloop.serving.columns import Columns, Layout, Outputs, describe, pack_answer, width_of
from everloop.serving.fusing.derived import PREFIX
from everloop.serving.sealing.files import check
from everloop.serving.sharing.threads import loaded_alone, serve_many
from everloop.serving.streaming.working import Streams, said

_CHUNK = 1 << 20
_WARM_CALLS = 3
MOST_ROWS = 2048
"""Of a batch of several requests. What a call of a model costs whatever its rows (half a millisecond of gradient
boosting) is then little beside them; how long a batch may take is learned (`Pace`)."""
_UNKNOWN_ROWS = 512
"""Before anything is learned."""
_STEPS = "everloop.serving.fusing.steps"
Array = np.ndarray[Any, Any]


class Predictor(Protocol):
    """What a loader returns."""

    def predict(self, columns: Columns) -> Any:
        """An array with one entry a row, or a map of names to such arrays."""
        ...


class Setup(msgspec.Struct, frozen=True):
    """The first frame that a gateway sends."""

    folder: str
    loader: str
    inputs: list[list[str]]
    example: dict[str, list[Any]]
    max_rows: int = MOST_ROWS
    budget_seconds: float = 0.05
    """How long a batch of several requests may take, as far as past ones tell."""
    least: int = 1
    """On a cluster: replicas between which Ray Serve chooses by the load."""
    most: int = 1
    steps: list["Setup"] = []
    """Of fused steps: each as if it were alone, the model last; `inputs` are of all."""
    needs: dict[str, int] = {}
    """On a cluster: thousandths of `cores` and `gpus`, bytes of `memory`, that each replica reserves."""
    sealed: str = ""
    """The digest of the folder's files; empty: any."""


def loaded(setup: Setup) -> tuple[Predictor, Layout, Outputs]:
    """Load a model and warm it up: the predictor, its inputs, its outputs. Raises whatever the model raises.

    Raises `CorruptObject` when its files are not those that were signed.
    """
    if setup.steps:
        fused: tuple[Predictor, Layout, Outputs] = importlib.import_module(_STEPS).loaded(setup)
        return fused
    check(setup.folder, setup.sealed)
    layout = Layout.from_pairs(setup.inputs)
    module, _, name = setup.loader.partition(":")
    predictor: Predictor = getattr(importlib.import_module(module), name)(setup.folder)
    if hasattr(predictor, "budget"):
        predictor.budget = setup.budget_seconds
    return predictor, layout, warm(predictor, layout, setup.example)


def named(answer: Any, rows: int) -> dict[str, Array]:
    """The outputs of an answer by name; raises `DataError` when it does not have one entry a row."""
    outputs = answer if isinstance(answer, Mapping) else {"prediction": answer}
    arrays = {str(name): np.asarray(values) for name, values in outputs.items()}
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != rows:
            raise DataError(f"output {name!r} has shape {list(array.shape)} for {rows} rows")
    return arrays


def made_up(layout: Layout) -> Columns:
    """One row of zeros and empty texts, for a model without an example."""
    return {c.name: [""] if c.datatype == "BYTES" else [0] for c in layout.columns}


def warm(predictor: Predictor, layout: Layout, example: Columns) -> Outputs:
    """Predict for the example a few times; returns the outputs, raises `DataError` for a senseless answer."""
    columns = example or made_up(layout)
    rows = len(columns[layout.names[0]]) if layout.names else 1
    payload = layout.pack(columns, rows)
    for _ in range(_WARM_CALLS):
        answer = named(predictor.predict(layout.unpack(payload, rows)), rows)
    for name, array in answer.items():
        if array.dtype.kind == "f" and not name.startswith(PREFIX) and not np.isfinite(array).all():
            raise DataError(f"the example's {name!r} is not finite")
    return describe(answer)


class Answerer:
    """Answers frames with a predictor."""

    def __init__(self, predictor: Predictor, layout: Layout, outputs: Outputs) -> None:
        """Answer with exactly these outputs."""
        self._predictor, self._layout, self._outputs = predictor, layout, outputs
        self._shapes = {output.name: output.tail for output in outputs}
        self._row_bytes = width_of(outputs[0]) if len(outputs) == 1 else 0

    def answer(self, frames: list[wire.Frame]) -> list[wire.Frame]:
        """The reply to each frame, in order."""
        try:
            return self._together(frames)
        except Exception as error:  # noqa: BLE001 - the edge of a user's model: whatever it raises is its answer
            if len(frames) == 1:
                took = np.array(getattr(self._predictor, "took", ()), "<i4")
                return [wire.Frame(wire.FAILED, frames[0].id, len(took), took.tobytes() + said(error))]
        return [reply for frame in frames for reply in self.answer([frame])]

    def _together(self, frames: list[wire.Frame]) -> list[wire.Frame]:
        rows = sum(frame.rows for frame in frames)
        columns = self._layout.unpack_batch([(frame.payload, frame.rows) for frame in frames])
        answer = named(self._predictor.predict(columns), rows)
        if {name: array.shape[1:] for name, array in answer.items()} != self._shapes:
            raise DataError("the outputs differ in name or shape from those of the example")
        if len(frames) == 1:
            return [wire.Frame(wire.ANSWER, frames[0].id, rows, pack_answer(self._outputs, answer))]
        replies, start = [], 0
        if width := self._row_bytes:  # one output of numbers: its bytes are cut, not its array
            packed = pack_answer(self._outputs, answer)
            for frame in frames:
                end = start + frame.rows * width
                replies.append(wire.Frame(wire.ANSWER, frame.id, frame.rows, packed[start:end]))
                start = end
            return replies
        for frame in frames:
            part = {name: array[start : start + frame.rows] for name, array in answer.items()}
            replies.append(wire.Frame(wire.ANSWER, frame.id, frame.rows, pack_answer(self._outputs, part)))
            start += frame.rows
        return replies


class Pace:
    """Learns what a batch costs, a + b * rows seconds, and how many rows fit into a budget.

    Least squares over past batches, of which older ones count less and less.
    """

    def __init__(self, most: int, budget: float) -> None:
        """At most `most` rows, whatever they cost."""
        self._most, self._budget = most, budget
        self._sums = [0.0] * 5  # of 1, rows, rows squared, seconds, rows times seconds
        self.limit = min(most, _UNKNOWN_ROWS)

    def learn(self, rows: int, seconds: float) -> None:
        """Take note of one batch."""
        news = (1.0, rows, rows * rows, seconds, rows * seconds)
        self._sums = [_KEPT * old + new for old, new in zip(self._sums, news, strict=True)]
        n, x, xx, y, xy = self._sums
        spread = n * xx - x * x
        slope = (n * xy - x * y) / spread if spread > _LEVEL * xx * n else y / x
        fixed = max((y - slope * x) / n, 0.0)
        fits = (self._budget - fixed) / slope if slope > 0 else self._most
        self.limit = int(min(max(fits, 1), self._most))


_KEPT = 0.97
_LEVEL = 1e-3
"""Share of the spread below which all batches were of one size, and nothing tells the slope apart."""


def serve(connection: socket.socket, *, warmed: Callable[[], None] | None = None) -> int:
    """Serve one gateway until it hangs up; returns the exit status. `warmed` is called once, before the first answer.

    A worker's own process freezes what it has by then: the collector's one walk through a library takes 60 ms and more,
    in which a question would wait. Where models come and go, nothing can be frozen.
    """
    reader = wire.Reader()
    waiting: deque[wire.Frame] = deque()
    while not waiting:
        if not _receive(connection, reader, waiting, wait=True):
            return 0
    setup = msgspec.json.decode(waiting.popleft().payload, type=Setup)
    started = time.monotonic()
    try:
        (predictor, layout, outputs), grown = loaded_alone(lambda: loaded(setup))
    except Exception as error:  # noqa: BLE001 - the edge of a user's model: the gateway is told why
        connection.sendall(wire.encode(wire.UNFIT, 0, 0, said(error)))
        return 1
    hello = {
        "outputs": [o.listed() for o in outputs],
        "pid": os.getpid(),
        "seconds": time.monotonic() - started,
        "engine": getattr(predictor, "engine", ""),
        "grown": grown,
    }
    if warmed is not None:
        warmed()
    connection.sendall(wire.encode(wire.HELLO, 0, 0, msgspec.json.encode(hello)))
    answerer = Answerer(predictor, layout, outputs)
    streams = Streams(predictor, layout, outputs)
    pace = Pace(setup.max_rows, setup.budget_seconds)
    while True:
        if not waiting and not streams.able and not _receive(connection, reader, waiting, wait=True):
            return 0
        while len(waiting) < setup.max_rows and _receive(connection, reader, waiting, wait=False):
            pass
        streams.take(waiting)  # which leaves what is asked as a whole
        if parts := b"".join(streams.step()):
            connection.sendall(parts)
        if waiting:
            batch = _batch(waiting, pace.limit)
            began = time.monotonic()
            answers = wire.joined(answerer.answer(batch))
            pace.learn(sum(frame.rows for frame in batch), time.monotonic() - began)
            connection.sendall(answers)


def _receive(connection: socket.socket, reader: wire.Reader, waiting: deque[wire.Frame], *, wait: bool) -> bool:
    """Take what has arrived; False when nothing did (without waiting) or the gateway hung up (waiting)."""
    try:
        content = connection.recv(_CHUNK, 0 if wait else socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    for frame in reader.feed(content):
        if frame.kind == wire.SIZE:
            continue  # for a bridge: here is one
        if frame.kind == wire.FORGET:
            left = [other for other in waiting if other.id != frame.id]
            waiting.clear()
            waiting.extend(left)
        waiting.append(frame)
    return bool(content)


def _batch(waiting: deque[wire.Frame], max_rows: int) -> list[wire.Frame]:
    """The next frames together, up to `max_rows` rows; one larger request goes alone."""
    batch = [waiting.popleft()]
    rows = batch[0].rows
    while waiting and rows + waiting[0].rows <= max_rows:
        rows += waiting[0].rows
        batch.append(waiting.popleft())
    return batch


def _import(modules: Sequence[str]) -> None:
    """Import what is there; the collector would only walk again and again through what stays."""
    gc.disable()
    for module in modules:
        with suppress(ImportError):  # whoever needs it will say so
            importlib.import_module(module)
    gc.enable()


def main() -> int:
    """Serve the connection that the gateway handed over."""
    parser = argparse.ArgumentParser(prog="everloop.serving.modelworker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--many", action="store_true", help="serve each connection that comes on it")
    parser.add_argument("ahead", nargs="*", help="modules to import before it is told what to load")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)  # even in the middle of a prediction that never returns
    with socket.socket(fileno=arguments.fd) as connection:
        try:
            _import(arguments.ahead)
            return serve_many(connection, serve) if arguments.many else serve(connection, warmed=gc.freeze)
        except (BrokenPipeError, ConnectionResetError):
            return 0


if __name__ == "__main__":
    sys.exit(main())

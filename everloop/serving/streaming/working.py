"""Answers in parts, inside a model worker: generators of a model, each advanced by one part in turn.

Between two parts the worker takes what has arrived, so that a long answer holds up neither other streams nor batches. A
stream waits when its reader took nothing (`MORE`), and ends when nobody reads it any more (`FORGET`).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from everloop.models.signature import whole
from everloop.serving import wire
from everloop.serving.columns import Columns, Layout, Outputs, pack_answer

WINDOW = 16
"""Parts that are sent before the reader says that it took some."""


@dataclass(slots=True)
class _Stream:
    parts: Iterator[Any]
    left: int = WINDOW
    sent: list[Any] = field(default_factory=list)


class Streams:
    """The streams of one worker."""

    def __init__(self, predictor: Any, layout: Layout, outputs: Outputs) -> None:
        """Stream what `predictor.parts` yields, if it yields; every other model is asked as a whole."""
        self._parts = predictor.parts if getattr(predictor, "streams", False) else None
        self._layout, self._outputs = layout, outputs
        self._open: dict[int, _Stream] = {}

    @property
    def able(self) -> bool:
        """Whether one may send its next part now."""
        return any(stream.left for stream in self._open.values())

    def take(self, waiting: deque[wire.Frame]) -> None:
        """Take frames about streams out of what arrived."""
        for _ in range(len(waiting)):
            frame = waiting.popleft()
            if frame.kind == wire.STREAM and self._parts is not None:
                columns = self._layout.unpack(frame.payload, frame.rows)
                self._open[frame.id] = _Stream(_begun(self._parts, columns))
            elif frame.kind == wire.MORE:
                if frame.id in self._open:
                    self._open[frame.id].left += frame.rows
            elif frame.kind == wire.FORGET:
                self._end(frame.id)
            else:
                waiting.append(frame)

    def step(self) -> Iterable[bytes]:
        """One part of each stream that may send; the whole answer of one that is done."""
        for identity, stream in list(self._open.items()):
            if not stream.left:
                continue
            try:
                part = next(stream.parts)
                content = msgspec.msgpack.encode(part.item() if isinstance(part, np.generic) else part)
            except StopIteration:
                del self._open[identity]
                yield self._answer(identity, stream.sent)
            except Exception as error:  # noqa: BLE001 - the edge of a user's model: whatever it raises is its answer
                self._end(identity)
                yield wire.encode(wire.FAILED, identity, 0, said(error))
            else:
                stream.left -= 1
                stream.sent.append(part)
                yield wire.encode(wire.PART, identity, 1, content)

    def _answer(self, identity: int, parts: list[Any]) -> bytes:
        name = self._outputs[0].name
        values = np.empty(1, object)
        values[0] = whole(parts)
        answer = {name: values if self._outputs[0].datatype == "BYTES" else np.array(values.tolist())}
        return wire.encode(wire.ANSWER, identity, 1, pack_answer(self._outputs, answer))

    def _end(self, identity: int) -> None:
        stream = self._open.pop(identity, None)
        if stream is not None:
            stream.parts.close()  # type: ignore[attr-defined]  # it is a generator of ours


def _begun(parts: Any, columns: Columns) -> Iterator[Any]:
    """As a generator of ours, so that what the model raises when it is called comes with its first part."""
    yield from parts(columns)


def said(error: Exception) -> bytes:
    """An error of a model, as its caller reads it."""
    return f"{type(error).__name__}: {error}"[:500].encode(errors="replace")

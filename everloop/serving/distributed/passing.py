"""Frames between one connection of a gateway and the replicas that answer its part.

A lone request is a call of its own at once. While as many calls are under way as all replicas may need, what comes
waits, and travels as one call. A call whose replica died is made again: what was asked changes nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException, RequestCancelledError

from everloop.serving import wire
from everloop.serving.modelworker import Setup
from everloop.serving.streaming.working import WINDOW, said

_CALLS_EACH = 2
"""Calls under way for each replica that there may be: one works, one waits."""
_PAUSES = (0.05, 0.3, 1.0)
"""Seconds before each repetition of a call whose replica died."""


@dataclass(slots=True, eq=False)
class _Call:
    frames: dict[int, wire.Frame]
    response: Any = None


@dataclass(slots=True, eq=False)
class _Stream:
    credit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WINDOW))
    response: Any = None


class Link(asyncio.Protocol):
    """One part's connection."""

    def __init__(self) -> None:
        """Nothing is passed on before `begin`."""
        loop = asyncio.get_running_loop()
        self._reader = wire.Reader()
        self._setup: asyncio.Future[wire.Frame] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the gateway hung up."""
        self._transport: Any = None
        self._handle: Any = None
        self._resize: Any = None
        self._rows = self._calls_most = 1
        self._waiting: deque[wire.Frame] = deque()
        self._calls: set[_Call] = set()
        self._streams: dict[int, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = -1

    def connection_made(self, transport: Any) -> None:
        """Remember where answers go."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End what nobody waits for."""
        if not self._setup.done():
            self._setup.set_exception(ConnectionResetError())
        for task in self._tasks:
            task.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    async def first(self) -> wire.Frame:
        """The frame with the setup; raises `ConnectionResetError` when the gateway hung up."""
        return await self._setup

    def begin(
        self,
        handle: Any,
        setup: Setup,
        hello: bytes,
        resize: Callable[[tuple[int, int]], Coroutine[Any, Any, None]],
    ) -> None:
        """Say that the part is warm, and pass on from now."""
        self._handle, self._resize = handle, resize
        self._rows, self._calls_most = setup.max_rows, _CALLS_EACH * setup.most
        self._transport.write(wire.encode(wire.HELLO, 0, 0, hello))

    def tell(self, replicas: int) -> None:
        """Say how many replicas answer, when it changed."""
        if replicas != self._told:
            self._told = replicas
            self._transport.write(wire.encode(wire.TOLD, 0, replicas, b""))

    def data_received(self, data: bytes) -> None:
        """Take frames from the gateway."""
        for frame in self._reader.feed(data):
            if not self._setup.done():
                self._setup.set_result(frame)
            elif frame.kind == wire.ASK:
                self._waiting.append(frame)
            elif frame.kind == wire.STREAM:
                self._streams[frame.id] = _Stream()
                self._start(self._streamed(frame))
            elif frame.kind == wire.FORGET:
                self._forget(frame.id)
            elif frame.kind == wire.MORE and frame.id in self._streams:
                for _ in range(frame.rows):
                    self._streams[frame.id].credit.release()
            elif frame.kind == wire.SIZE and self._resize is not None:
                least, most = msgspec.json.decode(frame.payload)
                self._calls_most = _CALLS_EACH * most
                self._start(self._resize((least, most)))
        self._pump()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _pump(self) -> None:
        while self._waiting and len(self._calls) < self._calls_most:
            frames = {self._waiting[0].id: self._waiting.popleft()}
            rows = next(iter(frames.values())).rows
            if len(self._calls) + 1 == self._calls_most:  # the last that may go now takes along what waits
                while self._waiting and rows + self._waiting[0].rows <= self._rows:
                    frame = self._waiting.popleft()
                    frames[frame.id] = frame
                    rows += frame.rows
            call = _Call(frames)
            self._calls.add(call)
            self._start(self._called(call))

    def _forget(self, identity: int) -> None:
        self._waiting = deque(frame for frame in self._waiting if frame.id != identity)
        if (stream := self._streams.get(identity)) is not None and stream.response is not None:
            stream.response.cancel()
        for call in self._calls:
            if call.frames.pop(identity, None) is not None and not call.frames and call.response is not None:
                call.response.cancel()

    async def _called(self, call: _Call) -> None:
        try:
            replies = await self._replies(call)
            if replies:
                self._transport.write(replies)
        finally:
            self._calls.discard(call)
            self._pump()

    async def _replies(self, call: _Call) -> bytes:
        """What replicas answered; of several frames each is asked alone when theirs died, so that one spares others."""
        for pause in (*_PAUSES, None):
            try:
                return await self._asked(call)
            except RequestCancelledError:
                return b""
            except (RayError, RayServeException) as error:
                if pause is None and isinstance(error, RayTaskError):
                    return _each(call, wire.FAILED, said(error))
            if len(call.frames) > 1:
                alone = [_Call({frame.id: frame}) for frame in call.frames.values()]
                self._calls.update(alone)
                for one in alone:
                    self._start(self._called(one))
                return b""
            if pause is not None:
                await asyncio.sleep(pause)
        return _each(call, wire.GONE, b"")

    async def _asked(self, call: _Call) -> bytes:
        if not call.frames:
            return b""
        call.response = self._handle.ask.remote(wire.joined(call.frames.values()))
        replies: bytes = await call.response
        return replies

    async def _streamed(self, frame: wire.Frame) -> None:
        stream = self._streams[frame.id]
        try:
            stream.response = self._handle.options(stream=True).parts.remote(wire.joined([frame]))
            async for reply in stream.response:
                if wire.kind_of(reply) == wire.PART:
                    await stream.credit.acquire()
                self._transport.write(reply)
        except RequestCancelledError:
            pass
        except RayTaskError as error:
            self._transport.write(wire.encode(wire.FAILED, frame.id, 0, said(error)))
        except (RayError, RayServeException):
            self._transport.write(wire.encode(wire.GONE, frame.id, 0, b""))
        finally:
            self._streams.pop(frame.id, None)


def _each(call: _Call, kind: int, text: bytes) -> bytes:
    return b"".join(wire.encode(kind, identity, 0, text) for identity in call.frames)

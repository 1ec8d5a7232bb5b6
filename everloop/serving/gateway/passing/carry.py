"""Moving the bytes of large files between a caller's connection and a file of this machine, in threads.

The server decides (`hand`); the bytes pass once, here: uploads are hashed while they are written, downloads while they
are read, and the last piece of one is sent only when the digest is right. What cannot go this way (chunked bodies,
small ones, more transfers at once than there are threads) streams through the server as everything else does.

While a thread has the connection, uvicorn's parser sees nothing of it; so the connection closes after the answer.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

from blake3 import blake3
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from everloop.core.errors import CorruptObject, NotFound, StorageFull
from everloop.core.ids import PREFIX
from everloop.serving.gateway.faults import told
from everloop.serving.gateway.passing import hand
from everloop.serving.gateway.passing.relay import Headers, Links, Receive, Scope, Send, relay

_AT_ONCE = 8
_DOWN_AT_ONCE = 64
"""Uploads and downloads that are carried at a time; more uploads stream through the server, more downloads wait."""
_PIECE = 1 << 20
_LOW = 256 * 1024
"""Bytes that must have come before a thread wakes up for them."""
_SILENCE = 60.0
"""Seconds after which a caller who neither sends nor reads is given up."""
_MOMENT = 0.001


class _CallerGone(ConnectionError):
    """The caller hung up, or did nothing for too long."""


@dataclass
class _Answer:
    """What the server said, with its small body."""

    status: int = 502
    headers: Headers = field(default_factory=list)
    body: bytes = b""


@dataclass(frozen=True)
class _Call:
    """A request, the way to the server and the connection that it came by."""

    links: Links
    scope: Scope
    receive: Receive
    send: Send
    stopping: asyncio.Event
    wire: asyncio.Transport


class Carrier:
    """Passes requests to the server, and carries the bytes of large files itself."""

    def __init__(self, server: str, secret: str) -> None:
        """The server listens at the UNIX socket `server`. `secret` as in `hand`; without one everything is passed."""
        self._links = Links(server)
        self._secret = secret.encode()
        self._wires: dict[tuple[str, int], asyncio.Transport] = {}
        self._drinks = ThreadPoolExecutor(_AT_ONCE, "carry-up")
        self._pours = ThreadPoolExecutor(_DOWN_AT_ONCE, "carry-down")
        self._busy = 0

    def protocol(self) -> type[HttpToolsProtocol]:
        """The protocol of uvicorn, which tells us of its connections."""
        wires = self._wires

        class Wired(HttpToolsProtocol):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                if (address := _address(transport)) is not None:
                    wires[address] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client is not None and wires.get(self.client) is self.transport:
                    del wires[self.client]
                super().connection_lost(exc)

        return Wired

    def close(self) -> None:
        """Let go of the threads; those that are at work end with their connection."""
        for pool in (self._drinks, self._pours):
            pool.shutdown(wait=False, cancel_futures=True)

    async def carry(self, scope: Scope, receive: Receive, send: Send, stopping: asyncio.Event) -> None:
        """Answer one request; raises `Unavailable`, `StorageFull` and `NotFound` before anything was answered."""
        wire = self._wires.get(scope["client"]) if self._secret and scope["client"] else None
        links = self._links
        if wire is not None and scope["method"] == "GET":
            await self._fetched(_Call(links, scope, receive, send, stopping, wire))
            return
        if wire is not None and self._busy < _AT_ONCE and (size := _size_of_upload(scope)) >= hand.LEAST:
            self._busy += 1  # before anything else may run: one too many would wait for callers who may be silent
            try:
                if await self._taken(_Call(links, scope, receive, send, stopping, wire), size):
                    return
            finally:
                self._busy -= 1
        await relay(links, scope, receive, send, stopping)

    async def _fetched(self, call: _Call) -> None:
        """Pass a GET; when the server names a file instead of its bytes, send that."""
        held: list[tuple[Any, hand.Sending]] = []

        async def watch(message: Any) -> None:
            if message["type"] == "http.response.start":
                order = hand.of_answer(message["headers"])
                if isinstance(order, hand.Sending):
                    held.append((message, order))
            if not held:
                await call.send(message)

        asked: Headers = [(hand.ASKED, self._secret)]
        await relay(call.links, call.scope, call.receive, watch, call.stopping, more=asked)
        for start, order in held:
            try:
                file = FileIO(order.path)
            except FileNotFoundError:
                raise NotFound("the file was removed just now", hint="ask again") from None
            headers = _closing(start["headers"], order.stop - order.start)
            await call.send({**start, "headers": headers})
            await self._thread(self._pours, call.wire, partial(_pour, file, order))
            await _hang_up(call)

    async def _taken(self, call: _Call, size: int) -> bool:
        """Write an upload to the file that the server names; False if it names none: nothing was read then."""
        secret = (hand.ASKED, self._secret)
        order = hand.of_answer((await _asked(call, [secret, (hand.SIZE, b"%d" % size)])).headers)
        if not isinstance(order, hand.Receiving):
            return False
        try:
            message = await call.receive()
            call.wire.pause_reading()  # before anything else may run: what comes now stays in the kernel
            work = partial(_drink, Path(order.path), message.get("body", b""), size)
            identity = await self._thread(self._drinks, call.wire, work)
            if not identity:
                await _hang_up(call)
                return True
            done = hand.told(hand.Received(order.path.rpartition("/")[2], identity, size))
            answer = await _asked(call, [secret, (hand.DONE, done)])
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(order.path)  # noqa: PTH108 - one system call
        headers = _closing(answer.headers, len(answer.body))
        await call.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await call.send({"type": "http.response.body", "body": answer.body})
        return True

    async def _thread(
        self, pool: ThreadPoolExecutor, wire: asyncio.Transport, work: Callable[[socket.socket], str]
    ) -> str:
        """Do some work with a connection in a thread; empty when the caller went away meanwhile."""
        while wire.get_write_buffer_size():  # the answer's head
            if wire.is_closing():
                return ""
            await asyncio.sleep(_MOMENT)
        if wire.is_closing():
            return ""
        own = socket.socket(fileno=os.dup(wire.get_extra_info("socket").fileno()))
        own.settimeout(_SILENCE)
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, own)
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)  # the thread ends with it
            raise
        except (ConnectionError, TimeoutError):
            return ""
        except CorruptObject as error:
            told("a download was cut off", error)
            return ""


def _address(transport: asyncio.Transport) -> tuple[str, int] | None:
    """The caller's address as a scope tells it; None for connections that are not plain TCP."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple) or len(peer) < 2 or transport.get_extra_info("sslcontext") is not None:
        return None
    return (str(peer[0]), int(peer[1]))


def _size_of_upload(scope: Scope) -> int:
    """The bytes of an upload that says how many they are; 0 for any other request."""
    if scope["method"] != "PUT" or hand.UPLOADS.fullmatch(scope["path"]) is None:
        return 0
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    if (
        len(lengths) != 1
        or not lengths[0].isdigit()
        or any(name == b"content-encoding" for name, _ in scope["headers"])
    ):
        return 0
    return int(lengths[0])


def _closing(headers: Headers, length: int) -> Headers:
    """The headers of an answer with another length, after which the connection closes."""
    replaced = (hand.ASKED, b"content-length", b"connection")
    kept = [(name, value) for name, value in headers if name not in replaced]
    return [*kept, (b"content-length", b"%d" % length), (b"connection", b"close")]


async def _asked(call: _Call, more: Headers) -> _Answer:
    """What the server says to a POST to the same path by the same caller, without a body."""
    scope, answer, never = call.scope, _Answer(), asyncio.Event()
    kept = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    waiting: list[Any] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if not waiting:
            await never.wait()
        return waiting.pop()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], message["headers"]
        else:
            answer.body += message.get("body", b"")

    asked = {**scope, "method": "POST", "headers": [*kept, (b"content-length", b"0")]}
    await relay(call.links, asked, receive, send, never, more=more)
    return answer


async def _hang_up(call: _Call) -> None:
    """Close the connection, and wait until uvicorn knows."""
    call.wire.close()
    while (await call.receive())["type"] != "http.disconnect":
        pass


def _pour(file: FileIO, order: hand.Sending, own: socket.socket) -> str:
    """Send a part of a file; raises `CorruptObject` before the last piece when the bytes are not those of the id."""
    with own, file:
        if not order.object:
            own.sendfile(file, order.start, order.stop - order.start)
            return "sent"
        hasher, view, place = blake3(), memoryview(bytearray(_PIECE)), 0
        while place < order.stop:
            count = file.readinto(view[: min(_PIECE, order.stop - place)])
            hasher.update(view[:count])
            place += count
            if not count or (place == order.stop and PREFIX + hasher.hexdigest() != order.object):
                raise CorruptObject(f"object {order.object} is damaged", object=order.object)
            waiting = view[:count]
            while waiting:
                waiting = waiting[own.send(waiting) :]
    return "sent"


def _drink(path: Path, first: bytes, size: int, own: socket.socket) -> str:
    """Write what comes to a file and return its id; raises `StorageFull` when all came and could not be written."""
    hasher, view, left = blake3(), memoryview(bytearray(_PIECE)), size
    full: OSError | None = None
    with own, path.open("wb", buffering=0) as file:
        piece = memoryview(first[:size])
        while True:
            left -= len(piece)
            hasher.update(piece)
            try:
                while piece and full is None:
                    piece = piece[file.write(piece) :]
            except OSError as error:
                full = error  # a caller who still sends would not hear us: take the rest, then say so
            if not left:
                break
            piece = view[: min(left, _PIECE)]
            _fill(own, piece, left)
    if full is not None:
        raise StorageFull(f"the upload cannot be stored: {full.strerror}", hint="free some space") from full
    return PREFIX + hasher.hexdigest()


def _fill(own: socket.socket, piece: memoryview, left: int) -> None:
    """Read bytes until the piece is full, of `left` that the caller still sends; raises `_CallerGone`."""
    held = 0
    with contextlib.suppress(OSError):  # not every system has it; then each packet wakes us
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _LOW if left >= len(piece) + _LOW else 1)
    while held < len(piece):
        count = own.recv_into(piece[held:])
        if not count:
            raise _CallerGone
        held += count

"""Connections that begin with HTTP/2's preface go to the gRPC server, all others stay with uvicorn: one port for both.

The gRPC server listens at a UNIX socket in a private folder and starts with the first such connection. Bytes are passed
on as they come, in both directions, no faster than the other side takes them.
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everloop.core.errors import EverloopError, Unavailable
from everloop.serving.gateway import rpc
from everloop.serving.gateway.faults import told
from everloop.serving.gateway.speaking.asking import Desk

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every HTTP/2 connection begins with (RFC 9113, 3.4); no request of HTTP/1.1 does."""
_GRACE = 2.0


class Splice(asyncio.Protocol):
    """One side of a connection; what comes here goes out at the other."""

    def __init__(self) -> None:
        """Hold what comes until there is another side."""
        self.other: Splice | None = None
        self.transport: Any = None
        self.held: list[bytes] = []
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        """Know the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.other is None:
            self.held.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        """Our side is slow: the other side is read no further."""
        if self.other is not None and not self.other.lost:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self.other is not None and not self.other.lost:
            self.other.transport.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        """End the other side, after what is on its way."""
        self.lost = True
        if self.other is not None and not self.other.lost:
            self.other.transport.close()


class Switchboard:
    """The gRPC side of one gateway."""

    def __init__(self) -> None:
        """No server yet; `desk` must be set before the first connection."""
        self.desk: Desk | None = None
        self._server: Any = None
        self._folder: Path | None = None
        self._starting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, transport: Any, first: bytes) -> None:
        """Take over a connection whose first bytes are `first`."""
        side = Splice()
        side.connection_made(transport)
        side.held.append(first)
        transport.set_protocol(side)
        task = asyncio.get_running_loop().create_task(self._join(side))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, side: Splice) -> None:
        try:
            path = await self._path()
            _, other = await asyncio.get_running_loop().create_unix_connection(Splice, path)
        except (OSError, EverloopError) as error:
            told("a gRPC connection", error)
            side.transport.close()
            return
        if side.lost:
            other.transport.close()
            return
        side.other, other.other = other, side
        for here, there in ((side, other), (other, side)):  # the server may have spoken first
            there.transport.writelines(here.held)
            here.held.clear()

    async def _path(self) -> str:
        """The server's socket; starts the server the first time."""
        async with self._starting:
            if self._server is None:
                folder = Path(tempfile.mkdtemp(prefix="everloop-"))  # nobody else may enter it
                try:
                    server = _service(self.desk, str(folder / "rpc"))
                except ImportError as error:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise Unavailable("gRPC is not installed", hint='pip install "everloop[grpc]"') from error
                await server.start()
                self._server, self._folder = server, folder
        return f"{self._folder}/rpc"

    async def close(self) -> None:
        """End the server, after the calls in flight."""
        if self._server is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._server.stop(_GRACE)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _service(desk: Desk | None, path: str) -> Any:
    return rpc.service.Service(desk, path)  # type: ignore[arg-type]  # set before the first connection


def switched(protocol: type[Any], take: Callable[[Any, bytes], None]) -> type[Any]:
    """The HTTP protocol, letting go of connections that begin with HTTP/2's preface."""

    class Switched(protocol):  # type: ignore[misc]  # a class made at run time
        opened = b""
        decided = False

        def data_received(self, data: bytes) -> None:
            if not self.decided:
                data = self.opened + data
                if PREFACE.startswith(data[: len(PREFACE)]):
                    self.opened = data
                    if len(data) >= len(PREFACE):
                        transport = self.transport
                        # uvicorn forgets it; without an error it would close it
                        super().connection_lost(ConnectionAbortedError())
                        take(transport, data)
                    return
                self.decided = True
            super().data_received(data)

    return Switched

"""Passing everything that is not a prediction to the server, over a UNIX socket.

Bodies stream both ways and are never held; when the caller goes away, the server's side is closed.
Headers of one hop are dropped, and what says who the caller is comes from the connection, never from
the caller; so do the headers of `hand`.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import httptools

from everloop.core.errors import Unavailable
from everloop.serving.gateway.passing.hand import HEADERS as HAND

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_ONE_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)
_OURS = (
    frozenset(
        b"forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-forwarded-prefix"
        b" x-forwarded-server x-real-ip expect".split()
    )
    | HAND
)
_CHUNK = 256 * 1024
_MOST_IDLE = 64
_CONNECT_SECONDS = 10.0
_RESTART_SECONDS = 20.0
"""How long a request waits for a server that does not listen: nothing of it was sent, so waiting is safe."""
_AGAIN_SECONDS = 0.1


def _named_in_connection(headers: Headers) -> set[bytes]:
    values = b",".join(value for name, value in headers if name == b"connection")
    return {token.strip().lower() for token in values.split(b",")}


def request_head(scope: Scope, more: Headers) -> tuple[bytes, bool]:
    """The head of the request to the server, with `more` headers of our own, and whether its body goes in chunks."""
    headers: Headers = scope["headers"]
    dropped = _ONE_HOP | _OURS | _named_in_connection(headers)
    chunked = any(name == b"transfer-encoding" for name, _ in headers)
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    lines = [b"%s %s HTTP/1.1" % (scope["method"].encode(), target)]
    lines += [name + b": " + value for name, value in headers if name not in dropped]
    client = scope.get("client")
    host = next((value for name, value in headers if name == b"host"), b"")
    lines += [
        b"x-forwarded-for: " + (client[0].encode() if client else b"unix"),
        b"x-forwarded-host: " + host,
        b"x-forwarded-proto: " + scope["scheme"].encode(),
        *(name + b": " + value for name, value in more),
    ]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    return b"\r\n".join(lines) + b"\r\n\r\n", chunked


class _Response:
    """What httptools tells about the server's response, as ASGI messages."""

    def __init__(self, method: str) -> None:
        self.messages: list[MutableMapping[str, Any]] = []
        self.complete = False
        self.started = False
        self.framed = False
        """Whether the response says where its body ends."""
        self.keeps = False
        """Whether the server goes on with the connection after it."""
        self.endless = False
        """Whether it is a stream of events, which ends when somebody ends it."""
        self._bodiless = method == "HEAD"
        self._headers: Headers = []
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.framed = self.framed or name.lower() in (b"content-length", b"transfer-encoding")
        self.endless = self.endless or (name.lower(), value[:17]) == (b"content-type", b"text/event-stream")
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status < 200:
            self._headers = []
            return
        dropped = _ONE_HOP | {b"date"} | _named_in_connection(self._headers)
        kept = [(name, value) for name, value in self._headers if name not in dropped]
        self.messages.append({"type": "http.response.start", "status": status, "headers": kept})
        self.started = True
        self.keeps = self.parser.should_keep_alive()
        if self._bodiless or status in (204, 304):
            self.finish()

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.messages.append({"type": "http.response.body", "body": body, "more_body": True})

    def on_message_complete(self) -> None:
        if self.started:
            self.finish()

    def finish(self) -> None:
        if not self.complete:
            self.complete = True
            self.messages.append({"type": "http.response.body", "body": b"", "more_body": False})


@dataclass(slots=True)
class Link:
    """A connection to the server, for one request after another."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent: bool = False
    """Whether the request at hand was written to its end."""

    @property
    def stands(self) -> bool:
        """Whether the server is still at the other end, as far as we know."""
        return not self.reader.at_eof() and not self.writer.is_closing()


class Links:
    """The way to the server at UNIX socket `path`: connections that wait for the next request are taken first."""

    def __init__(self, path: str) -> None:
        """Connect when the first request comes."""
        self.path = path
        self._idle: list[Link] = []

    async def take(self, *, patient: bool) -> Link:
        """A connection of one's own; raises `Unavailable`."""
        while self._idle:
            link = self._idle.pop()
            if link.stands:
                link.sent = False
                return link
            link.writer.close()
        return Link(*await _connected(self.path, patient=patient))

    async def leave(self, link: Link, *, whole: bool) -> None:
        """Give it back; it is closed unless both request and answer were `whole`."""
        if whole and link.stands and len(self._idle) < _MOST_IDLE:
            self._idle.append(link)
            return
        link.writer.close()
        with contextlib.suppress(OSError):
            await link.writer.wait_closed()


async def relay(
    links: Links, scope: Scope, receive: Receive, send: Send, stopping: asyncio.Event, *, more: Headers | None = None
) -> None:
    """Pass one request to the server, with `more` headers of our own; raises `Unavailable` before any answer.

    When `stopping` is set, streams of events end; other answers are passed to their end.
    """
    link = await links.take(patient=scope["path"] != "/health")
    head, chunked = request_head(scope, more or [])
    gone = asyncio.create_task(_send_body(head, chunked, receive, link))
    answer = asyncio.create_task(_pass_answer(link.reader, scope["method"], send, stopping))
    whole = False
    try:
        await asyncio.wait((gone, answer), return_when=asyncio.FIRST_COMPLETED)
        # a request that is sent, or that the server does not read on, is no reason to stop: only a caller's leaving is
        if not answer.done() and gone.exception() is None and not gone.result():
            return
        whole = await answer and link.sent
    finally:
        for task in (gone, answer):
            task.cancel()
        await asyncio.gather(gone, answer, return_exceptions=True)
        await links.leave(link, whole=whole)


async def _connected(path: str, *, patient: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the server; a patient caller waits for one that is being restarted. Raises `Unavailable`."""
    until = time.monotonic() + (_RESTART_SECONDS if patient else 0.0)
    while True:
        try:
            return await asyncio.wait_for(asyncio.open_unix_connection(path, limit=_CHUNK), _CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            if time.monotonic() >= until:
                raise Unavailable("the server does not answer", hint="it may be starting; try again") from error
        await asyncio.sleep(_AGAIN_SECONDS)


async def _send_body(head: bytes, chunked: bool, receive: Receive, link: Link) -> bool:
    """Send the request as it comes; returns False when the caller went away, never returns otherwise."""
    writer = link.writer
    try:
        writer.write(head)
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            body = message.get("body", b"")
            more = message.get("more_body", False)
            if body:
                writer.write(b"%x\r\n%b\r\n" % (len(body), body) if chunked else body)
            if chunked and not more:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
        link.sent = True
    except OSError:
        return True  # the server stopped reading: what it answered counts
    while (await receive())["type"] != "http.disconnect":
        pass
    return False


async def _read(reader: asyncio.StreamReader, response: _Response, stopping: asyncio.Event) -> bytes | None:
    """What comes next; nothing when the server hung up, None when a stream has to end."""
    if not response.endless:
        with contextlib.suppress(OSError):  # it was killed: the same as hanging up
            return await reader.read(_CHUNK)
        return b""
    told = asyncio.ensure_future(stopping.wait())
    reading: asyncio.Future[bytes] = asyncio.ensure_future(reader.read(_CHUNK))
    try:
        await asyncio.wait((reading, told), return_when=asyncio.FIRST_COMPLETED)
        return await reading if reading.done() else None
    except OSError:
        return b""
    finally:
        reading.cancel()
        told.cancel()


async def _pass_answer(reader: asyncio.StreamReader, method: str, send: Send, stopping: asyncio.Event) -> bool:
    """Pass the answer as it comes; returns whether the connection is at the end of it, ready for the next."""
    response = _Response(method)
    whole = True
    while not response.complete:
        content = await _read(reader, response, stopping)
        if content is None:
            whole = False
            response.finish()
        elif not content:
            if not response.started:
                raise Unavailable("the server hung up", hint="it may be restarting; try again")
            if response.framed:
                raise ConnectionResetError("the server hung up in the middle of its answer")
            whole = False
            response.finish()
        else:
            try:
                response.parser.feed_data(content)
            except httptools.HttpParserError as error:
                if not response.started:
                    raise Unavailable("the server's answer is not HTTP") from error
                raise ConnectionResetError from error  # the reply is cut off, so that the caller sees it
        for message in response.messages:
            await send(message)
        response.messages.clear()
    return whole and response.keeps

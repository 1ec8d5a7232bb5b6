"""The short way itself: uvicorn's protocol, which answers ordinary questions before it makes an ASGI request of them.

What is particular is handed to uvicorn as it came. A question whose model failed goes on as one whose first try came to
that: the endpoint's fallbacks answer it. Questions to endpoints with shadows, caches and the like are answered by the
protocols' own modules in a task, and are spared ASGI alone.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from everloop.core.errors import EverloopError
from everloop.serving import wire
from everloop.serving.columns import unpack_answer
from everloop.serving.gateway.answer import Failed
from everloop.serving.gateway.express.lines import OIP, Line, Read, line_of, ordinary
from everloop.serving.gateway.fleet import LiveRoute
from everloop.serving.gateway.speaking import oip as speaking_oip
from everloop.serving.gateway.speaking import scoring as speaking_scoring
from everloop.serving.gateway.speaking.asking import FAILED, Desk
from everloop.serving.gateway.speaking.limits import wall
from everloop.serving.gateway.speaking.replies import Reply, compressed
from everloop.serving.protocol import oip, scoring

_MOST_BYTES = 1 << 20
"""Of a body that is held until it is whole; a larger one goes the ordinary way, which reads no faster than it works."""
_COMPRESSIBLE = 1024
_PREDICTIONS = (b"/endpoints/", b"/v2/")
"""Where replies are made here: what is relayed may go on below the transport (`passing.carry`)."""
_BINARY = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"


class Express:
    """The short ways of one gateway."""

    def __init__(self, desk: Desk) -> None:
        """Answer as `desk` does."""
        self.desk = desk
        self._routes: Mapping[str, LiveRoute] = {}
        self._lines: dict[bytes, Line | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def line(self, url: bytes) -> Line | None:
        """The line of an address, if its questions go the short way."""
        routes = self.desk.fleet.routes
        if routes is not self._routes:
            self._routes, self._lines = routes, {}
        try:
            return self._lines[url]
        except KeyError:
            line = line_of(routes, url, self.desk.predictions)
            if line is not None:
                self._lines[url] = line
            return line

    def take(self, protocol: Any, line: Line, body: bytes) -> bool:
        """Answer a whole request; False, and nothing was done, for one that is particular."""
        headers = dict(protocol.headers)
        if not ordinary(headers):
            return False
        if line.first is None:
            self._handed(protocol, Passage(self, protocol, line, None, (headers, body)))
            return True
        return self._asked(protocol, line, headers, body)

    def _asked(self, protocol: Any, line: Line, headers: dict[bytes, bytes], body: bytes) -> bool:
        """Ask the model."""
        desk = self.desk
        try:
            desk.door.check(headers, desk.fleet.table, line.route.route.address)
            read = line.read(headers, body)
        except Exception:  # noqa: BLE001 - nothing was done yet: the ordinary way comes to the same, and tells it
            return False
        if read is None:
            return False
        crew = read.crew
        passage = Passage(self, protocol, line, read, (headers, body))
        if read.payload is not None and crew.ready.is_set() and crew.waiting < line.route.route.max_queue:
            account = (desk.door.caller(headers, desk.fleet.table), wall()) if line.limited else None
            if account is not None and not desk.limits.allows(line.route, *account):
                return False
            with suppress(EverloopError):
                crew.send(read.payload, read.rows, passage.started + line.seconds, passage)
                protocol.cycle = passage  # not before: it would have to wait behind itself
                if account is not None:
                    desk.limits.take(line.route, *account)
                return True
        if not read.key:
            return False
        # whoever chose again might choose another revision: this one has its share of failures
        self._handed(protocol, passage)
        return True

    def _handed(self, protocol: Any, passage: "Passage") -> None:
        """Have the protocol's module answer a question that nobody was asked yet."""
        protocol.cycle = passage
        self.later(passage, None)

    def later(self, passage: "Passage", error: Exception | None) -> None:
        """Have the protocol's module answer a question, in a task; one whose first try came to `error`, if any."""
        task = asyncio.get_running_loop().create_task(passage.on(error))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Nobody:
    """What uvicorn sets when a caller leaves; nobody waits for that here."""

    def set(self) -> None:
        """Nothing to wake."""


_NOBODY = _Nobody()


class Passage:
    """A question on its way; who waits for its answer, and what uvicorn asks of a request that is under way."""

    __slots__ = (
        "_asked", "_express", "_line", "_protocol", "_read", "_scope", "disconnected", "keep_alive",
        "message_event", "response_complete", "started",
    )  # fmt: skip

    def __init__(
        self, express: Express, protocol: Any, line: Line, read: Read | None, asked: tuple[Any, bytes]
    ) -> None:
        """`read` is what `line` read of `asked`, headers and body."""
        self.started = time.monotonic()
        self._express, self._protocol, self._line, self._read, self._asked = express, protocol, line, read, asked
        self._scope = protocol.scope
        self.keep_alive = protocol.parser.should_keep_alive()
        self.disconnected = self.response_complete = False
        self.message_event = _NOBODY  # never itself: each passage would be a cycle, and stay until the collector comes

    def done(self) -> bool:
        """Whether it was answered."""
        return self.response_complete

    def set_exception(self, error: Exception) -> None:
        """The model did not answer."""
        read = self._read
        if read is not None and read.way is not None and read.lane.straight is not None:
            read.lane.straight.failed(read.way, error)
        self._express.later(self, error)

    def set_result(self, frame: wire.Frame) -> None:
        """Log the answer and write the reply."""
        try:
            content, head = self._answered(frame)
        except Exception as error:  # noqa: BLE001 - the ordinary way is the edge: it says so and writes it to the log
            self._express.later(self, error)
            return
        self._write(200, head, content)

    def _answered(self, frame: wire.Frame) -> tuple[bytes, bytes]:
        line, read, route = self._line, self._read, self._line.route.route
        assert read is not None
        lane, live, crew = read.lane, read.lane.live, read.crew
        took = int((time.monotonic() - self.started) * 1e6)
        if read.way is not None and lane.straight is not None:
            identity, answer = lane.straight.answered(read.way, frame, route, took=took, protocol=line.leaf)
        else:
            answer = unpack_answer(crew.outputs, frame.payload, read.rows)
            payload = read.payload or b""
            asked, said = (read.rows, (live.logged_raw, payload)), (crew.outputs_raw, frame.payload)
            log_line = self._express.desk.predictions.log_line
            identity = log_line(route, live, asked, said, took=took, protocol=line.leaf)
            if lane.node >= 0:
                live.nodes[lane.node].answered(read.rows, took)
        live.counters.answered(read.rows, took)
        line.route.said = None
        revision = live.revision.id
        parameters = {"revision": revision, "prediction_id": identity} if identity else {"revision": revision}
        head = b"everloop-revision: %b\r\n" % revision.encode()
        if identity:
            head += b"everloop-prediction-id: %b\r\n" % identity.encode()
        return self._content(read, answer, parameters, head)

    def _content(self, read: Read, answer: Any, parameters: dict[str, Any], head: bytes) -> tuple[bytes, bytes]:
        line = self._line
        binary = None
        if read.question is None:
            content = scoring.answer_body(read.crew.shown, answer, parameters)
        else:
            model = (line.address, str(read.lane.live.revision.number))
            content, binary = oip.answer_body(read.question, read.crew.shown, answer, model, parameters)
        if binary is not None:
            head += _BINARY % binary
        else:
            head += b"content-type: application/json\r\n"
        if len(content) > _COMPRESSIBLE and b"accept-encoding" in self._asked[0]:
            reply = compressed(Reply(200, content, ()), self._asked[0])
            content = reply.body
            head += b"".join(b"%b: %b\r\n" % header for header in reply.headers)
        return content, head

    def _write(self, status: int, head: bytes, content: bytes) -> None:
        """The reply in one write; then the connection is free for the next question."""
        self.response_complete = True
        protocol = self._protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        parts = [STATUS_LINE[status], *(b"%b: %b\r\n" % pair for pair in protocol.server_state.default_headers), head]
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"content-length: %d\r\n\r\n" % len(content), content)
        protocol.transport.write(b"".join(parts))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    async def on(self, error: Exception | None = None) -> None:
        """Have the protocol's own module answer; `error` is what a first try came to."""
        headers, body = self._asked
        scope: dict[str, Any] = {**self._scope, "method": "POST", "path": self._line.path, "query_string": b""}
        read = self._read
        if read is not None and read.key and b"everloop-sticky" not in headers:
            scope["headers"] = [*scope["headers"], (b"everloop-sticky", read.key)]  # by which it is chosen once more
        if read is not None and error is not None:
            scope[FAILED] = Failed(read.lane.live, error, self.started)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        desk, line = self._express.desk, self._line
        try:
            if line.leaf == OIP:
                reply = await speaking_oip.reply(desk, scope, receive)
            else:
                reply = await speaking_scoring.reply(desk, scope, receive, line.address, line.leaf)
            if len(reply.body) > _COMPRESSIBLE:
                reply = compressed(reply, headers)
            self._write(reply.status, b"".join(b"%b: %b\r\n" % pair for pair in reply.headers), reply.body)
        finally:
            if not self.response_complete:
                self._protocol.transport.close()


class Joined:
    """A transport whose first piece waits for the second, at most until the loop's next turn."""

    __slots__ = ("_held", "_passing", "_transport")

    def __init__(self, transport: Any) -> None:
        """Write to `transport`."""
        self._transport = transport
        self._held, self._passing = b"", False

    def write(self, data: bytes) -> None:
        """Hold the first piece; write all others."""
        if self._passing:
            self._transport.write(data)
        elif self._held:
            self._passing = True
            self._transport.write(self._held + data)
        else:
            self._held = data
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if not self._passing:
            self._passing = True
            self._transport.write(self._held)

    def is_closing(self) -> bool:
        """Whether it is closed already."""
        return bool(self._transport.is_closing())

    def close(self) -> None:
        """Close it, after what is held."""
        if self._held:
            self._flush()
        self._transport.close()


class Expressing(HttpToolsProtocol):
    """uvicorn's protocol, which takes the short way with ordinary questions."""

    ways: ClassVar[Express]
    line: Line | None = None
    """Of the request whose body is held."""
    held: list[bytes]
    size: int

    def on_headers_complete(self) -> None:
        """Hold a request that may go the short way."""
        if self._free() and (line := self.ways.line(self.url)) is not None:
            self.line, self.held, self.size = line, [], 0
        else:
            super().on_headers_complete()
            self._join()

    def _join(self) -> None:
        """Have the head of a prediction's reply leave with its body, as one packet."""
        if self.url.startswith(_PREDICTIONS):
            self.cycle.transport = Joined(self.transport)  # type: ignore[assignment]  # all of one that a cycle asks for

    def _free(self) -> bool:
        """Whether it is a request that may go the short way, and no other is under way on this connection."""
        parser, cycle = self.parser, self.cycle
        if parser.get_method() != b"POST" or self.expect_100_continue or parser.should_upgrade():
            return False
        if self.flow.write_paused:  # the caller does not read its answers: uvicorn waits until it does
            return False
        return (cycle is None or cycle.response_complete) and bool(parser.get_http_version() == "1.1")

    def on_body(self, body: bytes) -> None:
        """Hold a part of its body."""
        if self.line is None:
            super().on_body(body)
            return
        self.held.append(body)
        self.size += len(body)
        if self.size > _MOST_BYTES:
            self._ordinary()

    def on_message_complete(self) -> None:
        """Take it, or give it to uvicorn."""
        line = self.line
        if line is not None:
            body = self.held[0] if len(self.held) == 1 else b"".join(self.held)
            if self.ways.take(self, line, body):
                self.line, self.held = None, []
                return
            self._ordinary()
        super().on_message_complete()

    def _ordinary(self) -> None:
        """Give uvicorn what was held."""
        held, self.line, self.held = self.held, None, []
        super().on_headers_complete()
        self._join()
        for part in held:
            super().on_body(part)


def express(protocol: type[Any], ways: Express) -> type[Any]:
    """The HTTP protocol with the short way."""
    return type("Expressed", (Expressing, protocol), {"ways": ways})

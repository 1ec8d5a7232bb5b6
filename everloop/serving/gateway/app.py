"""The ASGI application of a gateway: predictions are answered here, everything else is passed to the server.

/v2, /v2/...                                     Open Inference Protocol; models are `project.endpoint`
/endpoints/<project>/<name>/invocations          MLflow's scoring protocol; also ping, health, version
/endpoints/<project>/<name>/predict              plain JSON by column names
/features/<project>/<service>                    feature look-ups
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import orjson

from everloop import __version__
from everloop.core.clock import Micros, parse_time
from everloop.core.errors import EverloopError, InvalidInput, NotAuthenticated, NotFound, Unavailable
from everloop.serving.gateway.access import Door
from everloop.serving.gateway.answer import Answered, Asked, Predictions
from everloop.serving.gateway.faults import told
from everloop.serving.gateway.fleet import Fleet, LiveRoute
from everloop.serving.gateway.lookups import Lookups
from everloop.serving.gateway.passing.carry import Carrier
from everloop.serving.gateway.passing.relay import Headers, Receive, Scope, Send
from everloop.serving.gateway.workers import ModelProcess
from everloop.serving.protocol import oip, scoring
from everloop.serving.protocol.question import MAX_BODY, Question, decompress

MLFLOW_VERSION = version("mlflow-skinny").encode()
"""What `/version` answers, as MLflow's own scoring server does."""
_JSON = (b"content-type", b"application/json")
_LEAVES = frozenset(("invocations", "predict", "ping", "health", "version"))


class _TooLarge(InvalidInput):
    """The body is larger than the gateway takes."""

    status = 413


class _WrongMethod(InvalidInput):
    """The path is known, the method is not."""

    status = 405


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer over HTTP."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)


class Gateway:
    """The application; `fleet` and `predictions` hold all state."""

    def __init__(
        self, fleet: Fleet, predictions: Predictions, lookups: Lookups, door: Door, server: Carrier | None = None
    ) -> None:
        """Pass what is no prediction or look-up to the server, or answer 404 when there is none."""
        self._lookups = lookups
        self._fleet, self._predictions, self._door = fleet, predictions, door
        self._server = server
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End open streams of events: their readers come back to whoever listens next."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if path.startswith("/v2") and path[3:4] in ("", "/"):
            reply = await self._oip(scope, receive)
        elif path.startswith("/endpoints/") and path.count("/") == 4 and path.rpartition("/")[2] in _LEAVES:
            reply = await self._scoring(scope, receive)
        elif path.startswith("/features/") and path.count("/") == 3:
            reply = await self._looked_up(scope, receive)
        elif self._server is not None:
            failed = await self._relayed(self._server, scope, receive, send)
            if failed is None:
                return
            reply = failed
        else:
            reply = _problem(NotFound(f"there is nothing at {path[:200]}", hint="see /v2 for what is here"))
        headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _relayed(self, server: Carrier, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        try:
            await server.carry(scope, receive, send, self._stopping)
        except EverloopError as error:
            failed = _problem(error)
            return replace(failed, headers=(*failed.headers, (b"connection", b"close")))  # its body may be half read
        return None

    # -- look-ups

    async def _looked_up(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        _, _, project, name = scope["path"].split("/")
        try:
            table = self._fleet.table
            self._door.check(headers, table, project)
            _need_method(scope, "POST", "GET")
            if scope["method"] == "GET":
                return Reply(200, self._lookups.describe(table, project, name))
            body = decompress(await _body(receive), headers.get(b"content-encoding", b"").decode("latin-1"))
            return Reply(200, self._lookups.answer(table, project, name, body))
        except EverloopError as error:
            return _problem(error)
        except Exception as error:  # noqa: BLE001 - as above
            return _problem(told(f"{scope['method']} {scope['path']}", error))

    # -- Open Inference Protocol

    async def _oip(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        parts = scope["path"].rstrip("/").split("/")[2:]
        try:
            project = parts[1].partition(".")[0] if len(parts) > 1 and parts[0] == "models" else ""
            self._door.check(headers, self._fleet.table, project)
            if parts[:1] == ["models"] and len(parts) in (3, 5) and parts[-1] == "infer":
                _need_method(scope, "POST")
                return await self._infer(headers, parts, receive)
            _need_method(scope, "GET", "HEAD")
            return self._told(parts)
        except EverloopError as error:
            said = _said(error, parts[1][:200] if len(parts) > 1 else "")
            return Reply(error.status, oip.error_body(said), _error_headers(error))
        except Exception as error:  # noqa: BLE001 - the edge of the process: callers learn a fault's id, the log the rest
            fault = told(f"{scope['method']} {scope['path']}", error)
            return Reply(fault.status, oip.error_body(_said(fault)))

    def _told(self, parts: list[str]) -> Reply:
        fleet = self._fleet
        if not parts:
            return _json({"name": "everloop", "version": __version__, "extensions": oip.EXTENSIONS})
        if parts == ["health", "live"]:
            return _json({"live": True})
        if parts == ["health", "ready"]:
            return _json({"live": True, "ready": fleet.ready}, 200 if fleet.ready else 503)
        if parts[0] == "models" and len(parts) >= 2:
            route = fleet.route(parts[1])
            pinned, rest = "", parts[2:]
            if len(rest) >= 2 and rest[0] == "versions":
                pinned, rest = rest[1], rest[2:]
            live = route.pinned(pinned) if pinned else route.champion
            if rest == ["ready"]:
                if not live.process.ready.is_set():
                    raise Unavailable(live.process.problem or f"{parts[1]} is starting")
                return _json({"name": parts[1], "ready": True})
            if not rest:
                versions = [str(other.revision.number) for other in route.live]
                return _json(oip.metadata(parts[1], versions, live.process.caller_inputs, live.process.shown))
        raise NotFound("there is no such path in the protocol", hint="see /v2 and /v2/models/<project>.<endpoint>")

    async def _infer(self, headers: Mapping[bytes, bytes], parts: list[str], receive: Receive) -> Reply:
        started = time.monotonic()
        route = self._fleet.route(parts[1])
        pinned = parts[3] if len(parts) == 5 and parts[2] == "versions" else _header(headers, b"everloop-revision")
        if len(parts) == 5 and parts[2] != "versions":
            raise NotFound("there is no such path in the protocol", hint="/v2/models/<model>/versions/<version>/infer")
        body = decompress(await _body(receive), headers.get(b"content-encoding", b"").decode("latin-1"))
        length = headers.get(b"inference-header-content-length")
        layout = _caller(route, pinned).caller_inputs
        question = oip.parse(body, None if length is None else length.decode("latin-1"), layout)
        asked = self._asked(route, question, headers, protocol="oip", started=started, pinned=pinned)
        outputs = route.champion.process.shown
        if outputs and question.wanted is not None:
            oip.chosen(question, outputs)  # refuse before the model is asked
        answered = await self._predictions.answer(asked)
        model = (parts[1], str(answered.live.revision.number))
        content, header = oip.answer_body(question, answered.outputs, answered.answer, model, answered.parameters())
        more: tuple[tuple[bytes, bytes], ...] = (_JSON,)
        if header is not None:
            more = (
                (b"content-type", b"application/octet-stream"),
                (b"inference-header-content-length", b"%d" % header),
            )
        return Reply(200, content, more + _marks(answered))

    # -- MLflow's scoring protocol, and plain JSON

    async def _scoring(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        _, _, project, name, leaf = scope["path"].split("/")
        try:
            self._door.check(headers, self._fleet.table, project)
            if leaf in ("ping", "health", "version"):
                return self._probe(scope, f"{project}.{name}", leaf)
            _need_method(scope, "POST")
            started = time.monotonic()
            route = self._fleet.route(f"{project}.{name}")
            pinned = _header(headers, b"everloop-revision")
            layout = _caller(route, pinned).caller_inputs
            body = decompress(await _body(receive), headers.get(b"content-encoding", b"").decode("latin-1"))
            if leaf == "predict":
                question = scoring.parse_plain(body, layout)
            else:
                kind = headers.get(b"content-type", b"").decode("latin-1")
                question = scoring.parse_invocation(body, kind, layout)
            answered = await self._predictions.answer(
                self._asked(route, question, headers, protocol=leaf, started=started, pinned=pinned)
            )
            content = scoring.answer_body(answered.outputs, answered.answer, answered.parameters())
            return Reply(200, content, (_JSON, *_marks(answered)))
        except EverloopError as error:
            said = _said(error, f"{project}.{name}"[:200])
            return Reply(error.status, scoring.error_body(said, error.status), _error_headers(error))
        except Exception as error:  # noqa: BLE001 - as above
            fault = told(f"{scope['method']} {scope['path']}", error)
            return Reply(fault.status, scoring.error_body(_said(fault), fault.status))

    def _probe(self, scope: Scope, address: str, leaf: str) -> Reply:
        _need_method(scope, "GET", "HEAD")
        plain = ((b"content-type", b"text/plain; charset=utf-8"),)
        if leaf == "version":
            return Reply(200, MLFLOW_VERSION, plain)
        live = self._fleet.route(address).champion
        if not live.process.ready.is_set():
            raise Unavailable(live.process.problem or f"{address} is starting")
        return Reply(200, b"\n", plain)

    # -- what both share

    def _asked(
        self,
        route: LiveRoute,
        question: Question,
        headers: Mapping[bytes, bytes],
        *,
        protocol: str,
        started: float,
        pinned: str,
    ) -> Asked:
        at: Micros = 0
        stamp = headers.get(b"everloop-time")
        if stamp is not None:
            at = self._event_time(stamp.decode("latin-1"))
        return Asked(
            route,
            question,
            at,
            headers.get(b"everloop-sticky", b""),
            pinned,
            protocol,
            started,
        )

    def _event_time(self, text: str) -> Micros:
        table = self._fleet.table
        if table is None or not table.replay:
            raise InvalidInput("Everloop-Time is refused here", hint="only a replay workspace takes its time from it")
        try:
            return int(text) if text.isascii() and text.isdigit() else parse_time(text)
        except ValueError:
            raise InvalidInput(f"Everloop-Time {text[:60]!r} is no time", hint="ISO 8601, or microseconds") from None


def _caller(route: LiveRoute, pinned: str) -> ModelProcess:
    return (route.pinned(pinned) if pinned else route.champion).process


def _header(headers: Mapping[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1")


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidInput("the caller went away")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise _TooLarge(f"the body is larger than {MAX_BODY} bytes", hint="ask in several requests")
    return b"".join(parts)


def _need_method(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        raise _WrongMethod(f"{scope['method'][:20]} is not for this path", hint="use " + methods[0])


def _said(error: EverloopError, address: str = "") -> str:
    """The message with its hint; what is wrong with a question to `address` has one in any case."""
    hint = error.hint
    if not hint and isinstance(error, InvalidInput) and address:
        hint = f"GET /v2/models/{address} shows the inputs"
    return f"{error.message} ({hint})" if hint else error.message


def _error_headers(error: EverloopError) -> tuple[tuple[bytes, bytes], ...]:
    if isinstance(error, Unavailable):
        return (_JSON, (b"retry-after", b"1"))
    if isinstance(error, NotAuthenticated):
        return (_JSON, (b"www-authenticate", b"Bearer"))
    return (_JSON,)


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(value))


def _problem(error: EverloopError) -> Reply:
    kind = (b"content-type", b"application/problem+json")
    return Reply(error.status, orjson.dumps(error.problem()), (kind, *_error_headers(error)[1:]))


def _marks(answered: Answered) -> tuple[tuple[bytes, bytes], ...]:
    marks: Headers = [(b"everloop-revision", answered.live.revision.id.encode())]
    if answered.id:
        marks.append((b"everloop-prediction-id", answered.id.encode()))
    if answered.fallback:
        marks.append((b"everloop-fallback", b"true"))
    if answered.stale:
        marks.append((b"everloop-stale", ", ".join(answered.stale).encode()))
    return tuple(marks)

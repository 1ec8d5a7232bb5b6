"""The Open Inference Protocol over HTTP, with repository extension, binary tensors and events of a generator."""

import time
from collections.abc import Mapping
from typing import Any

from everloop import __version__
from everloop.core.errors import EverloopError, NotFound, Unavailable
from everloop.serving.gateway.answer import Failed
from everloop.serving.gateway.faults import told
from everloop.serving.gateway.passing.relay import Receive, Scope
from everloop.serving.gateway.speaking import repository
from everloop.serving.gateway.speaking.asking import FAILED, Desk, explains, marks, pinned_by, taking
from everloop.serving.gateway.speaking.replies import (
    JSON,
    Header,
    Reply,
    as_json,
    body_of,
    error_headers,
    need_method,
    said,
)
from everloop.serving.protocol import oip
from everloop.serving.protocol.question import parse_json

_BINARY: Header = (b"content-type", b"application/octet-stream")


async def reply(desk: Desk, scope: Scope, receive: Receive) -> Reply:
    """Answer one request below `/v2`."""
    headers = dict(scope["headers"])
    parts = scope["path"].rstrip("/").split("/")[2:]
    name = next((part for place, part in enumerate(parts) if place and parts[place - 1] == "models"), "")
    try:
        desk.door.check(headers, desk.fleet.table, name)
        if parts[:1] == ["models"] and len(parts) in (3, 5) and parts[-1] == "infer":
            need_method(scope, "POST")
            return await _infer(desk, (headers, scope.get(FAILED)), parts, receive, explain=explains(scope))
        if parts[:1] == ["repository"]:
            need_method(scope, "POST")
            return await _repository(desk, headers, parts[1:], receive)
        return _read(scope, _told(desk, parts))
    except EverloopError as error:
        return Reply(error.status, oip.error_body(said(error, name[:200])), error_headers(error))
    except Exception as error:  # noqa: BLE001 - the edge of the process: callers learn a fault's id, the log the rest
        fault = told(f"{scope['method']} {scope['path']}", error)
        return Reply(fault.status, oip.error_body(said(fault)))


def _read(scope: Scope, found: Reply) -> Reply:
    """What was found, for who only reads: a path that is not there has no right method either."""
    need_method(scope, "GET", "HEAD")
    return found


def server_metadata() -> dict[str, Any]:
    """Name, version and extensions of this server."""
    return {"name": "everloop", "version": __version__, "extensions": oip.EXTENSIONS}


def model_metadata(desk: Desk, name: str, version: str = "") -> dict[str, Any]:
    """What an endpoint, or one of its live revisions, takes and gives; raises `NotFound`."""
    route = desk.fleet.route(name)
    live = taking(route, version)
    return oip.metadata(name, [str(other.revision.number) for other in route.live], live.caller, live.shown)


def check_ready(desk: Desk, name: str, version: str = "") -> None:
    """Raise `Unavailable` while an endpoint, or one of its live revisions, is not ready; `NotFound`."""
    live = taking(desk.fleet.route(name), version)
    if not live.ready:
        raise Unavailable(live.reason or f"{name} is starting")


def _told(desk: Desk, parts: list[str]) -> Reply:
    if not parts:
        return as_json(server_metadata())
    if parts == ["health", "live"]:
        return as_json({"live": True})
    if parts == ["health", "ready"]:
        ready = desk.fleet.ready
        return as_json({"live": True, "ready": ready}, 200 if ready else 503)
    if parts[0] == "models" and len(parts) >= 2:
        version, rest = "", parts[2:]
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        if rest == ["ready"]:
            check_ready(desk, parts[1], version)
            return as_json({"name": parts[1], "ready": True})
        if not rest:
            return as_json(model_metadata(desk, parts[1], version))
    raise NotFound("there is no such path in the protocol", hint="see /v2 and /v2/models/<project>.<endpoint>")


async def _repository(desk: Desk, headers: Mapping[bytes, bytes], parts: list[str], receive: Receive) -> Reply:
    body = await body_of(headers, receive)
    if parts == ["index"]:
        ready = repository.wants_ready(parse_json(body) if body.strip() else {})
        return as_json(repository.index(desk.fleet, desk.door.reach(headers, desk.fleet.table), only_ready=ready))
    if len(parts) == 3 and parts[0] == "models" and parts[2] in ("load", "unload"):
        await (repository.load if parts[2] == "load" else repository.unload)(desk.fleet, parts[1])
        return Reply(200, b"")
    raise NotFound("there is no such path in the protocol", hint="/v2/repository/index, …/models/<model>/load")


async def _infer(
    desk: Desk, asked: tuple[Mapping[bytes, bytes], Failed | None], parts: list[str], receive: Receive, *, explain: bool
) -> Reply:
    headers, failed = asked
    started = failed.started if failed else time.monotonic()
    route = desk.fleet.route(parts[1])
    if len(parts) == 5 and parts[2] != "versions":
        raise NotFound("there is no such path in the protocol", hint="/v2/models/<model>/versions/<version>/infer")
    pinned = parts[3] if len(parts) == 5 else pinned_by(headers)
    body = await body_of(headers, receive)
    length = headers.get(b"inference-header-content-length")
    live = taking(route, pinned)
    question = oip.parse(body, None if length is None else length.decode("latin-1"), live.caller)
    if live.shown and question.wanted is not None:
        oip.chosen(question, live.shown)  # refuse before the model is asked
    explain = explain or question.parameters.get("explain") is True
    answered = await desk.answer(
        route, question, headers, protocol="oip", started=started, pinned=pinned, explain=explain, failed=failed
    )
    model = (parts[1], str(answered.live.revision.number))
    content, header = oip.answer_body(question, answered.outputs, answered.answer, model, answered.parameters())
    more: tuple[Header, ...] = (JSON,)
    if header is not None:
        more = (_BINARY, (b"inference-header-content-length", b"%d" % header))
    return Reply(200, content, more + marks(answered))

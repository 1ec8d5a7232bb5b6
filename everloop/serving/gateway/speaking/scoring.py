"""Below `/endpoints`: MLflow's scoring protocol, plain predictions, tables in Arrow, and what an endpoint takes.

/endpoints/<project>/<name>/invocations   MLflow's scoring protocol; also ping, health, version
/endpoints/<project>/<name>/predict       JSON by column names, or a table as an Arrow stream or file
/endpoints/<project>/<name>/openapi.json  the description of these paths for this endpoint

`<project>.<name>` in the place of `<project>/<name>` is the same: MLflow's deployment client has one name.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from everloop.core.errors import EverloopError, NotFound, Unavailable
from everloop.serving import protocol
from everloop.serving.gateway.answer import Answered, Failed
from everloop.serving.gateway.faults import told
from everloop.serving.gateway.fleet import Live
from everloop.serving.gateway.passing.relay import Receive, Scope
from everloop.serving.gateway.speaking.asking import FAILED, Desk, explains, marks, pinned_by, taking
from everloop.serving.gateway.speaking.replies import JSON, Reply, as_json, body_of, error_headers, need_method, said
from everloop.serving.protocol import openapi, scoring
from everloop.serving.protocol.question import Question

MLFLOW_VERSION = version("mlflow-skinny").encode()
"""What `/version` answers, as MLflow's own scoring server does."""
LEAVES = frozenset(("invocations", "predict", "ping", "health", "version", "openapi.json"))
_ARROW = "application/vnd.apache.arrow"
DEPLOYMENTS = "/api/2.0/endpoints/"
"""Where MLflow's deployment client lists endpoints."""


def address_of(path: str) -> tuple[str, str] | None:
    """(`project.name`, leaf) of a path below `/endpoints` that is answered here."""
    parts = path.split("/")
    if parts[1:2] != ["endpoints"] or parts[-1] not in LEAVES:
        return None
    if len(parts) == 5:
        return f"{parts[2]}.{parts[3]}", parts[4]
    return (parts[2], parts[3]) if len(parts) == 4 and "." in parts[2] else None


def nothing(path: str) -> Reply:
    """What a path below `/endpoints` gets that no endpoint has: a client of endpoints reads no page."""
    error = NotFound(f"there is nothing at {path[:200]}", hint="an endpoint has " + ", ".join(sorted(LEAVES)))
    return Reply(error.status, scoring.error_body(said(error), error.status), error_headers(error))


async def reply(desk: Desk, scope: Scope, receive: Receive, address: str, leaf: str) -> Reply:
    """Answer one request to an endpoint's path."""
    headers = dict(scope["headers"])
    try:
        desk.door.check(headers, desk.fleet.table, address)
        if leaf not in ("invocations", "predict"):
            need_method(scope, "GET", "HEAD")
            return _told(desk, address, leaf)
        need_method(scope, "POST")
        asked = _Asked(headers, address, leaf, explains(scope), scope.get(FAILED))
        return await _answer(desk, asked, receive)
    except EverloopError as error:
        content = scoring.error_body(said(error, address[:200]), error.status)
        return Reply(error.status, content, error_headers(error))
    except Exception as error:  # noqa: BLE001 - the edge of the process: callers learn a fault's id, the log the rest
        fault = told(f"{scope['method']} {scope['path']}", error)
        return Reply(fault.status, scoring.error_body(said(fault), fault.status))


async def deployments(desk: Desk, scope: Scope) -> Reply:
    """`/api/2.0/endpoints/`: the endpoints as MLflow's deployment client lists them, or one of them."""
    headers = dict(scope["headers"])
    name = scope["path"].removeprefix(DEPLOYMENTS).strip("/").replace("/", ".")
    try:
        desk.door.check(headers, desk.fleet.table, name)
        need_method(scope, "GET", "HEAD")
        if name:
            return as_json(_deployed(name, desk.fleet.route(name).champion))
        reach = desk.door.reach(headers, desk.fleet.table)
        routes = [(address, route) for address, route in sorted(desk.fleet.routes.items()) if route.live]
        listed = [_deployed(address, route.champion) for address, route in routes if reach(address)]
        return as_json({"endpoints": listed})
    except EverloopError as error:
        return Reply(error.status, scoring.error_body(said(error), error.status), error_headers(error))


def _deployed(address: str, live: Live) -> dict[str, Any]:
    return {
        "name": address,
        "endpoint_type": "predictions",
        "model": {"name": f"{address} revision {live.revision.number}", "provider": "everloop"},
        "endpoint_url": f"/endpoints/{address}/invocations",
        "limit": None,
    }


def _told(desk: Desk, address: str, leaf: str) -> Reply:
    plain = ((b"content-type", b"text/plain; charset=utf-8"),)
    if leaf == "version":
        return Reply(200, MLFLOW_VERSION, plain)
    live = desk.fleet.route(address).champion
    if leaf == "openapi.json":
        return as_json(openapi.describe(address, live.revision.number, live.caller, live.shown, live.example))
    if not live.ready and live.state != "asleep":
        raise Unavailable(live.reason or f"{address} is starting")
    return Reply(200, b"\n", plain)


@dataclass(frozen=True, slots=True)
class _Asked:
    headers: Mapping[bytes, bytes]
    address: str
    leaf: str
    explain: bool
    failed: Failed | None


async def _answer(desk: Desk, asked: _Asked, receive: Receive) -> Reply:
    headers, leaf = asked.headers, asked.leaf
    started = asked.failed.started if asked.failed else time.monotonic()
    route = desk.fleet.route(asked.address)
    pinned = pinned_by(headers)
    layout = taking(route, pinned).caller
    body = await body_of(headers, receive)
    kind = headers.get(b"content-type", b"").decode("latin-1")
    if leaf == "invocations":
        question = scoring.parse_invocation(body, kind, layout)
    elif kind.startswith(_ARROW) or body[:4] in (b"\xff\xff\xff\xff", b"ARRO"):
        question = Question(*protocol.arrow.read(body, layout))
    else:
        question = scoring.parse_plain(body, layout)
    answered = await desk.answer(
        route,
        question,
        headers,
        protocol=leaf,
        started=started,
        pinned=pinned,
        explain=asked.explain,
        failed=asked.failed,
    )
    if leaf == "predict" and _ARROW in headers.get(b"accept", b"").decode("latin-1"):
        return _table(answered)
    content = scoring.answer_body(answered.outputs, answered.answer, answered.parameters())
    return Reply(200, content, (JSON, *marks(answered)))


def _table(answered: Answered) -> Reply:
    content = protocol.arrow.write(answered.outputs, answered.answer, answered.parameters())
    return Reply(200, content, ((b"content-type", _ARROW.encode() + b".stream"), *marks(answered)))

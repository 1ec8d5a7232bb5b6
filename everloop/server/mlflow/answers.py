"""Answers: JSON objects, and errors with MLflow's codes.

The client asks again, up to seven times, after 408, 429, 500, 502, 503 and 504: so a failure that would only repeat
itself never has one of these.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from everloop.core.errors import (
    Conflict,
    CorruptObject,
    EverloopError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    PolicyRefused,
    StorageFull,
    Unavailable,
)

_CODES: tuple[tuple[type[EverloopError], str, int], ...] = (
    (StorageFull, "RESOURCE_LIMIT_EXCEEDED", 507),
    (Unavailable, "TEMPORARILY_UNAVAILABLE", 503),
    (InvalidInput, "INVALID_PARAMETER_VALUE", 400),
    (NotAuthenticated, "UNAUTHENTICATED", 401),
    (PermissionDenied, "PERMISSION_DENIED", 403),
    (NotFound, "RESOURCE_DOES_NOT_EXIST", 404),
    (PolicyRefused, "PERMISSION_DENIED", 403),
    (CorruptObject, "DATA_LOSS", 422),
)


def json_answer(content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON object, which no browser will take for anything else."""
    every = {"X-Content-Type-Options": "nosniff", **(headers or {})}
    return Response(orjson.dumps(content), status, every, media_type="application/json")


def error_answer(error: EverloopError) -> Response:
    """An error of ours, as MLflow's client knows it; the hint joins the message."""
    code, status = _code(error)
    hint = "" if not error.hint or error.hint in error.message else f" ({error.hint})"
    headers = {"WWW-Authenticate": 'Basic realm="everloop"'} if status == 401 else None
    return json_answer({"error_code": code, "message": error.message + hint}, status, headers)


def no_endpoint(path: str) -> Response:
    """The answer to what this server does not offer: the client then tries something else."""
    return json_answer({"error_code": "ENDPOINT_NOT_FOUND", "message": f"{path} is not offered by this server"}, 404)


def gone() -> Response:
    """The answer to a client that does not wait for one."""
    return json_answer({"error_code": "CANCELLED", "message": "the client went away"}, 499)


def not_implemented(why: str) -> Response:
    """The answer to what this server knows and does not do; clients do not ask again."""
    return json_answer({"error_code": "NOT_IMPLEMENTED", "message": why}, 501)


def _code(error: EverloopError) -> tuple[str, int]:
    if isinstance(error, Conflict):
        moved = "retry" in error.details or "current" in error.details
        return ("RESOURCE_CONFLICT", 409) if moved else ("RESOURCE_ALREADY_EXISTS", 400)
    for kind, code, status in _CODES:
        if isinstance(error, kind):
            return code, status
    return "INTERNAL_ERROR", 500

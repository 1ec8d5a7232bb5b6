"""Errors as answers; and what nobody foresaw: the same form with an id, and under that id the rest in the log."""

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from everloop.core.errors import EverloopError
from everloop.server.mlflow.answers import error_answer
from everloop.server.web.pages import render
from everloop.serving.gateway.faults import told

_PROTOCOL = ("/api/", "/ajax-api/")


def problem_response(error: EverloopError) -> JSONResponse:
    """RFC 9457 problem details."""
    return JSONResponse(error.problem(), error.status, media_type="application/problem+json")


async def answer_error(_request: Request, error: Exception) -> JSONResponse:
    """The answer to an error of our tree."""
    assert isinstance(error, EverloopError)
    return problem_response(error)


class Faults:
    """Wraps an application. Its faults are bugs of ours: the caller learns no more of them than their id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. A fault in the middle of an answer cuts the answer off, so that the caller sees it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = False

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            fault = told(f"{scope['method']} {scope['path']}", error)
            if begun:
                raise
            await answer(scope, fault)(scope, receive, send)


def answer(scope: Scope, error: EverloopError) -> Response:
    """The error in the words of whoever asks: MLflow's client, a browser, or any other program."""
    if scope["path"].startswith(_PROTOCOL):
        return error_answer(error)
    if "text/html" in Headers(scope=scope).get("accept", ""):
        return render("outside.html", {"error": error, "title": "This did not work"}, status=error.status)
    return problem_response(error)

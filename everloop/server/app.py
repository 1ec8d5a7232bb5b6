"""The server's application: REST, the MLflow protocol, pages, sign-in; behind the gateway, which passes it the rest."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from everloop.catalog.context import Context
from everloop.core.clock import Micros, parse_time
from everloop.core.errors import EverloopError, InvalidInput
from everloop.core.ids import checked_name
from everloop.server.auth import Authenticator, login_routes
from everloop.server.engines.asking import Engines
from everloop.server.faults import Faults, answer_error, problem_response
from everloop.server.feeds.pushing import Feeds
from everloop.server.mlflow.routes import mlflow_routes
from everloop.server.rest import PREFIX, rest_app
from everloop.server.web.routes import web_routes
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations

TIME_HEADER = "Everloop-Time"
WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"


def build_app(workspace: Workspace, names: frozenset[str] = frozenset(), *, hand: str = "") -> Starlette:
    """The whole application over an opened workspace.

    `names` are host names, beside the bind address, that mean us; `hand` is the secret of the gateway before us.
    """
    load_operations()
    auth = Authenticator(workspace.catalog, workspace.clock, host=workspace.settings.host, names=names)
    engines = Engines(workspace.settings)
    open_context = context_opener(workspace, auth, {"engines": engines})
    feeds = Feeds(open_context, workspace.home, fsync=workspace.settings.fsync)
    routes: list[BaseRoute] = [
        Route("/health", _health),
        feeds.route,
        *login_routes(auth),
        Mount(PREFIX, rest_app(open_context)),
        *mlflow_routes(lambda request: open_context(request, _mlflow_project(request, workspace)), hand),
        *web_routes(open_context, workspace.settings.project),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Faults), Middleware(_InPlace, auth=auth)],
        exception_handlers={EverloopError: answer_error},
    )
    app.state.engines, app.state.feeds = engines, feeds  # whoever stops the server closes them
    return app


class _InPlace:
    """Refuses a foreign Host or Origin before any route sees the request, whatever the method."""

    def __init__(self, app: ASGIApp, auth: Authenticator) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":  # whoever asks that has no name for us
            try:
                self._auth.check_place(Request(scope))
            except EverloopError as error:
                return await problem_response(error)(scope, receive, send)
        return await self._app(scope, receive, send)


def context_opener(
    workspace: Workspace, auth: Authenticator, ports: Mapping[str, Any] | None = None
) -> Callable[[Request, str], Context]:
    """Makes the context of a request: who asks, for which project, when.

    The header `Everloop-Time` sets the time in a replay workspace; any other refuses it (`InvalidInput`).
    """

    def open_context(request: Request, project: str) -> Context:
        checked_name(project)
        actor = auth.actor(request, project)
        ctx = workspace.context(actor, project, at=_time(request))
        return replace(ctx, ports={**ctx.ports, **(ports or {})})

    return open_context


def _time(request: Request) -> Micros | None:
    given = request.headers.get(TIME_HEADER)
    if given is None:
        return None
    try:
        return parse_time(given)
    except ValueError as error:
        raise InvalidInput(
            f"{TIME_HEADER}: {given!r} is not a time", hint="ISO 8601, for example 2013-05-01T00:00:00Z"
        ) from error


def _mlflow_project(request: Request, workspace: Workspace) -> str:
    return request.headers.get(WORKSPACE_HEADER) or workspace.settings.project


async def _health(_request: Request) -> Response:
    return PlainTextResponse("OK")

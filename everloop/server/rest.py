"""REST: one loop over the operations. `POST /rest/v1/<project>/<operation>` takes the command, gives the answer."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from everloop import __version__
from everloop.catalog.context import Context
from everloop.catalog.operation import Operation, invoke, operations
from everloop.core.errors import EverloopError, InvalidInput, NotFound
from everloop.server.faults import Faults, answer_error, problem_response

OpenContext = Callable[[Request, str], Context]
"""Makes the context of a request for a project: who asks, when, where."""

PREFIX = "/rest/v1"


def rest_app(open_context: OpenContext) -> FastAPI:
    """The REST application with its OpenAPI document at `/openapi.json`; mount it at `PREFIX`."""
    app = FastAPI(
        title="Everloop",
        version=__version__,
        description="Every operation of Everloop. Errors are RFC 9457 problem details.",
        # the interactive pages of FastAPI load scripts from elsewhere; ours work offline
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Faults)
    app.router.route_class = _authenticated(open_context)
    for op in operations().values():
        _add_route(app, op)
    app.add_exception_handler(EverloopError, answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    return app


def _authenticated(open_context: OpenContext) -> type[APIRoute]:
    """Routes that know who asks before they look at what is asked: a body is read for those who may come in."""

    class Authenticated(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def first(request: Request) -> Response:
                project = request.path_params["project"]
                request.state.context = await run_in_threadpool(open_context, request, project)
                return await handle(request)

            return first

    return Authenticated


def _add_route(app: FastAPI, op: Operation) -> None:
    def endpoint(request: Request, project: str, command: Any) -> Any:  # noqa: ARG001 - the document names it
        return invoke(request.state.context, op, command)

    endpoint.__annotations__ = {"request": Request, "project": str, "command": op.command, "return": op.answer}
    problems = {status: {"description": "problem details (RFC 9457)"} for status in ("400", "401", "403", "404", "409")}
    app.add_api_route(
        f"/{{project}}/{op.name}",
        endpoint,
        methods=["POST"],
        response_model=op.answer,
        operation_id=op.name,
        summary=op.summary,
        description=(op.function.__doc__ or "") + f"\n\nPermission: `{op.needs}`.",
        tags=[op.name.partition(".")[0]],
        responses=problems,  # type: ignore[arg-type]
    )


async def _answer_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return problem_response(
        InvalidInput(f"{place}: {first['msg']}" if place else str(first["msg"]), hint="see /rest/v1/openapi.json")
    )


async def _answer_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem_response(NotFound("there is no such operation", hint="/rest/v1/openapi.json lists them"))
    return problem_response(InvalidInput(str(error.detail), hint="operations are called with POST"))

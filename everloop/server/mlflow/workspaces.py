"""MLflow's workspaces: our projects. Every other call names one in the header `X-MLFLOW-WORKSPACE`."""

from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from everloop.catalog import refs
from everloop.catalog.context import Context
from everloop.catalog.tracking import experiments
from everloop.core.errors import Conflict, EverloopError, NotFound
from everloop.core.grants import Target
from everloop.core.ids import checked_name
from everloop.server.mlflow.answers import json_answer, not_implemented
from everloop.server.mlflow.endpoint import Endpoint, call
from everloop.server.mlflow.wire import Arguments, body_arguments

_LARGEST_REQUEST = 1 << 20

Enter = Callable[[str], Context]
"""Makes the caller's context in another project, or raises what they would be told there."""


async def listing(ctx: Context, enter: Enter) -> Response:
    """GET workspaces: the projects that the caller may read."""
    names = await run_in_threadpool(_known, ctx, enter)
    return json_answer({"workspaces": [{"name": name} for name in names]})


async def create(ctx: Context, request: Request) -> Response:
    """POST workspaces: open a project for runs. What it serves and approves is set up by its own team."""
    args = await body_arguments(request, _LARGEST_REQUEST)
    return json_answer(await run_in_threadpool(call, ctx, CREATE, {"name": args.text("name")}), 201)


async def show(_ctx: Context, request: Request, enter: Enter) -> Response:
    """GET workspaces/<name>."""
    name = request.path_params["name"]

    def found() -> dict[str, Any]:
        there = enter(checked_name(name))
        there.need("read", Target("project", name))
        with there.catalog.read() as tx:
            if not (experiments.has_default(tx, name) or name in refs.projects(tx)):
                raise NotFound(f"Workspace '{name}' not found", hint="workspaces lists those that you may read")
        return {"workspace": {"name": name}}

    return json_answer(await run_in_threadpool(found))


async def change(_ctx: Context, _request: Request) -> Response:
    """PATCH and DELETE workspaces/<name>: a project has no description here, and is not removed from here."""
    return not_implemented("a project is renamed and removed by its administrators, not through this protocol")


def _create(ctx: Context, args: Arguments) -> dict[str, Any]:
    name = checked_name(args.text("name"))
    with ctx.write() as tx:
        if experiments.has_default(tx, name) or name in refs.projects(tx):
            raise Conflict(f"Workspace '{name}' already exists.", hint=f"enter it: X-MLFLOW-WORKSPACE: {name}")
        experiments.ensure_default(tx, name, ctx.now())
    return {"workspace": {"name": name}}


def _known(ctx: Context, enter: Enter) -> list[str]:
    with ctx.read() as tx:
        candidates = sorted({ctx.project, *refs.projects(tx), *experiments.projects(tx)})
    return [name for name in candidates if _readable(name, enter)]


def _readable(name: str, enter: Enter) -> bool:
    try:
        enter(name).need("read", Target("project", name))
    except EverloopError:
        return False
    return True


CREATE = Endpoint(
    "POST",
    "workspaces/create",
    _create,
    lambda _ctx, args: Target("project", args.text("name")),
    audited=True,
    needs="run.write",
).operation

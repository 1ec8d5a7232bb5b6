"""The pages' addresses. Each page is a function from a visit to a response, run in a thread."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from everloop.catalog import refs
from everloop.core.errors import EverloopError, InvalidInput, NotAuthenticated, NotFound, PermissionDenied
from everloop.server.web import following
from everloop.server.web.events import Streams
from everloop.server.web.pages import render
from everloop.server.web.views import (
    alarms,
    audit,
    catalogue,
    changes,
    data,
    endpoints,
    environments,
    features,
    feeds,
    models,
    people,
    versions,
)
from everloop.server.web.views.explaining import bisect, costs, flows, searches, why
from everloop.server.web.views.tracking import compare, curves, files, run, table, traces
from everloop.server.web.visit import OpenContext, Visit

Page = Callable[[Visit], Response]
Posted = tuple[tuple[str, str], ...]
_LARGEST_FORM = 256 << 10
_MOST_FIELDS = 1100

PAGES: tuple[tuple[str, Page], ...] = (
    ("", environments.lanes),
    ("/environments/{name:path}", environments.show),
    ("/changes", changes.index),
    ("/changes/{number:int}", changes.show),
    ("/models", models.index),
    ("/models/{name}", models.history),
    ("/models/{name}/compare", models.compare),
    ("/models/{name}/{number:int}", models.show),
    ("/models/{name}/{number:int}/files/{path:path}", models.raw),
    ("/runs", table.index),
    ("/runs/{run}", run.show),
    ("/runs/{run}/system", run.system),
    ("/runs/{run}/artifacts", files.tree),
    ("/runs/{run}/artifacts/{path:path}", files.tree),
    ("/runs/{run}/raw/{path:path}", files.raw),
    ("/runs/{run}/console", run.console),
    ("/runs/{run}/code", run.code),
    ("/runs/{run}/traces", traces.of_run),
    ("/traces", traces.index),
    ("/traces/{trace}", traces.show),
    ("/runs/{run}/metrics/{metric:path}", curves.show),
    ("/compare", compare.compare),
    ("/lineage/{spec:path}", versions.lineage),
    ("/versions/{spec:path}", versions.show),
    ("/why", why.show),
    ("/bisect/{spec:path}", bisect.show),
    ("/costs", costs.index),
    ("/searches", searches.index),
    ("/searches/{search}", searches.show),
    ("/baselines/{name}", searches.baseline),
    ("/flows", flows.index),
    ("/flows/{flow}", flows.show),
    ("/flows/{flow}/steps/{step:path}", flows.step),
    ("/data", data.index),
    ("/data/{name}", data.show),
    ("/data/{name}/failing", data.failing),
    ("/data/{name}/files/{path:path}", data.file),
    ("/feeds", feeds.index),
    ("/features", features.index),
    ("/features/{view}", features.show),
    ("/endpoints", endpoints.index),
    ("/endpoints/{name}", endpoints.show),
    ("/endpoints/{name}/stats", endpoints.stats),
    ("/predictions/{id}", endpoints.prediction),
    ("/alarms", alarms.index),
    ("/alarms/{id}", alarms.show),
    ("/audit", audit.index),
    ("/search", catalogue.search),
    ("/account", people.account),
)
ACTS: tuple[tuple[str, Page, Page], ...] = (
    ("/changes/{number:int}/{act}", changes.act, changes.show),
    ("/alarms/{id}/{act}", alarms.act, alarms.show),
    ("/flows/{flow}/{act}", flows.act, flows.show),
    ("/costs/{act}", costs.act, costs.index),
    ("/models/{name}/{act}", models.act, models.history),
    ("/runs/acts/{act}", table.act, table.index),
    ("/runs/views/{act}", table.act, table.index),
    ("/runs/{run}/{act}", run.act, run.show),
    ("/environments/{name:path}/rollback", environments.rollback, environments.show),
)
"""Address of a form, what it does, and the page that says so when it is refused."""


def web_routes(open_context: OpenContext, default_project: str) -> list[BaseRoute]:
    """All pages and the static files. Mount them last: pages catch what is left."""

    async def home(_request: Request) -> Response:
        return RedirectResponse(f"/{default_project}", headers={"Cache-Control": "no-store"})

    streams = Streams()

    async def events(request: Request) -> Response:
        project = request.path_params["project"]
        ctx = await run_in_threadpool(open_context, request, project)
        return await streams.answer(ctx, request)

    async def run_events(request: Request) -> Response:
        ctx = await run_in_threadpool(open_context, request, request.path_params["project"])
        return await streams.follow(ctx, request, partial(curves.state, run=request.path_params["run"]))

    async def flow_events(request: Request) -> Response:
        ctx = await run_in_threadpool(open_context, request, request.path_params["project"])
        return await streams.follow(ctx, request, partial(flows.state, flow=request.path_params["flow"]))

    async def flow_news(request: Request) -> Response:
        ctx = await run_in_threadpool(open_context, request, request.path_params["project"])
        return await following.follow(ctx, request, request.path_params["flow"], streams)

    async def search_events(request: Request) -> Response:
        ctx = await run_in_threadpool(open_context, request, request.path_params["project"])
        return await streams.follow(ctx, request, partial(searches.state, search=request.path_params["search"]))

    return [
        Route("/", home),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        Route("/{project}/events", events),
        Route("/{project}/runs/{run}/live", run_events),
        Route("/{project}/flows/{flow}/live", flow_events),
        Route("/{project}/flows/{flow}/events", flow_news),
        Route("/{project}/searches/{search}/live", search_events),
        *(Route("/{project}" + path, serve(open_context, show), methods=["GET"]) for path, show in PAGES),
        *(Route("/{project}" + path, take(open_context, act, show), methods=["POST"]) for path, act, show in ACTS),
        Route("/{project}/{rest:path}", serve(open_context, _nothing), methods=["GET"]),
    ]


def serve(open_context: OpenContext, show: Page) -> Callable[..., object]:
    """Wrap a page: open the context, run it in a thread, show errors of ours as a page."""

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(_guarded, open_context, request, show)

    return endpoint


def take(open_context: OpenContext, act: Page, show: Page) -> Callable[..., object]:
    """Wrap a form: what is refused is said on the page that it came from."""

    def work(visit: Visit) -> Response:
        try:
            return act(visit)
        except EverloopError as error:
            return show(replace(visit, refused=error))

    async def endpoint(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LARGEST_FORM:
                raise InvalidInput("the form is too large", hint=f"send at most {_LARGEST_FORM >> 10} kB")
        try:
            posted = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError as error:
            raise InvalidInput("the form has too many fields", hint=f"at most {_MOST_FIELDS}") from error
        return await run_in_threadpool(_guarded, open_context, request, work, tuple(posted))

    return endpoint


def _guarded(open_context: OpenContext, request: Request, work: Page, posted: Posted = ()) -> Response:
    """Run a page for whoever asks; without a way in, say how to sign in."""
    project = request.path_params["project"]
    try:
        ctx = open_context(request, project)
    except NotAuthenticated as error:
        return render("signin.html", {"error": error, "title": "Sign in"}, status=error.status)
    except (InvalidInput, PermissionDenied) as error:
        return render("outside.html", {"error": error, "title": "Refused"}, status=error.status)
    visit = Visit(ctx, request, dict(posted), posted)
    try:
        with ctx.read() as tx:
            if not refs.all(tx, project, "env/"):
                raise NotFound(f"there is no project {project!r} here", hint="check the address")
        return work(visit)
    except EverloopError as error:
        title = {404: "Not found", 403: "Not permitted"}.get(error.status, "This did not work")
        return visit.page("error.html", title=title, error=error, status=error.status)


def _nothing(visit: Visit) -> Response:
    raise NotFound(f"there is no page {visit.request.url.path}", hint="the sections above lead everywhere")

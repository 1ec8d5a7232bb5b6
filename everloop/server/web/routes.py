"""The pages' addresses. Each page is a function from a context and a request to a response, run in a thread."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from everloop.catalog.context import Context
from everloop.core.errors import EverloopError
from everloop.server.web.pages import OpenContext, page

Page = Callable[[Context, Request], Response]
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


def web_routes(open_context: OpenContext, default_project: str) -> list[BaseRoute]:
    """All pages, the static files, and Plotly out of its wheel. Mount them last: pages catch what is left."""

    async def home(_request: Request) -> Response:
        return RedirectResponse(f"/{default_project}")

    return [
        Route("/", home),
        Route("/static/plotly.min.js", _plotly),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]


def serve(open_context: OpenContext, show: Page) -> Callable[..., object]:
    """Wrap a page: open the context, run it in a thread, show errors of ours as a page."""

    def work(request: Request) -> Response:
        ctx = open_context(request, request.path_params["project"])
        try:
            return show(ctx, request)
        except EverloopError as error:
            return page(
                ctx,
                "error.html",
                title="Not found" if error.status == 404 else "Error",
                error=error,
                status=error.status,
            )

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(work, request)

    return endpoint


async def _plotly(_request: Request) -> Response:
    found = find_spec("plotly")
    assert found is not None
    assert found.origin is not None
    return FileResponse(Path(found.origin).parent / "package_data" / "plotly.min.js", headers=_FOREVER)

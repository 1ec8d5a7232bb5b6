"""The routes: one for each endpoint and prefix, the artifact proxy, and a clear "no" to all else."""

from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from everloop.catalog.context import Context
from everloop.catalog.operation import Operation
from everloop.catalog.tracking import experiments as stored_experiments
from everloop.catalog.tracking import logged
from everloop.catalog.tracking import runs as stored_runs
from everloop.core.errors import EverloopError
from everloop.core.ids import checked_name
from everloop.server.index import Index
from everloop.server.mlflow import experiments, models, registry, runs, workspaces
from everloop.server.mlflow.answers import error_answer, gone, json_answer, no_endpoint
from everloop.server.mlflow.endpoint import Endpoint, call
from everloop.server.mlflow.files import artifacts, handing, transfer
from everloop.server.mlflow.genai import assessments, datasets, figures, former, ingest, scorers, traces, webhooks
from everloop.server.mlflow.wire import Arguments, arguments_of, read_arguments, small_body

VERSION = "3.17.2"
"""The version of MLflow whose protocol this is; clients ask for it."""

WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"
_HEADER_BYTES = WORKSPACE_HEADER.lower().encode()
ENDPOINTS: tuple[Endpoint, ...] = (
    *experiments.ENDPOINTS,
    *runs.ENDPOINTS,
    *artifacts.ENDPOINTS,
    *models.ENDPOINTS,
    *registry.ENDPOINTS,
    *traces.ENDPOINTS,
    *former.ENDPOINTS,
    *figures.ENDPOINTS,
    *assessments.ENDPOINTS,
    *datasets.ENDPOINTS,
    *scorers.ENDPOINTS,
    *webhooks.ENDPOINTS,
)

OpenContext = Callable[[Request], Context]
"""Makes the context of a request: who asks, for which project. It runs in a thread, and may raise our errors."""

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_PREFIXES = ("/api", "/ajax-api")
_SLASHLESS = "experiments/search-datasets"
_LARGEST = 64 << 20
_LARGEST_BATCH = 1_000_000
_INFO = {
    "store_type": "SqlStore",
    "workspaces_enabled": True,
    "trace_archival_enabled": False,
    "multipart_uploads_enabled": False,
    "multipart_downloads_enabled": False,
    "presigned_upload_run_id_supported": True,
    "presigned_upload_model_id_supported": True,
    "features_enabled": {"gateway": False},
}


_TRANSFERS = (
    ("POST", "mlflow-artifacts/mpu/create/{path:path}", transfer.create),
    ("PUT", "mlflow-artifacts/mpu/parts/{upload}/{number:int}", transfer.part),
    ("POST", "mlflow-artifacts/mpu/complete/{path:path}", transfer.complete),
    ("POST", "mlflow-artifacts/mpu/abort/{path:path}", transfer.abort),
    ("GET", "mlflow-artifacts/presigned/{path:path}", transfer.presigned),
    ("POST", "mlflow/artifacts/presigned-upload-url", transfer.upload_address),
    ("POST", "mlflow/artifacts/presigned-download-url", transfer.download_address),
)


def workspace_of(request: Request, default: str) -> str:
    """The project that a request is for."""
    return request.headers.get(WORKSPACE_HEADER, "").strip() or request.query_params.get("workspace", "") or default


def mlflow_routes(open_context: OpenContext, hand: str = "") -> list[BaseRoute]:
    """Every route of the protocol that is offered; mount them at the root of the server.

    `hand` is the secret that the gateway before us knows, if there is one.
    """
    served = _Served(open_context, handing.Hands(hand))
    found: list[BaseRoute] = [
        Route("/version", _version, methods=["GET"]),
        Route("/health", _health, methods=["GET"]),
        Route("/graphql", _nothing, methods=_METHODS),
        Route("/v1/traces", served.plain(ingest.export_spans), methods=["POST"]),
        Route("/get-artifact", served.get_artifact, methods=["GET"]),
        Route("/model-versions/get-artifact", served.get_version_artifact, methods=["GET"]),
    ]
    for prefix in _PREFIXES:
        found += [served.route(prefix, endpoint) for endpoint in ENDPOINTS]
        # the protocol's own definition of this one lacks a slash, and clients made from it ask so
        found += [served.route(prefix, one, home="mlflow") for one in ENDPOINTS if one.path == _SLASHLESS]
        proxy = f"{prefix}/2.0/mlflow-artifacts/artifacts"
        found += [
            Route(f"{prefix}/3.0/mlflow/server-info", _server_info, methods=["GET"]),
            Route(f"{prefix}/3.0/mlflow/get-trace-artifact", served.plain(ingest.trace_artifact), methods=["GET"]),
            Route(f"{prefix}/3.0/mlflow/workspaces", served.list_workspaces, methods=["GET"]),
            Route(f"{prefix}/3.0/mlflow/workspaces", served.plain(workspaces.create), methods=["POST"]),
            Route(f"{prefix}/3.0/mlflow/workspaces/{{name}}", served.show_workspace, methods=["GET"]),
            Route(
                f"{prefix}/3.0/mlflow/workspaces/{{name}}",
                served.plain(workspaces.change),
                methods=["PATCH", "DELETE"],
            ),
            *(Route(f"{prefix}/2.0/{path}", served.plain(one), methods=[method]) for method, path, one in _TRANSFERS),
            Route(f"{prefix}/2.0/mlflow/logged-models/{{model_id}}/artifacts/files", served.get_model_artifact),
            Route(f"{prefix}/2.0/mlflow/upload-artifact", served.upload_artifact, methods=["POST"]),
            Route(proxy, served.list_proxy, methods=["GET"]),
            Route(f"{proxy}/{{path:path}}", served.proxy, methods=["GET", "PUT", "POST", "DELETE"]),
            Route(f"{prefix}/{{rest:path}}", _nothing, methods=_METHODS),
        ]
    # those that the index holds are looked at once more, last, for requests by other methods
    return [Index(found), *sorted(found, key=lambda route: "{" not in getattr(route, "path", ""))]


class _Served:
    """The routes' functions, with what they share."""

    def __init__(self, open_context: OpenContext, hands: handing.Hands) -> None:
        self._open_context = open_context
        self._hands = hands
        self._ready: set[str] = set()
        """Projects whose Default experiment is known to exist."""

    def route(self, prefix: str, endpoint: Endpoint, home: str = "/mlflow") -> Route:
        """The route of one endpoint."""
        operation, largest = endpoint.operation, _LARGEST
        if endpoint.path == "runs/log-batch":
            largest = _LARGEST_BATCH

        async def answer(request: Request) -> Response:
            try:
                body = await small_body(request)
            except ClientDisconnect:
                return gone()
            if body is not None:
                return await run_in_threadpool(self._at_once, request, operation, body, largest)
            return await self._guarded(request, lambda ctx: self._json(ctx, request, operation, largest))

        return Route(f"{prefix}/{endpoint.api}{home}/{endpoint.path}", answer, methods=[endpoint.method])

    async def proxy(self, request: Request) -> Response:
        """The artifact proxy."""
        path = request.path_params["path"]
        if request.method == "POST" and not self._hands.reach(request):
            return await _nothing(request)
        if request.method == "PUT":
            try:
                body = await small_body(request)
            except ClientDisconnect:
                return gone()
            if body is not None:
                return await run_in_threadpool(self._kept, request, path, body)

        async def answer(ctx: Context) -> Response:
            if request.method == "PUT":
                return json_answer(await artifacts.upload(ctx, request, path))
            if request.method == "POST":
                return await handing.post(ctx, request, path)
            if request.method == "DELETE":
                return json_answer(await artifacts.remove(ctx, path))
            return await self._download(ctx, request, path)

        return await self._guarded(request, answer)

    async def list_proxy(self, request: Request) -> Response:
        """The artifact proxy's list."""

        async def answer(ctx: Context) -> Response:
            arguments = {"path": request.query_params.get("path", "")}
            return json_answer(await run_in_threadpool(call, ctx, artifacts.LIST, arguments))

        return await self._guarded(request, answer)

    async def get_artifact(self, request: Request) -> Response:
        """GET /get-artifact?run_id=&path=, of the web pages."""

        async def answer(ctx: Context) -> Response:
            return await self._download(ctx, request, await run_in_threadpool(_run_path, ctx, request))

        return await self._guarded(request, answer)

    async def get_model_artifact(self, request: Request) -> Response:
        """GET logged-models/<id>/artifacts/files?artifact_file_path=, of the web pages."""

        async def answer(ctx: Context) -> Response:
            return await self._download(ctx, request, await run_in_threadpool(_model_path, ctx, request))

        return await self._guarded(request, answer)

    async def get_version_artifact(self, request: Request) -> Response:
        """GET /model-versions/get-artifact?name=&version=&path=, of the web pages."""

        async def answer(ctx: Context) -> Response:
            return await self._download(ctx, request, await run_in_threadpool(_version_path, ctx, request))

        return await self._guarded(request, answer)

    async def _download(self, ctx: Context, request: Request, path: str) -> Response:
        hand = self._hands.sending if self._hands.reach(request) else None
        return await artifacts.download(ctx, path, ranged=request.headers.get("range", ""), hand=hand)

    async def upload_artifact(self, request: Request) -> Response:
        """POST upload-artifact?run_uuid=&path=, of the web pages."""

        async def answer(ctx: Context) -> Response:
            path = await run_in_threadpool(_run_path, ctx, request)
            return json_answer(await artifacts.upload(ctx, request, path))

        return await self._guarded(request, answer)

    async def list_workspaces(self, request: Request) -> Response:
        """GET workspaces: the projects that the caller may enter."""
        return await self._guarded(request, lambda ctx: workspaces.listing(ctx, self._entering(request)))

    async def show_workspace(self, request: Request) -> Response:
        """GET workspaces/<name>."""
        return await self._guarded(request, lambda ctx: workspaces.show(ctx, request, self._entering(request)))

    def plain(
        self, handler: Callable[[Context, Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """A route's function around a handler that reads the request itself."""

        async def answer(request: Request) -> Response:
            return await self._guarded(request, lambda ctx: handler(ctx, request))

        return answer

    def _entering(self, request: Request) -> workspaces.Enter:
        """The same caller, in another project."""

        def enter(name: str) -> Context:
            kept = [(key, value) for key, value in request.headers.raw if key != _HEADER_BYTES]
            headers = [*kept, (_HEADER_BYTES, name.encode())]
            return self._open_context(Request({**request.scope, "headers": headers}))

        return enter

    async def _json(self, ctx: Context, request: Request, operation: Operation, largest: int) -> Response:
        arguments = await read_arguments(request, largest)
        return json_answer(await run_in_threadpool(call, ctx, operation, arguments))

    def _at_once(self, request: Request, operation: Operation, body: bytes, largest: int) -> Response:
        """Who asks, what they ask and the answer, in that order and in one turn of a thread."""
        try:
            ctx = self._context(request)
            return json_answer(call(ctx, operation, arguments_of(request, body, largest)))
        except EverloopError as error:
            return error_answer(error)

    def _kept(self, request: Request, path: str, body: bytes) -> Response:
        """The same for a small artifact."""
        try:
            return json_answer(artifacts.upload_small(self._context(request), path, body))
        except EverloopError as error:
            return error_answer(error)

    async def _guarded(self, request: Request, answer: Callable[[Context], Awaitable[Response]]) -> Response:
        """Open the context, answer, and turn our errors into MLflow's."""
        try:
            ctx = await run_in_threadpool(self._context, request)
            return await answer(ctx)
        except EverloopError as error:
            return error_answer(error)
        except ClientDisconnect:
            return gone()

    def _context(self, request: Request) -> Context:
        ctx = self._open_context(request)
        if ctx.project not in self._ready:
            checked_name(ctx.project)
            with ctx.catalog.read() as tx:
                there = stored_experiments.has_default(tx, ctx.project)
            if not there:
                with ctx.catalog.write() as tx:
                    stored_experiments.ensure_default(tx, ctx.project, ctx.now())
            self._ready.add(ctx.project)
        return ctx


def _run_path(ctx: Context, request: Request) -> str:
    args = Arguments.of_query(request.query_params.multi_items())
    with ctx.read() as tx:
        run = stored_runs.find(tx, ctx.project, args.run())
    return f"{run.experiment}/{run.id}/artifacts/{args.text('path')}"


def _model_path(ctx: Context, request: Request) -> str:
    args = Arguments.of_query(request.query_params.multi_items())
    with ctx.read() as tx:
        model = logged.find(tx, ctx.project, request.path_params["model_id"])
    return f"{model.experiment}/models/{model.id}/artifacts/{args.text('artifact_file_path')}"


def _version_path(ctx: Context, request: Request) -> str:
    args = Arguments.of_query(request.query_params.multi_items())
    return f"{registry.files_of(ctx, args.text('name'), args.integer('version'))}/{args.text('path')}"


async def _version(_request: Request) -> Response:
    return PlainTextResponse(VERSION)


async def _health(_request: Request) -> Response:
    return PlainTextResponse("OK")


async def _server_info(_request: Request) -> Response:
    return json_answer(_INFO)


async def _nothing(request: Request) -> Response:
    return no_endpoint(request.url.path)

"""The Open Inference Protocol's gRPC service: the same questions, answers and errors as over HTTP."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from everloop.core.errors import EverloopError, InvalidInput
from everloop.serving.gateway.faults import told
from everloop.serving.gateway.speaking import oip as speaking
from everloop.serving.gateway.speaking import repository
from everloop.serving.gateway.speaking.asking import Desk, pinned_by, taking
from everloop.serving.gateway.speaking.replies import said
from everloop.serving.protocol import oip
from everloop.serving.protocol.question import MAX_BODY
from everloop.serving.protocol.rpc.messages import METHODS, SERVICE, message
from everloop.serving.protocol.rpc.tensors import question_of, response_of

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    507: grpc.StatusCode.UNAVAILABLE,
}
Handler = Callable[[Any, dict[bytes, bytes]], Awaitable[Any]]


class Service:
    """The service of one gateway, listening at a UNIX socket."""

    def __init__(self, desk: Desk, path: str) -> None:
        """Answer at `path` once `start` was called."""
        self._desk = desk
        self._server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", MAX_BODY), ("grpc.max_send_message_length", MAX_BODY)]
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        self._server.add_insecure_port(f"unix:{path}")

    async def start(self) -> None:
        """Listen."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """End, after calls in flight were answered or `grace` seconds."""
        await self._server.stop(grace)

    def _handlers(self) -> dict[str, Any]:
        calls: dict[str, Handler] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        made = {
            name: grpc.unary_unary_rpc_method_handler(
                self._edge(name, calls[name], message(asked)), None, message(answered).SerializeToString
            )
            for name, (asked, answered) in METHODS.items()
        }
        made["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream, None, message("ModelStreamInferResponse").SerializeToString
        )
        return made

    def _edge(self, name: str, call: Handler, kind: Any) -> Callable[[Any, Any], Awaitable[Any]]:
        """Answer one call: permission first, then the call, errors as statuses."""

        async def answer(content: bytes, context: Any) -> Any:
            try:
                return await self._checked(call, _parsed(kind, content), context)
            except EverloopError as error:
                refused = error
            except Exception as error:  # noqa: BLE001 - the edge of the process: callers learn a fault's id
                refused = told(name, error)
            return await context.abort(_CODES.get(refused.status, grpc.StatusCode.INTERNAL), said(refused))

        return answer

    async def _checked(self, call: Handler, request: Any, context: Any) -> Any:
        headers = _headers(context)
        name = getattr(request, "model_name", "") or getattr(request, "name", "")
        self._desk.door.check_token(headers, self._desk.fleet.table, name)
        return await call(request, headers)

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        """One response for each request, in order; an error is a response too, and the stream goes on."""
        kind, answer = message("ModelInferRequest"), message("ModelStreamInferResponse")
        async for content in requests:
            try:
                yield answer(infer_response=await self._checked(self._infer, _parsed(kind, content), context))
            except EverloopError as error:
                yield answer(error_message=said(error))
            except Exception as error:  # noqa: BLE001 - as above
                yield answer(error_message=said(told("ModelStreamInfer", error)))

    async def _live(self, _request: Any, _headers: dict[bytes, bytes]) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _ready(self, _request: Any, _headers: dict[bytes, bytes]) -> Any:
        return message("ServerReadyResponse")(ready=self._desk.fleet.ready)

    async def _model_ready(self, request: Any, _headers: dict[bytes, bytes]) -> Any:
        live = taking(self._desk.fleet.route(request.name), request.version)
        return message("ModelReadyResponse")(ready=live.ready)

    async def _metadata(self, _request: Any, _headers: dict[bytes, bytes]) -> Any:
        return message("ServerMetadataResponse")(**speaking.server_metadata())

    async def _model_metadata(self, request: Any, _headers: dict[bytes, bytes]) -> Any:
        return message("ModelMetadataResponse")(**speaking.model_metadata(self._desk, request.name, request.version))

    async def _infer(self, request: Any, headers: dict[bytes, bytes]) -> Any:
        started = time.monotonic()
        route = self._desk.fleet.route(request.model_name)
        pinned = request.model_version or pinned_by(headers)
        live = taking(route, pinned)
        question = question_of(request, live.caller)
        if live.shown:
            oip.chosen(question, live.shown)  # refuse before the model is asked
        answered = await self._desk.answer(
            route,
            question,
            headers,
            protocol="grpc",
            started=started,
            pinned=pinned,
            explain=question.parameters.get("explain") is True,
        )
        model = (request.model_name, str(answered.live.revision.number))
        return response_of(question, answered.outputs, answered.answer, model, answered.parameters())

    async def _index(self, request: Any, headers: dict[bytes, bytes]) -> Any:
        reach = self._desk.door.reach(headers, self._desk.fleet.table)
        models = repository.index(self._desk.fleet, reach, only_ready=request.ready)
        return message("RepositoryIndexResponse")(models=models)

    async def _load(self, request: Any, _headers: dict[bytes, bytes]) -> Any:
        await repository.load(self._desk.fleet, request.model_name)
        return message("RepositoryModelLoadResponse")()

    async def _unload(self, request: Any, _headers: dict[bytes, bytes]) -> Any:
        await repository.unload(self._desk.fleet, request.model_name)
        return message("RepositoryModelUnloadResponse")()


def _parsed(kind: Any, content: bytes) -> Any:
    """The message of these bytes. Parsed here, for gRPC has no form of error of its own for bytes that are none."""
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise InvalidInput(f"the bytes are no {kind.DESCRIPTOR.name}: {error}") from None


def _headers(context: Any) -> dict[bytes, bytes]:
    """The call's metadata as HTTP's headers: `everloop-revision`, `everloop-sticky`, `authorization` and so on."""
    headers = {}
    for key, value in context.invocation_metadata() or ():
        headers[key.encode()] = value if isinstance(value, bytes) else value.encode("latin-1", "replace")
    return headers

"""`POST /feeds/<project>/<name>`: events are pushed, and acknowledged when they are in the feed's inbox.

The body is JSON lines (`application/x-ndjson`) or an Arrow IPC stream (`application/vnd.apache.arrow.stream`), plain or
with `Content-Encoding: gzip`; `?environment=` says where, `Idempotency-Key` names the batch for when it is sent again.
The answer is 202. What is in a batch is looked at later: events that do not fit become dead letters. When too much
waits it is 429, when the inbox or the catalog cannot be written 503 or 507, each with `Retry-After`.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from everloop.catalog.context import Context
from everloop.catalog.operation import invoke
from everloop.core.errors import EverloopError, InvalidInput, Overloaded, Unavailable
from everloop.data.streams.inbox import InboxWriter, inbox, waiting
from everloop.data.streams.operations import OfFeed, accept
from everloop.server.faults import problem_response

MEDIA = {
    "application/x-ndjson": "application/x-ndjson",
    "application/jsonl": "application/x-ndjson",
    "application/json": "application/x-ndjson",
    "application/vnd.apache.arrow.stream": "application/vnd.apache.arrow.stream",
}
LARGEST = 16 << 20
"""Bytes of one body as it is sent."""
_LOOK_SECONDS = 0.25
_MOST_WRITERS = 256
_LONGEST_KEY = 200
_RETRY_SECONDS = 2

OpenContext = Callable[[Request, str], Context]


class Feeds:
    """The inboxes that this process writes to."""

    def __init__(self, open_context: OpenContext, home: Path, *, fsync: bool) -> None:
        """None is open yet."""
        self._open_context, self._home, self._fsync = open_context, home, fsync
        self._lock = threading.Lock()
        self._writers: OrderedDict[Path, InboxWriter] = OrderedDict()
        self._held: dict[Path, tuple[float, int]] = {}

    @property
    def route(self) -> Route:
        """Where events are pushed."""
        return Route("/feeds/{project}/{name}", self.push, methods=["POST"])

    async def push(self, request: Request) -> Response:
        """Take one batch."""
        try:
            ctx, place, backlog = await run_in_threadpool(self._may, request)
            header = _header(request, ctx)
            body = await _body(request)
            await run_in_threadpool(self._append, place, backlog, header, body)
        except ClientDisconnect:
            return Response(status_code=400)
        except EverloopError as error:
            answer = problem_response(error)
            if isinstance(error, Unavailable):
                answer.headers["retry-after"] = str(error.details.get("seconds", _RETRY_SECONDS))
            return answer
        return JSONResponse({"accepted": len(body)}, 202)

    def close(self) -> None:
        """Finish all files."""
        with self._lock:
            for writer in self._writers.values():
                writer.close()
            self._writers.clear()

    def _may(self, request: Request) -> tuple[Context, Path, int]:
        project, name = request.path_params["project"], request.path_params["name"]
        environment = request.query_params.get("environment", "production")
        ctx = self._open_context(request, project)
        backlog = invoke(ctx, accept, OfFeed(name=name, environment=environment)).backlog
        return ctx, inbox(self._home, project, environment, name), backlog

    def _append(self, place: Path, backlog: int, header: dict[str, str | int], body: bytes) -> None:
        looked, held = self._held.get(place, (0.0, 0))
        if time.monotonic() - looked > _LOOK_SECONDS:
            looked, held = time.monotonic(), waiting(place)
        if held + len(body) > backlog:
            self._held[place] = looked, held
            raise Overloaded(
                f"{held >> 20} MiB wait to be read already", hint="send it again later", seconds=_RETRY_SECONDS
            )
        self._writer(place).append(header, body)
        self._held[place] = looked, held + len(body)

    def _writer(self, place: Path) -> InboxWriter:
        with self._lock:
            found = self._writers.get(place)
            if found is None:
                found = self._writers[place] = InboxWriter(place, fsync=self._fsync)
                if len(self._writers) > _MOST_WRITERS:
                    self._writers.popitem(last=False)[1].close()
            self._writers.move_to_end(place)
            return found


def _header(request: Request, ctx: Context) -> dict[str, str | int]:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in MEDIA:
        raise InvalidInput(f"{media or 'no media type'} cannot be fed", hint="send one of " + ", ".join(MEDIA))
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise InvalidInput(f"the encoding {encoding!r} cannot be fed", hint="send it plain, or as gzip")
    key = request.headers.get("idempotency-key", "")
    if len(key) > _LONGEST_KEY:
        raise InvalidInput(f"an idempotency key has {_LONGEST_KEY} characters at most", hint="a UUID will do")
    return {
        "at": ctx.wall(),
        "media": MEDIA[media],
        "encoding": "gzip" if encoding == "gzip" else "",
        "key": f"{ctx.actor.name}/{key}" if key else "",  # another sender may use the same
        "actor": ctx.actor.name,
    }


async def _body(request: Request) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > LARGEST:
            raise InvalidInput(f"a batch has {LARGEST >> 20} MiB at most", hint="send smaller batches")
        pieces.append(piece)
    if not size:
        raise InvalidInput("the batch is empty", hint="one JSON object a line")
    return b"".join(pieces)

"""Server-sent events: which facts were sealed, and that a run changed, so that open pages know what to fetch again.

A stream tells kinds and positions only; whoever wants more asks an operation. It ends by itself after a while (the
browser comes back with the last position), when the browser leaves, and when the server stops.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.facts import SealedFact
from everloop.core.errors import Unavailable
from everloop.core.grants import Target

State = Callable[[Context], str]
"""What a stream watches, as a text that changes with it; empty once it will not change any more."""
LASTS = 300.0
"""Seconds after which a stream ends."""
MOST = 64
"""Streams at once; more are asked to come back."""
_EVERY = 0.5
_QUIET = 15.0
_AT_ONCE = 200
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}


class Streams:
    """The open streams of a server."""

    def __init__(self) -> None:
        """None is open."""
        self._open = 0

    def counted(self, told: AsyncIterator[str]) -> Response:
        """A stream that counts among the open ones. Raises `Unavailable` when there are too many."""
        if self._open >= MOST:
            raise Unavailable(f"{MOST} pages listen already", hint="reload the page to see what is new")

        async def counting() -> AsyncIterator[str]:
            self._open += 1
            try:
                async for text in told:
                    yield text
            finally:
                self._open -= 1

        return StreamingResponse(counting(), media_type="text/event-stream", headers=HEADERS)

    async def answer(self, ctx: Context, request: Request) -> Response:
        """A stream for whoever may read the project. Raises `PermissionDenied`, and `Unavailable` when too many."""
        ctx.need("read", Target("project", ctx.project))
        if self._open >= MOST:
            raise Unavailable(f"{MOST} pages listen already", hint="reload the page to see what is new")
        position = await run_in_threadpool(_start, ctx, request.headers.get("last-event-id", ""))
        return StreamingResponse(self._told(ctx, request, position), media_type="text/event-stream", headers=HEADERS)

    async def follow(self, ctx: Context, request: Request, state: State) -> Response:
        """A stream that says `changed` whenever `state` says something else, and `over` when it says nothing more.

        `state` checks for itself that the visitor may see what it tells; it runs in a thread.
        """
        if self._open >= MOST:
            raise Unavailable(f"{MOST} pages listen already", hint="reload the page to see what is new")
        first = await run_in_threadpool(state, ctx)
        return StreamingResponse(
            self._followed(ctx, request, state, first), media_type="text/event-stream", headers=HEADERS
        )

    async def _followed(self, ctx: Context, request: Request, state: State, held: str) -> AsyncIterator[str]:
        self._open += 1
        began = said = time.monotonic()
        try:
            yield "retry: 2000\nevent: hello\ndata: \n\n"
            while held and time.monotonic() - began < LASTS and not stopping(request):
                await asyncio.sleep(_EVERY * 2)
                if await request.is_disconnected():
                    return
                now = await run_in_threadpool(state, ctx)
                if now != held:
                    held, said = now, time.monotonic()
                    yield "event: changed\ndata: \n\n"
                elif time.monotonic() - said > _QUIET:
                    said = time.monotonic()
                    yield ": still here\n\n"
            if not held:
                yield "event: over\ndata: \n\n"
        finally:
            self._open -= 1

    async def _told(self, ctx: Context, request: Request, position: int) -> AsyncIterator[str]:
        self._open += 1
        began = said = time.monotonic()
        try:
            yield f"retry: 2000\nid: {position}\nevent: hello\ndata: {position}\n\n"
            while time.monotonic() - began < LASTS and not stopping(request) and not await request.is_disconnected():
                found = await run_in_threadpool(_since, ctx, position)
                if found:
                    position, said = found[-1].position, time.monotonic()
                    yield "".join(_event(fact) for fact in found)
                elif time.monotonic() - said > _QUIET:
                    said = time.monotonic()
                    yield ": still here\n\n"
                await asyncio.sleep(_EVERY)
        finally:
            self._open -= 1


def stopping(request: Request) -> bool:
    """Whether the server is about to stop; whoever runs it may say so by `app.state.stopping`."""
    asked = getattr(request.app.state, "stopping", None)
    return bool(asked()) if asked is not None else False


def _start(ctx: Context, last: str) -> int:
    if last.isascii() and last.isdigit() and len(last) < 16:
        return int(last)
    with ctx.read() as tx:
        return facts.heads(tx).get(ctx.project, 0)


def _since(ctx: Context, position: int) -> list[SealedFact]:
    with ctx.read() as tx:
        return facts.since(tx, ctx.project, position, _AT_ONCE)


def _event(fact: SealedFact) -> str:
    body = json.dumps({"position": fact.position, "kind": fact.kind})
    return f"id: {fact.position}\nevent: fact\ndata: {body}\n\n"

"""A run of a flow as it goes: a stream of what its steps do and print, for programs and for whoever watches.

Server-sent events: `flow` (the run's state and counts), `step` (one that changed) and `line` (what one printed), each
with JSON; `over` when the run has ended. A reader that comes again gets what holds now, and lines after those that its
`Last-Event-ID` (or `?after=`) says it had.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from everloop.catalog.context import Context
from everloop.catalog.operation import invoke
from everloop.core.errors import InvalidInput, NotFound
from everloop.flows.running.operations import FlowView, ShowFlow, StepView
from everloop.models.console import ConsoleView, ReadConsole
from everloop.server.web.events import LASTS, Streams, stopping

_EVERY = 0.5
_QUIET = 15.0
_LINES = 500
_OPEN = frozenset({"running", "parked", "lost"})
_TOLD = ("state", "why", "attempt", "began", "ended", "output", "label", "cpu_seconds", "peak_memory", "profile")


class Follower:
    """What one reader of one run knows."""

    def __init__(self, ctx: Context, flow: str, had: str) -> None:
        """Of a reader who `had` lines before: `<step>=<number>` for each step, joined by commas."""
        self._ctx, self._flow = ctx, flow
        self._steps: dict[str, dict[str, Any]] = {}
        self._whole: dict[str, Any] = {}
        self._lines = _numbers(had)
        self._silent: set[str] = set()
        """Steps that ended, and whose lines were all told."""
        self.over = False

    def news(self) -> Iterator[str]:
        """Events since the last time. Raises what `flows.show` raises."""
        found: FlowView = invoke(self._ctx, "flows.show", ShowFlow(flow=self._flow))
        row = found.flow
        whole = {"state": row.state, "counts": row.counts, "error": row.error, "ended": row.ended}
        for one in found.steps:
            told = {name: getattr(one, name) for name in _TOLD}
            if self._steps.get(one.step) != told:
                self._steps[one.step] = told
                self._silent.discard(one.step)
                yield self._event("step", {"step": one.step, **told})
        for one in found.steps:
            yield from self._printed(one)
        if whole != self._whole:
            self._whole = whole
            yield self._event("flow", {"flow": row.id, **whole})
        self.over = row.state not in _OPEN

    def _printed(self, one: StepView) -> Iterator[str]:
        owner = one.run or one.recipe
        if not owner or one.step in self._silent or one.state in ("reused", "waiting", "skipped", "parked"):
            return
        while True:
            asked = ReadConsole(run=owner, after=self._lines.get(one.step, 0), limit=_LINES)
            try:
                read: ConsoleView = invoke(self._ctx, "runs.console", asked)
            except NotFound:  # it printed nothing yet
                break
            for line in read.lines:
                self._lines[one.step] = line.number + 1
                yield self._event("line", {"step": one.step, **line.model_dump(mode="json")})
            if len(read.lines) < _LINES:
                break
        if one.state != "running":
            self._silent.add(one.step)

    def _event(self, kind: str, told: dict[str, Any]) -> str:
        had = ",".join(f"{step}={number}" for step, number in self._lines.items())
        return f"id: {had}\nevent: {kind}\ndata: {json.dumps(told)}\n\n"


async def follow(ctx: Context, request: Request, flow: str, streams: Streams) -> Response:
    """The stream of a run, for whoever may read it. Raises `Unavailable` when too many listen."""
    follower = Follower(ctx, flow, request.headers.get("last-event-id", "") or request.query_params.get("after", ""))
    first = await run_in_threadpool(lambda: list(follower.news()))  # what is refused is refused before the stream
    return streams.counted(_told(request, follower, first))


async def _told(request: Request, follower: Follower, first: list[str]) -> AsyncIterator[str]:
    began = said = time.monotonic()
    yield "retry: 2000\n\n" + "".join(first)
    while not follower.over and time.monotonic() - began < LASTS and not stopping(request):
        await asyncio.sleep(_EVERY)
        if await request.is_disconnected():
            return
        fresh = await run_in_threadpool(lambda: list(follower.news()))
        if fresh:
            said = time.monotonic()
            yield "".join(fresh)
        elif time.monotonic() - said > _QUIET:
            said = time.monotonic()
            yield ": still here\n\n"
    if follower.over:
        yield "event: over\ndata: \n\n"


def _numbers(had: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in had.split(",") if had else ():
        step, _, number = pair.rpartition("=")
        if not step or not (number.isascii() and number.isdigit() and len(number) < 16):
            raise InvalidInput(f"{pair!r} says no line of a step", hint="leave Last-Event-ID away to hear everything")
        found[step] = int(number)
    return found

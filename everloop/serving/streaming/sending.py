"""Server-sent events: the parts of an answer as a model yields them, then the whole of it with its id.

POST /endpoints/<project>/<name>/predict   with `Accept: text/event-stream` or `?stream=true`
POST /v2/models/<project>.<name>/generate_stream

    data: {"part": "Hel"}
    event: answer
    data: {"predictions": ["Hello"], "prediction_id": "…", "revision": "b3:…"}

A model that yields nothing is answered in one event. What goes wrong before the first part is an ordinary error with
its status; behind it, an event `error`. A caller that leaves, or takes nothing for as long as the endpoint's deadline,
ends the work in the model.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson

from everloop.core.errors import EverloopError, InvalidInput, Unavailable
from everloop.serving.gateway.answer import Answered
from everloop.serving.gateway.faults import told
from everloop.serving.gateway.passing.relay import Receive, Scope, Send
from everloop.serving.gateway.speaking import scoring as speaking
from everloop.serving.gateway.speaking.asking import Desk, flag, pinned_by, taking
from everloop.serving.gateway.speaking.replies import Reply, body_of, error_headers, need_method, said
from everloop.serving.protocol import scoring
from everloop.serving.streaming.parts import Parts

_HEADERS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
_EVENTS = b"text/event-stream"


def address_of(scope: Scope) -> str | None:
    """The endpoint (`project.name`) whose answer is wanted in parts; None for every other request."""
    path: str = scope["path"]
    if path.startswith("/v2/models/") and path.endswith("/generate_stream") and path.count("/") == 4:
        return path.split("/")[3]
    asked = speaking.address_of(path) if path.startswith("/endpoints/") else None
    if asked is None or asked[1] != "predict":
        return None
    accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return asked[0] if _EVENTS in accepted or flag(scope, b"stream") else None


@dataclass(slots=True)
class _Run:
    """An answer under way, and who waits for it."""

    parts: Parts
    answer: "asyncio.Task[Answered]"
    left: "asyncio.Task[Any]"
    """Ends when the caller left."""

    async def each(self) -> AsyncIterator[Any]:
        """Each part until the answer is whole; ends early, with the answer given up, when the caller left."""
        while True:
            taking_one = asyncio.ensure_future(self.parts.get())
            done, _ = await asyncio.wait({taking_one, self.answer, self.left}, return_when=asyncio.FIRST_COMPLETED)
            if self.left in done:
                taking_one.cancel()
                self.answer.cancel()
                return
            if taking_one in done:
                yield taking_one.result()
                continue
            taking_one.cancel()
            if not self.parts.held:
                return

    async def end(self) -> None:
        """Give up what still runs."""
        for task in (self.answer, self.left):
            task.cancel()
        await asyncio.gather(self.answer, self.left, return_exceptions=True)


async def sent(desk: Desk, scope: Scope, receive: Receive, send: Send, address: str) -> Reply | None:
    """Send the events; what is returned instead is the reply to a request that failed before its first part."""
    run: _Run | None = None
    try:
        run = await _begun(desk, scope, receive, address)
        each = run.each()
        first = await anext(each, None)
        if first is None and run.answer.done() and not run.answer.cancelled():
            run.answer.result()  # what went wrong is said by its status
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        patience = desk.fleet.route(address).route.deadline_micros / 1e6
        if first is not None:
            await _send(send, {"part": first}, patience)
            async for part in each:
                await _send(send, {"part": part}, patience)
        await _last(send, run, address)
    except EverloopError as error:
        if run is not None and run.parts.begun:
            return None  # the caller takes nothing: there is nobody to tell
        return Reply(error.status, scoring.error_body(said(error, address[:200]), error.status), error_headers(error))
    finally:
        if run is not None:
            await run.end()
    return None


async def _begun(desk: Desk, scope: Scope, receive: Receive, address: str) -> _Run:
    headers = dict(scope["headers"])
    desk.door.check(headers, desk.fleet.table, address)
    need_method(scope, "POST")
    route, pinned = desk.fleet.route(address), pinned_by(headers)
    question = scoring.parse_plain(await body_of(headers, receive), taking(route, pinned).caller)
    if question.rows != 1:
        raise InvalidInput(f"{question.rows} rows cannot be streamed at once", hint="ask one row a stream")
    parts, started = Parts(), time.monotonic()
    asking = desk.answer(route, question, headers, protocol="stream", started=started, pinned=pinned, parts=parts)
    loop = asyncio.get_running_loop()
    return _Run(parts, loop.create_task(asking), loop.create_task(_gone(receive)))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, value: Any, patience: float, event: bytes = b"") -> None:
    content = event + b"data: " + orjson.dumps(value) + b"\n\n"
    try:
        # what the caller does not take waits here, and the worker with it
        await asyncio.wait_for(send({"type": "http.response.body", "body": content, "more_body": True}), patience)
    except TimeoutError:
        raise Unavailable("the caller takes nothing") from None


async def _last(send: Send, run: _Run, address: str) -> None:
    if run.left.done():
        return
    try:
        answered = await run.answer
        whole = {"predictions": scoring.predictions(answered.outputs, answered.answer), **answered.parameters()}
        event, value = b"event: answer\n", orjson.dumps(whole)
    except EverloopError as error:
        event, value = b"event: error\n", scoring.error_body(said(error, address), error.status)
    except Exception as error:  # noqa: BLE001 - the edge of the process: callers learn a fault's id, the log the rest
        fault = told(f"stream of {address}", error)
        event, value = b"event: error\n", scoring.error_body(said(fault), fault.status)
    content = event + b"data: " + value + b"\n\n"
    await send({"type": "http.response.body", "body": content})

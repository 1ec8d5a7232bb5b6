"""One replica of a part on a node of the cluster: what a model worker does, as a class for Ray Serve.

Calls hold frames of the wire (`serving.wire`), and so do answers: nothing that a caller sent is ever unpickled. What
waits while the model works is the next batch, whichever calls it came with.
"""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from everloop.core.errors import Conflict, Unavailable
from everloop.flows.executors.nodes import on_this_node, packages_digest
from everloop.flows.identity.runtime import runtime
from everloop.serving import wire
from everloop.serving.modelworker import Answerer, Pace, Setup, loaded
from everloop.serving.streaming.working import WINDOW, Streams, said
from everloop.store import open_store

_SILENT_SECONDS = 1.0
_LEASE_SECONDS = 5.0
_NAMESPACE = "everloop"
"""In which bridges join."""
_SAID_SECONDS = 20.0


@dataclass(slots=True, eq=False)
class _Asked:
    frame: wire.Frame
    reply: "asyncio.Future[wire.Frame]"


class Replica:
    """Answers frames with one part's model; what keeps it from it is said by `hello`, and by its health."""

    def __init__(  # noqa: PLR0917 - Serve passes what was bound in its order
        self,
        setup: bytes,
        files: Mapping[str, str],
        objects: str,
        credentials: Mapping[str, str],
        packages: str,
        lease: tuple[str, float],
    ) -> None:
        """Fetch `files` (path -> object) from the store at `objects`, load and warm the model; never raises.

        `lease` is the actor that lives while a bridge does, and for how many seconds it may be missed.
        """
        threading.Thread(target=_end_when_left, args=lease, daemon=True).start()
        os.environ.update(credentials)
        self._work_thread = ThreadPoolExecutor(1)  # some models belong to the thread that loaded them
        self._waiting: deque[_Asked] = deque()
        self._working: asyncio.Task[None] | None = None
        self._batch: list[_Asked] = []
        self._problem = ""
        self._began = time.monotonic()
        try:
            self._load(msgspec.json.decode(setup, type=Setup), files, objects, packages)
        except Exception as error:  # noqa: BLE001 - the edge of a user's model: the gateway is told why
            self._problem = said(error).decode()

    def _load(self, setup: Setup, files: Mapping[str, str], objects: str, packages: str) -> None:
        if packages != packages_digest(runtime(1)):
            hint = "install the same environment on every node"
            raise Conflict("a node has other packages than the gateway", hint=hint)
        if files:
            setup = _moved(setup, on_this_node(files, open_store(objects)), files)
        self._model = self._work_thread.submit(loaded, setup).result()
        predictor, layout, outputs = self._model
        self._answerer = Answerer(predictor, layout, outputs)
        self._pace = Pace(setup.max_rows, setup.budget_seconds)
        self._hello = {
            "outputs": [output.listed() for output in outputs],
            "pid": 0,  # of another machine
            "seconds": time.monotonic() - self._began,
            "engine": getattr(predictor, "engine", ""),
        }

    async def hello(self) -> bytes:
        """What a worker says when it is warm, or `problem`; JSON."""
        return msgspec.json.encode({"problem": self._problem} if self._problem else self._hello)

    def check_health(self) -> None:
        """Raise `Unavailable` where the model could not be loaded: Serve then places another.

        Not at once, or else nobody would be left to say the reason to the gateway.
        """
        if self._problem and time.monotonic() - self._began > _SAID_SECONDS:
            raise Unavailable(self._problem)

    async def ask(self, content: bytes) -> bytes:
        """The replies to some frames, in order; who cancels it waits for none of them any more."""
        loop = asyncio.get_running_loop()
        mine = [_Asked(frame, loop.create_future()) for frame in wire.Reader().feed(content)]
        if self._problem:
            raise Unavailable(self._problem)
        self._waiting.extend(mine)
        if self._working is None or self._working.done():
            self._working = loop.create_task(self._work())
        try:
            return wire.joined([await asked.reply for asked in mine])
        except asyncio.CancelledError:
            self._forget(mine)
            raise

    def _forget(self, mine: list[_Asked]) -> None:
        """Leave what has not begun; what works on it for another second hangs, and this process ends."""
        batch = self._batch
        self._waiting = deque(asked for asked in self._waiting if asked not in mine)
        if any(asked in batch for asked in mine):

            def hangs() -> None:
                if self._batch is batch:
                    os._exit(1)  # the model's thread cannot be ended otherwise; Serve starts another replica

            asyncio.get_running_loop().call_later(_SILENT_SECONDS, hangs)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            self._batch = batch = self._next()
            frames = [asked.frame for asked in batch]
            began = time.monotonic()
            replies = await loop.run_in_executor(self._work_thread, self._answerer.answer, frames)
            self._pace.learn(sum(frame.rows for frame in frames), time.monotonic() - began)
            self._batch = []
            for asked, reply in zip(batch, replies, strict=True):
                if not asked.reply.done():
                    asked.reply.set_result(reply)

    def _next(self) -> list[_Asked]:
        batch = [self._waiting.popleft()]
        rows = batch[0].frame.rows
        while self._waiting and rows + self._waiting[0].frame.rows <= self._pace.limit:
            rows += self._waiting[0].frame.rows
            batch.append(self._waiting.popleft())
        return batch

    async def parts(self, content: bytes) -> AsyncIterator[bytes]:
        """The frames of an answer in parts, the whole last; a model that does not yield gives only that."""
        loop = asyncio.get_running_loop()
        (frame,) = wire.Reader().feed(content)
        streams = Streams(*self._model)
        left = deque([frame])
        streams.take(left)
        if left:
            yield await self.ask(wire.encode(wire.ASK, frame.id, frame.rows, frame.payload))
        while streams.able:
            for reply in await loop.run_in_executor(self._work_thread, lambda: list(streams.step())):
                yield reply
            # how far it may be ahead of its reader is not said back over the cluster: the bridge holds the rest
            streams.take(deque([wire.Frame(wire.MORE, frame.id, WINDOW, b"")]))


def _end_when_left(name: str, patience: float) -> None:
    """Take this application off the cluster once nobody has been there for it for so long."""
    seen = time.monotonic()
    while True:
        time.sleep(_LEASE_SECONDS)
        try:
            ray.get_actor(name, namespace=_NAMESPACE)
            seen = time.monotonic()
        except ValueError:
            if time.monotonic() - seen > patience:
                with suppress(RayError, RayServeException):  # another replica of it was first
                    serve.delete(serve.get_replica_context().app_name, _blocking=False)
        except RayError:
            continue  # the cluster's head does not answer: that is no sign


def files_in(setup: Setup, objects: Any) -> dict[str, str]:
    """The files that a part loads, by their object in the store: of fused steps those of each, below its number."""
    if not setup.steps:
        return files_of(Path(setup.folder), objects)
    found = ((number, files_of(Path(step.folder), objects)) for number, step in enumerate(setup.steps))
    return {f"{number}/{path}": identity for number, files in found for path, identity in files.items()}


def _moved(setup: Setup, folder: Path, files: Mapping[str, str]) -> Setup:
    """The setup with its files below `folder`, where it has any."""
    if not setup.steps:
        return msgspec.structs.replace(setup, folder=str(folder))
    there = {path.partition("/")[0] for path in files}
    steps = [
        msgspec.structs.replace(step, folder=str(folder / str(number))) if str(number) in there else step
        for number, step in enumerate(setup.steps)
    ]
    return msgspec.structs.replace(setup, steps=steps)


def files_of(folder: Path, objects: Any) -> dict[str, str]:
    """The files of a folder by their object in the store, put there where they are not; none for what is no folder."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file():
            with path.open("rb") as stream:
                found[str(path.relative_to(folder))] = str(objects.put_stream(stream))
    return found

"""The server's side of `everloop.serving.gateway.passing.hand`: who may have which file, and what became of it."""

import os
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from everloop.catalog.context import Context
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import is_id
from everloop.server.mlflow.answers import json_answer
from everloop.server.mlflow.endpoint import call
from everloop.server.mlflow.files import artifacts
from everloop.serving.gateway.passing import hand

_NAME = re.compile(r"upload-[a-zA-Z0-9_]+")
_TRUSTED_SECONDS = 600.0
_REMEMBERED = 256


@runtime_checkable
class Local(Protocol):
    """A store whose objects are files of this machine."""

    def place(self, identity: str) -> Path | None:
        """The object's file, not verified."""
        ...

    def path(self, identity: str) -> Path | None:
        """The object's file, verified."""
        ...


@dataclass
class Hands:
    """What this server and its gateway share: their secret, and which files were verified of late."""

    secret: str = ""
    _verified: OrderedDict[tuple[Any, ...], float] = field(default_factory=OrderedDict)

    def reach(self, request: Request) -> bool:
        """Whether the request comes from a gateway that moves files itself."""
        return hand.is_ours(request.headers.get(hand.ASKED.decode()), self.secret)

    def sending(self, ctx: Context, identity: str, start: int, stop: int, size: int) -> hand.Sending | None:
        """Where a part of an object lies, for a gateway to send; None when the store has no files here.

        A whole object is verified while it is sent. Of a part it is verified before: once, as long as the file stays
        what it was, for a download in ranges asks for the same one again and again.
        """
        store = ctx.store
        if stop - start < hand.LEAST or not isinstance(store, Local):
            return None
        file = store.place(identity)
        if file is None:
            return None
        if stop - start == size:
            return hand.Sending(str(file), start, stop, identity)
        about = file.stat()
        key = (identity, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        if time.monotonic() - self._verified.get(key, -_TRUSTED_SECONDS) >= _TRUSTED_SECONDS:
            store.path(identity)
            self._verified[key] = time.monotonic()
            while len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)
        return hand.Sending(str(file), start, stop)


async def post(ctx: Context, request: Request, path: str) -> Response:
    """POST to the artifact proxy, of our own gateway alone: a place for an upload, or what came of it."""
    told = request.headers.get(hand.DONE.decode())
    if told is None:
        await run_in_threadpool(call, ctx, artifacts.CHECK, {"path": path})
        place = await run_in_threadpool(_prepared, ctx.home / "tmp")
        order = hand.told(hand.Receiving(str(place)))
        return json_answer({}, headers={hand.ASKED.decode(): order.decode()})
    ((_, fields),) = orjson.loads(told).items()
    return json_answer(await run_in_threadpool(_received, ctx, path, hand.Received(**fields)))


def _prepared(folder: Path) -> Path:
    """An empty file with a name that nobody guesses."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix="upload-")
    os.close(handle)
    return Path(name)


def _received(ctx: Context, path: str, done: hand.Received) -> Mapping[str, Any]:
    """Keep an upload and name it."""
    if _NAME.fullmatch(done.name) is None or not is_id(done.object):
        raise InvalidInput("no upload has this name", hint="ask for a place first")
    file = ctx.home / "tmp" / done.name
    if not file.is_file() or file.stat().st_size != done.size:
        raise NotFound("the upload is not there", hint="send it again")
    identity = ctx.store.put_file(file, move=True, known=done.object)
    return call(ctx, artifacts.NAME, {"path": path, "object": identity, "size": done.size})

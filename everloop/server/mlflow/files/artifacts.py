"""Artifacts: the proxy that MLflow's client uploads to and downloads from, and the lists of what there is.

A path of `mlflow-artifacts:/` names its owner: `<experiment>/<run>/artifacts/…`,
`<experiment>/models/<model>/artifacts/…`,
`versions/<64 digits>/…` for the files of a model version (read only), and anything else below `<experiment>/`.
Bytes go through a file of the workspace's folder into the store; the catalog only learns the object's id.
"""

import mimetypes
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Catalog, Tx
from everloop.catalog.governance import holds
from everloop.catalog.operation import Operation
from everloop.catalog.tracking import artifacts, experiments, logged, runs
from everloop.catalog.tracking.rows import Artifact
from everloop.core.errors import InvalidInput, NotFound, StorageFull
from everloop.core.grants import Target
from everloop.core.ids import PREFIX
from everloop.data.sensitive.masking import need_file
from everloop.server.mlflow.endpoint import Endpoint, call, on_run
from everloop.server.mlflow.genai.traces import target_of
from everloop.server.mlflow.wire import Arguments
from everloop.serving.gateway.passing.hand import ASKED, Sending, told

_CHUNK = 1 << 20
_PIECE = 4 << 20
_RUN = re.compile(r"\d+/(?P<owner>[0-9a-f]{32})(?:/artifacts(?:/(?P<path>.*))?)?", re.DOTALL)
_MODEL = re.compile(r"\d+/models/(?P<owner>m-[0-9a-f]{32})(?:/artifacts(?:/(?P<path>.*))?)?", re.DOTALL)
_TRACE = re.compile(r"\d+/traces/(?P<owner>tr-[0-9a-f]{32})/artifacts(?:/(?P<path>.*))?", re.DOTALL)
_VERSION = re.compile(r"versions/(?P<owner>[0-9a-f]{64})(?:/(?P<path>.*))?", re.DOTALL)
_RANGE = re.compile(r"bytes=(?P<start>\d{0,18})-(?P<stop>\d{0,18})")
_EXPERIMENT = re.compile(r"(?P<owner>\d+)(?:/(?P<path>.*))?", re.DOTALL)
_PLACES = (("run", _RUN), ("logged", _MODEL), ("trace", _TRACE), ("version", _VERSION), ("experiment", _EXPERIMENT))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path of the proxy lies: what kind of owner, which one, and the path within it."""

    kind: str
    owner: str
    path: str


def place_of(path: str) -> Place:
    """Read a path of the proxy; raises `InvalidInput` when it leads out of its owner, `NotFound` when it has none."""
    whole = artifacts.checked_path(path.strip("/"))
    for kind, pattern in _PLACES:
        match = pattern.fullmatch(whole)
        if match is not None:
            return Place(kind, match["owner"], artifacts.checked_path(match["path"] or "", empty=True))
    raise NotFound(f"No such artifact: '{path}'", hint="paths begin with an experiment's id")


def listed(place: Place, ctx: Context) -> list[Artifact]:
    """Files and directories directly in a place."""
    with ctx.read() as tx:
        if place.kind != "version":
            return artifacts.children(tx, ctx.project, _row_owner(place), place.path)
        files = _version_files(ctx, place.owner)
    start = len(place.path) + 1 if place.path else 0
    names = {}
    for path in sorted(files):
        if not place.path or path.startswith(place.path + "/"):
            name, slash, _ = path[start:].partition("/")
            names[path[:start] + name] = "" if slash else files[path]
    return [Artifact(path, identity, _size(ctx, identity) if identity else 0) for path, identity in names.items()]


def files_json(found: list[Artifact], *, below: str = "") -> list[dict[str, Any]]:
    """A list for the client; paths are relative to `below`."""
    cut = len(below) + 1 if below else 0
    return [
        {"path": one.path[cut:], "is_dir": one.is_directory, **({} if one.is_directory else {"file_size": one.size})}
        for one in found
    ]


def list_run(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """artifacts/list."""
    path = artifacts.checked_path(args.text("path", "").rstrip("/"), empty=True)
    with ctx.read() as tx:
        run = runs.find(tx, ctx.project, args.run())
        found = artifacts.children(tx, ctx.project, run.id, path)
    return {"root_uri": run.artifact_uri, "files": files_json(found)}


def list_proxy(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """GET mlflow-artifacts/artifacts?path=."""
    place = place_of(args.text("path"))
    return {"files": files_json(listed(place, ctx), below=place.path)}


def find_file(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """The object behind a path of the proxy, and its size; examples are rows, which not everybody may see."""
    place = place_of(args.text("path"))
    if place.kind == "version":
        need_file(ctx, PREFIX + place.owner, place.path)
    with ctx.read() as tx:
        if place.kind == "version":
            identity = _version_files(ctx, place.owner).get(place.path)
            if identity is None:
                raise NotFound(f"No such artifact: '{place.path}'", hint="list the artifacts to see what there is")
            return {"object": identity, "size": _size(ctx, identity)}
        found = artifacts.get(tx, ctx.project, _row_owner(place), place.path)
    return {"object": found.object, "size": found.size}


def name_file(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """Let a path name an object that was just stored."""
    place = _writable(place_of(args.text("path")))
    _name(ctx, place, args.text("object"), args.integer("size"))
    return {}


def _name(ctx: Context, place: Place, identity: str, size: int) -> None:
    with ctx.write() as tx:
        if place.kind == "run":
            runs.find(tx, ctx.project, place.owner)
        owner = _row_owner(place)
        if artifacts.object_at(tx, ctx.project, owner, place.path) not in {"", identity}:
            _need_free(tx, ctx.project, place)  # what was there would be gone
        artifacts.put(tx, ctx.project, owner, place.path, identity=identity, size=size, at=ctx.now())


def _need_free(tx: Tx, project: str, place: Place) -> None:
    """No file of a run under a legal hold, or of a model that it made, is taken away or replaced."""
    if place.kind in {"run", "logged"}:
        run = place.owner if place.kind == "run" else logged.runs_of(tx, project, [place.owner]).get(place.owner, "")
        holds.need_free(tx, project, run)


def delete_file(ctx: Context, args: Arguments) -> Mapping[str, Any]:
    """DELETE mlflow-artifacts/artifacts/<path>: a file, or all below a directory."""
    place = _writable(place_of(args.text("path")))
    with ctx.write() as tx:
        _need_free(tx, ctx.project, place)
        artifacts.remove(tx, ctx.project, _row_owner(place), place.path)
    return {}


def on_place(ctx: Context, args: Arguments) -> Target:
    """Whose artifact it is: a run's, through its run a model's, or an experiment's. It must exist in the project."""
    place = place_of(args.text("path"))
    if place.kind == "trace":
        return target_of(ctx, place.owner)
    with ctx.read() as tx:
        if place.kind == "run":
            return Target("run", runs.find(tx, ctx.project, place.owner).id)
        if place.kind == "logged":
            run = logged.find(tx, ctx.project, place.owner).run
            return Target("run", run) if run else Target("model", place.owner)
        if place.kind == "version":
            return Target("model", versions.get(tx, ctx.project, PREFIX + place.owner).name)
        return Target("experiment", experiments.get(tx, ctx.project, place.owner).id)


def _on_known(ctx: Context, args: Arguments) -> Target:
    """The same, with one look at a run for all the files that follow each other; the effect looks again."""
    place = place_of(args.text("path"))
    if place.kind != "run":
        return on_place(ctx, args)
    _seen(ctx.catalog, ctx.project, place.owner)
    return Target("run", place.owner)


@lru_cache(maxsize=256)
def _seen(catalog: Catalog, project: str, run: str) -> None:
    with catalog.read() as tx:
        runs.find(tx, project, run)


def _operation(name: str, handler: Any, *, reads: bool = False) -> Operation:
    return Endpoint("", name, handler, on_place, reads=reads).operation


LIST = _operation("artifacts/list-path", list_proxy, reads=True)
FIND = _operation("artifacts/download", find_file, reads=True)
NAME = _operation("artifacts/upload", name_file)
CHECK = _operation("artifacts/upload", lambda _ctx, args: {"kind": _writable(place_of(args.text("path"))).kind})
_DELETE = _operation("artifacts/delete", delete_file)


async def upload(ctx: Context, request: Request, path: str) -> Mapping[str, Any]:
    """Put a request's body into the store and name it; permission is checked before a byte is stored.

    The body streams to the disk, a few megabytes at a time, and is never held.
    """
    await run_in_threadpool(call, ctx, CHECK, {"path": path})
    folder = ctx.home / "tmp"
    file, name = await run_in_threadpool(_temporary, folder)
    try:
        size = 0
        with file:
            async for piece in _gathered(request):
                size += sum(map(len, piece))
                await run_in_threadpool(_write, file, piece)
        identity = await run_in_threadpool(ctx.store.put_file, name, move=True)
    finally:
        with suppress(FileNotFoundError):
            name.unlink()
    return await run_in_threadpool(call, ctx, NAME, {"path": path, "object": identity, "size": size})


def upload_small(ctx: Context, path: str, body: bytes) -> Mapping[str, Any]:
    """The same with a body that was read already, in one turn of a thread."""

    def stored(ctx: Context, _args: Arguments) -> Mapping[str, Any]:
        _name(ctx, _writable(place_of(path)), ctx.store.put(body), len(body))
        return {}

    return call(ctx, Endpoint("", "artifacts/upload", stored, _on_known).operation, {"path": path})


async def _gathered(request: Request) -> AsyncIterator[list[bytes]]:
    """The body in pieces that are worth a turn of a thread each."""
    piece: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        piece.append(chunk)
        size += len(chunk)
        if size >= _PIECE:
            yield piece
            piece, size = [], 0
    if size:
        yield piece


Hand = Callable[[Context, str, int, int, int], Sending | None]
"""Where bytes from and up to lie of an object with so many, for who sends them instead of us; None for nowhere."""


async def download(ctx: Context, path: str, *, ranged: str = "", hand: Hand | None = None) -> Response:
    """Stream an artifact as an attachment that no browser will take for a page of ours.

    `ranged` is a Range header; one that asks for a single span of bytes is met, any other is passed over. With `hand`
    the answer may name a file instead, for our gateway to send.
    """
    found = await run_in_threadpool(call, ctx, FIND, {"path": path})
    identity, size = found["object"], found["size"]
    name = path.rpartition("/")[2]
    start, stop = _span(ranged, size)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(stop - start),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
    }
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    whole = stop - start == size
    if not whole:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    order = await run_in_threadpool(hand, ctx, identity, start, stop, size) if hand else None
    if order is not None:
        headers |= {"Content-Length": "0", ASKED.decode(): told(order).decode()}
        return Response(status_code=200 if whole else 206, headers=headers, media_type=kind)
    stream = await run_in_threadpool(ctx.store.open, identity)
    if whole:
        return StreamingResponse(_chunks(stream), headers=headers, media_type=kind)
    return StreamingResponse(_part(stream, start, stop), 206, headers=headers, media_type=kind)


async def remove(ctx: Context, path: str) -> Mapping[str, Any]:
    """Forget an artifact."""
    return await run_in_threadpool(call, ctx, _DELETE, {"path": path})


async def _chunks(stream: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while chunk := await run_in_threadpool(stream.read, _CHUNK):
            yield chunk
    finally:
        stream.close()


async def _part(stream: BinaryIO, start: int, stop: int) -> AsyncIterator[bytes]:
    try:
        await run_in_threadpool(stream.seek, start)
        left = stop - start
        while left and (chunk := await run_in_threadpool(stream.read, min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk
    finally:
        stream.close()


def _span(ranged: str, size: int) -> tuple[int, int]:
    """The bytes that a Range header asks for, from and up to; all of them when it does not ask for one span within."""
    match = _RANGE.fullmatch(ranged.strip())
    if match is None or not (match["start"] or match["stop"]):
        return 0, size
    if not match["start"]:
        return max(0, size - int(match["stop"])), size
    start, stop = int(match["start"]), min(size, int(match["stop"]) + 1) if match["stop"] else size
    return (start, stop) if start < stop else (0, size)


def _temporary(folder: Path) -> tuple[BinaryIO, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix="upload-")
    return os.fdopen(handle, "wb"), Path(name)


def _write(file: BinaryIO, piece: list[bytes]) -> None:
    try:
        file.writelines(piece)
    except OSError as error:
        raise StorageFull(f"the upload cannot be stored: {error.strerror}", hint="free some space") from error


def _writable(place: Place) -> Place:
    if place.kind == "version":
        raise InvalidInput("the files of a model version never change", hint="register a new version")
    if not place.path:
        raise InvalidInput("Invalid path", hint="name a file below the artifact root")
    return place


def _row_owner(place: Place) -> str:
    return f"x{place.owner}" if place.kind == "experiment" else place.owner


def _version_files(ctx: Context, digits: str) -> Mapping[str, str]:
    with ctx.read() as tx:
        row = versions.get(tx, ctx.project, PREFIX + digits)
    files = row.manifest.get("files")
    return files if row.kind == "model" and isinstance(files, dict) else {}


def _size(ctx: Context, identity: str) -> int:
    with ctx.store.open(identity) as stream:
        return stream.seek(0, os.SEEK_END)


ENDPOINTS = (Endpoint("GET", "artifacts/list", list_run, on_run, reads=True),)

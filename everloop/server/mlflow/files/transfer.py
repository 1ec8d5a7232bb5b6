"""Artifacts in parts, and addresses to fetch or send one: what clients use for large files.

A multipart upload is a folder of `home/tmp`: each part is a file of its own, sent in any order and as often as need
be; completing it joins them into one object. "Presigned" addresses are this server's own: the headers that go with
them are those that the caller just presented, so that an address is worth no more than the caller's own permission.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from everloop.catalog.context import Context
from everloop.catalog.tracking import artifacts as stored
from everloop.catalog.tracking import logged, runs
from everloop.core.clock import DAY, SECOND
from everloop.core.errors import InvalidInput, NotFound, StorageFull
from everloop.server.mlflow.answers import json_answer
from everloop.server.mlflow.endpoint import call
from everloop.server.mlflow.files import artifacts
from everloop.server.mlflow.wire import Arguments, body_arguments

_MOST_PARTS = 10_000
_LARGEST_REQUEST = 4 << 20
_UPLOAD = re.compile(r"[0-9a-f]{32}")
_KEPT = 7 * DAY
"""How long the parts of an upload that nobody completes are kept."""
_SIGNED_FOR = 604_800
_ANSWERED = {"Cache-Control": "no-store"}


async def create(ctx: Context, request: Request) -> Response:
    """POST mpu/create/<folder>: begin an upload and say where each part goes."""
    args = await body_arguments(request, _LARGEST_REQUEST)
    path = _path(request, args)
    count = args.integer("num_parts", 1)
    if not 1 <= count <= _MOST_PARTS:
        raise InvalidInput(f"an upload has 1 to {_MOST_PARTS} parts, not {count}", hint="send larger parts")
    await run_in_threadpool(call, ctx, artifacts.CHECK, {"path": path})
    upload = await run_in_threadpool(_begin, ctx, path, count)
    base = f"{_here(request)}/mlflow-artifacts/mpu/parts/{upload}"
    credentials = [
        {"url": f"{base}/{number}", "part_number": number, "headers": _presented(request)}
        for number in range(1, count + 1)
    ]
    return json_answer({"upload_id": upload, "credentials": credentials}, headers=_ANSWERED)


async def part(ctx: Context, request: Request) -> Response:
    """PUT mpu/parts/<upload>/<number>: one part; sending it again replaces it."""
    folder = _folder(ctx, request.path_params["upload"])
    number = request.path_params["number"]
    meta = await run_in_threadpool(_meta, folder, ctx.project)
    await run_in_threadpool(call, ctx, artifacts.CHECK, {"path": meta["path"]})
    if not 1 <= number <= meta["parts"] or meta.get("done"):
        raise InvalidInput("no part of this upload", hint=f"parts have the numbers 1 to {meta['parts']}")
    name = folder / f"{number}.{secrets.token_hex(4)}.new"
    digest = blake2b(digest_size=16)
    try:
        with name.open("xb") as file:
            async for chunk in request.stream():
                digest.update(chunk)
                await run_in_threadpool(_write, file, chunk)
        await run_in_threadpool(os.replace, name, folder / f"{number}.part")
    finally:
        name.unlink(missing_ok=True)
    return json_answer({}, headers={"ETag": digest.hexdigest()})


async def complete(ctx: Context, request: Request) -> Response:
    """POST mpu/complete/<folder>: join the parts; asking again after it was done changes nothing."""
    args = await body_arguments(request, _LARGEST_REQUEST)
    path, folder = _path(request, args), _folder(ctx, args.text("upload_id"))
    sent = sorted((one.integer("part_number"), one.text("etag", "")) for one in args.parts("parts"))
    await run_in_threadpool(call, ctx, artifacts.CHECK, {"path": path})
    meta = await run_in_threadpool(_meta, folder, ctx.project)
    if meta["path"] != path:
        raise InvalidInput("this upload is for another artifact", hint="complete it under the path that it began with")
    if [number for number, _ in sent] != list(range(1, meta["parts"] + 1)):
        raise InvalidInput(f"this upload has the parts 1 to {meta['parts']}", hint="send all of them, then complete")
    if not meta.get("done"):
        identity, size = await run_in_threadpool(_join, ctx, folder, sent)
        await run_in_threadpool(call, ctx, artifacts.NAME, {"path": path, "object": identity, "size": size})
        await run_in_threadpool(_finish, folder, {**meta, "done": True})
    return json_answer({})


async def abort(ctx: Context, request: Request) -> Response:
    """POST mpu/abort/<folder>: forget the parts; an upload that is gone is passed over."""
    args = await body_arguments(request, _LARGEST_REQUEST)
    path, folder = _path(request, args), _folder(ctx, args.text("upload_id"))
    await run_in_threadpool(call, ctx, artifacts.CHECK, {"path": path})
    if folder.is_dir():
        meta = await run_in_threadpool(_meta, folder, ctx.project)
        if meta["path"] == path:
            await run_in_threadpool(shutil.rmtree, folder)
    return json_answer({})


async def presigned(ctx: Context, request: Request) -> Response:
    """GET mlflow-artifacts/presigned/<path>: where to fetch an artifact in ranges, with which headers, and its size."""
    path = request.path_params["path"]
    found = await run_in_threadpool(call, ctx, artifacts.FIND, {"path": path})
    answer = {"url": _address(request, path), "headers": _presented(request), "file_size": found["size"]}
    return json_answer(answer, headers=_ANSWERED)


async def upload_address(ctx: Context, request: Request) -> Response:
    """POST artifacts/presigned-upload-url: where to PUT an artifact of a run or a logged model."""
    args = await body_arguments(request, _LARGEST_REQUEST)
    run, model = args.text("run_id", ""), args.text("model_id", "")
    if bool(run) == bool(model):
        raise InvalidInput("Exactly one of run_id and model_id must be provided.", hint="name the artifact's owner")
    _check_expiration(args)
    path = await run_in_threadpool(_owned, ctx, run, model, args.text("path"))
    await run_in_threadpool(call, ctx, artifacts.CHECK, {"path": path})
    answer = {"presigned_url": _address(request, path), "headers": _presented(request)}
    return json_answer(answer, headers=_ANSWERED)


async def download_address(ctx: Context, request: Request) -> Response:
    """POST artifacts/presigned-download-url: where to fetch an artifact of a run."""
    args = await body_arguments(request, _LARGEST_REQUEST)
    _check_expiration(args)
    path = await run_in_threadpool(_owned, ctx, args.text("run_id"), "", args.text("path"))
    found = await run_in_threadpool(call, ctx, artifacts.FIND, {"path": path})
    answer = {"url": _address(request, path), "headers": _presented(request), "file_size": found["size"]}
    return json_answer({**answer, "presigned_url": answer["url"]}, headers=_ANSWERED)


def _check_expiration(args: Arguments) -> None:
    seconds = args.integer("expiration", 900)
    if not 1 <= seconds <= _SIGNED_FOR:
        raise InvalidInput(
            f"expiration must be between 1 and {_SIGNED_FOR} seconds (got {seconds}).", hint="a week at most"
        )


def _path(request: Request, args: Arguments) -> str:
    """The artifact's path: the folder of the address and the name of the client's local file."""
    folder = request.path_params["path"].strip("/")
    name = re.split(r"[/\\]", args.text("path"))[-1]
    return stored.checked_path(f"{folder}/{name}")


def _owned(ctx: Context, run: str, model: str, path: str) -> str:
    stored.checked_path(path)
    with ctx.read() as tx:
        if run:
            found = runs.find(tx, ctx.project, run)
            return f"{found.experiment}/{found.id}/artifacts/{path}"
        owner = logged.find(tx, ctx.project, model)
        return f"{owner.experiment}/models/{owner.id}/artifacts/{path}"


def _here(request: Request) -> str:
    """This server's address, by the name that the caller used."""
    return f"{str(request.base_url).rstrip('/')}/api/2.0"


def _address(request: Request, path: str) -> str:
    return str(request.base_url.replace(path=f"/api/2.0/mlflow-artifacts/artifacts/{path.strip('/')}"))


def _presented(request: Request) -> dict[str, str]:
    """The headers by which the caller was let in, to be sent along to the same server."""
    wanted = {"authorization": "Authorization", "x-mlflow-workspace": "X-MLFLOW-WORKSPACE"}
    return {shown: request.headers[name] for name, shown in wanted.items() if name in request.headers}


def _folder(ctx: Context, upload: str) -> Path:
    if _UPLOAD.fullmatch(upload) is None:
        raise NotFound("no such upload", hint="begin one: mpu/create")
    return ctx.home / "tmp" / f"mpu-{upload}"


def _begin(ctx: Context, path: str, count: int) -> str:
    upload = secrets.token_hex(16)
    folder = _folder(ctx, upload)
    folder.mkdir(parents=True)
    _finish(folder, {"project": ctx.project, "path": path, "parts": count, "done": False})
    for other in folder.parent.glob("mpu-*"):
        if ctx.wall() - int(other.stat().st_mtime) * SECOND > _KEPT:
            shutil.rmtree(other, ignore_errors=True)
    return upload


def _meta(folder: Path, project: str) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        meta = {}
    if meta.get("project") != project:
        raise NotFound("no such upload", hint="begin one: mpu/create")
    return meta


def _finish(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write what the upload is; one that is done keeps nothing else."""
    fresh = folder / "meta.new"
    fresh.write_text(json.dumps(meta), encoding="utf-8")
    fresh.replace(folder / "meta.json")
    if meta["done"]:
        for file in (*folder.glob("*.part"), *folder.glob("*.whole")):
            file.unlink(missing_ok=True)


def _join(ctx: Context, folder: Path, sent: Sequence[tuple[int, str]]) -> tuple[str, int]:
    """One object of all parts, in the order of their numbers; raises `InvalidInput` when one is missing or differs."""
    whole = folder / f"{secrets.token_hex(4)}.whole"
    try:
        with whole.open("xb") as target:
            for number, etag in sent:
                _append(folder / f"{number}.part", target, etag)
            size = target.tell()
        return ctx.store.put_file(whole, move=True), size
    except OSError as error:
        raise StorageFull(f"the upload cannot be joined: {error.strerror}", hint="free some space") from error
    finally:
        whole.unlink(missing_ok=True)


def _append(piece: Path, target: Any, etag: str) -> None:
    digest = blake2b(digest_size=16)
    try:
        with piece.open("rb") as source:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                target.write(chunk)
    except FileNotFoundError:
        raise InvalidInput(f"part {piece.stem} was never sent", hint="send it, then complete") from None
    if etag and etag.strip('"') != digest.hexdigest():
        raise InvalidInput(f"part {piece.stem} is not what was sent", hint="send it again, then complete")


def _write(file: Any, chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise StorageFull(f"the upload cannot be stored: {error.strerror}", hint="free some space") from error

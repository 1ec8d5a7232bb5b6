"""Files of a run: the tree, a look into one that can run nothing, and the bytes."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse

from everloop.core.errors import NotFound
from everloop.models.tracking.files import PICTURES
from everloop.server.web.views.tracking.run import page
from everloop.server.web.visit import Visit

_CHUNK = 1 << 16
_ROWS = 100
_LISTED = 1000
"""Entries of a directory that are listed."""


def tree(visit: Visit) -> Response:
    """All files, a directory at a time; one of them, if any is named, is looked into beside."""
    path = str(visit.request.path_params.get("path", "")).strip("/")
    run = visit.ask("runs.show", run=visit.part("run")).run
    preview, folder = None, path
    if path:
        try:
            preview = visit.ask("runs.preview", run=run.id, path=path, rows=_ROWS)
            folder = path.rpartition("/")[0]
        except NotFound:
            if not visit.ask("runs.files", run=run.id, path=path).entries:
                raise
    if preview is not None and preview.kind == "parquet":
        preview = visit.ask("runs.head", run=run.id, path=path, rows=_ROWS)
    return page(
        visit, "artifacts", run, preview=preview, path=path, branches=_branches(visit, run.id, folder), listed=_LISTED
    )


def raw(visit: Visit) -> Response:
    """The bytes of a file. Pictures are shown in place, all else is saved; nothing in it runs as a page of ours."""
    file = visit.ask("runs.file", run=visit.part("run"), path=visit.part("path"))
    kind = PICTURES.get(PurePosixPath(file.path).suffix.lower(), "")
    shown = bool(kind) and "download" not in visit.request.query_params
    return sent(visit, file.object, file.name, size=file.size, kind=kind if shown else "")


def sent(visit: Visit, identity: str, name: str, *, size: int | None = None, kind: str = "") -> Response:
    """The bytes of an object, streamed: of `kind` in place, or else to be saved under `name`."""
    headers = {
        **({} if size is None else {"Content-Length": str(size)}),
        "Content-Disposition": "inline" if kind else f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    body = iterate_in_threadpool(_read(visit.ctx.store.open(identity)))
    return StreamingResponse(body, headers=headers, media_type=kind or "application/octet-stream")


def _branches(visit: Visit, run: str, folder: str) -> list[tuple[int, Any]]:
    """The tree as it stands open: (depth, entry) of every directory on the way to `folder` and of what is in them."""
    rows: list[tuple[int, Any]] = [(0, entry) for entry in visit.ask("runs.files", run=run).entries[:_LISTED]]
    way = ""
    for depth, part in enumerate(part for part in folder.split("/") if part):
        way = f"{way}/{part}" if way else part
        place = next((index for index, (_, entry) in enumerate(rows) if entry.path == way and not entry.object), None)
        if place is None:
            break
        below = visit.ask("runs.files", run=run, path=way).entries[:_LISTED]
        rows[place + 1 : place + 1] = [(depth + 1, entry) for entry in below]
    return rows


def _read(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(_CHUNK):
            yield chunk

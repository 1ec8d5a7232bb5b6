"""Where an import writes: a workspace's files, or a server over HTTP; both through the same operations.

Bytes go first, into the store; a path names them afterwards. On a server that is the artifact proxy, so that nobody
names an object that they did not send.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

import httpx2

from everloop.catalog.context import Context
from everloop.catalog.operation import find_operation, invoke
from everloop.core.errors import EverloopError, StorageFull, Unavailable, from_problem
from everloop.models.importing.operations import NAME_FILE, NameFile

_PIECE = 1 << 20
_PATIENCE = 600.0


class Target(Protocol):
    """Takes what an import brings."""

    def call(self, name: str, /, **fields: Any) -> Any:
        """Run an operation; raises its errors."""
        ...

    def upload(self, place: str, owner: str, path: str, stream: BinaryIO) -> int:
        """Store a stream as a file of a run or model below `place` (`7/<run>` or `7/models/<model>`); its size."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """A workspace in this process, as the actor of a context."""

    ctx: Context

    def call(self, name: str, /, **fields: Any) -> Any:
        """Run an operation with its permission check and audit."""
        found = find_operation(name)
        return invoke(self.ctx, found, found.command(**fields))

    def upload(self, place: str, owner: str, path: str, stream: BinaryIO) -> int:  # noqa: ARG002 - a server needs it
        """Store a stream, then name it; the bytes are never held in memory. Raises `StorageFull`."""
        folder = self.ctx.home / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix="import-")
        file = Path(name)
        try:
            with os.fdopen(handle, "wb") as spool:
                _spool(stream, spool)
            size = file.stat().st_size
            found = self.ctx.store.put_file(file, move=True)
        finally:
            file.unlink(missing_ok=True)
        invoke(self.ctx, NAME_FILE, NameFile(owner=owner, path=path, object=found, size=size))
        return size


@dataclass(frozen=True, slots=True)
class There:
    """A project of a server: operations by `run`, files through its artifact proxy."""

    run: Callable[..., Any]
    url: str
    project: str
    token: str = field(default="", repr=False)

    def call(self, name: str, /, **fields: Any) -> Any:
        """Run an operation there."""
        return self.run(name, **fields)

    def upload(self, place: str, owner: str, path: str, stream: BinaryIO) -> int:  # noqa: ARG002 - `place` holds it
        """Send a stream piece by piece; raises what the server answers, `Unavailable` when it does not."""
        counted = _Counted(stream)
        headers = {"X-MLFLOW-WORKSPACE": self.project, "Content-Type": "application/octet-stream"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        address = f"{self.url.rstrip('/')}/api/2.0/mlflow-artifacts/artifacts/{quote(f'{place}/artifacts/{path}')}"
        try:
            answer = httpx2.put(address, content=_pieces(counted), headers=headers, timeout=_PATIENCE)
        except httpx2.TransportError as error:
            raise Unavailable(
                f"no answer from {self.url}: {error}", hint="start the import again; it goes on"
            ) from error
        if answer.status_code >= 400:
            raise _refusal(answer)
        return counted.size


def _spool(stream: BinaryIO, spool: BinaryIO) -> None:
    while piece := stream.read(_PIECE):
        try:
            spool.write(piece)
        except OSError as error:
            raise StorageFull(f"a file cannot be stored: {error.strerror}", hint="free some space") from error


class _Counted:
    """A stream that knows how much was read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = 0

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self.size += len(piece)
        return piece


def _pieces(stream: _Counted) -> Iterator[bytes]:
    while piece := stream.read(_PIECE):
        yield piece


def _refusal(answer: httpx2.Response) -> EverloopError:
    try:
        body = answer.json()
    except ValueError:
        body = {}
    told = body if isinstance(body, dict) else {}
    return from_problem({"detail": told.get("message", ""), **told}, answer.status_code)

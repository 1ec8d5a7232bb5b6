"""The prediction log: what was asked and answered, written before the reply that names it leaves.

A gateway appends each frame with one `write` to a segment of its own; the page cache keeps it when the
process is killed (with `fsync`, the disk keeps it when the machine stops). A frame that a crash tore
ends the segment; a new process never appends to an old segment.

    segment   home/serving/log/<gateway>/<12 digits>.seg
    frame     magic "EVL1"  length:u32  crc32:u32  MessagePack of `Entry`
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from everloop.core.clock import SECOND, Micros
from everloop.core.errors import StorageFull
from everloop.serving.columns import Columns, Layout, outputs_from, unpack_answer

MAGIC = b"EVL1"
HEADER = struct.Struct("<4sII")
SUFFIX = ".seg"
ERASED = "\0"
"""What fills the keys of a row that was erased."""
_FULL = {28, 122}  # ENOSPC, EDQUOT


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One answered request. `inputs` is what the model saw: request columns and looked-up features."""

    id: str
    at: Micros
    """Event time."""
    wall: Micros
    project: str
    endpoint: str
    revision: str
    rows: int
    layout: msgspec.Raw | list[list[str]]
    """`Layout.pairs` of the model's inputs."""
    inputs: bytes
    outputs: msgspec.Raw | list[list[object]]
    answer: bytes
    keys: dict[str, list[str]]
    """Entity keys of the request, as text."""
    micros: int
    """Time from the request's arrival to this frame."""
    fallback: str
    """The revision that was chosen first and failed; empty when the chosen one answered."""
    route: str
    """Which protocol asked: oip, invocations, predict."""
    stale: dict[str, str] = {}
    """Views that were too old or never filled, and what stood for them: `default` (values over no facts) or `serve`."""
    path: dict[str, str] = {}
    """What happened in the graph: shares that splitters took, steps whose default stood in or that were left out."""
    explained: tuple[str, list[str], bytes] | None = None
    """Where explained: the method, the inputs, and `base` (n), `output` (n), `values` (n, k) as 64 bit floats."""

    def explanation(self) -> list[dict[str, Any]]:
        """Of each row `{method, base, output, values: {input: what it adds}}`; empty when none was asked for."""
        if self.explained is None:
            return []
        method, names, payload = self.explained
        return explanations(method, names, payload, self.rows)

    def columns(self) -> Columns:
        """The model's inputs, decoded."""
        return Layout.from_pairs(_decoded(self.layout)).unpack(self.inputs, self.rows)

    def answers(self) -> dict[str, list[object]]:
        """The outputs, decoded: one value (or list) a row."""
        decoded = unpack_answer(outputs_from(_decoded(self.outputs)), self.answer, self.rows)
        return {name: array.tolist() for name, array in decoded.items()}

    def erased(self, row: int) -> bool:
        """Whether an erasure took this row: nothing of it is left but its place."""
        return any(values[row][:1] == ERASED for values in self.keys.values())

    def row_ids(self) -> list[str]:
        """The prediction ids: the request's own for one row, `<id>.<row>` for several."""
        return [self.id] if self.rows == 1 else [f"{self.id}.{row}" for row in range(self.rows)]


def explanations(method: str, names: list[str], payload: bytes, rows: int) -> list[dict[str, Any]]:
    """What an explainer answered, row by row."""
    table = np.frombuffer(payload, "<f8")
    values = table[2 * rows :].reshape(rows, len(names)).tolist()
    pairs = zip(table[:rows].tolist(), table[rows : 2 * rows].tolist(), values, strict=True)
    return [
        {"method": method, "base": base, "output": output, "values": dict(zip(names, of_row, strict=True))}
        for base, output, of_row in pairs
    ]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_plain = msgspec.msgpack.Decoder().decode


def _decoded(value: object) -> list[list[str]]:
    plain: list[list[str]] = _plain(value) if isinstance(value, msgspec.Raw) else value  # type: ignore[assignment]
    return plain


def raw(value: object) -> msgspec.Raw:
    """`value` encoded once, to be placed into many entries."""
    return msgspec.Raw(_encode(value))


def frame(entry: Entry) -> bytes:
    """The bytes of one frame."""
    content = _encode(entry)
    return HEADER.pack(MAGIC, len(content), zlib.crc32(content)) + content


class Appender:
    """Writes one gateway's segments; not shared between processes or threads."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        max_age: Micros = 3600 * SECOND,
        fsync: bool = False,
    ) -> None:
        """Append to a new segment in `folder` with the first frame; older segments stay as they are."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes, self._max_age, self._fsync = max_bytes, max_age, fsync
        self._descriptor = -1
        self._size = 0
        self._opened: Micros = 0
        self._next = 1 + max((int(path.stem) for path in segments(folder)), default=0)

    def append(self, entry: Entry) -> None:
        """Write one frame; when this returns, the frame survives the process. Raises `StorageFull`."""
        content = frame(entry)
        if (
            self._descriptor < 0
            or self._size + len(content) > self._max_bytes
            or entry.wall - self._opened > self._max_age
        ):
            self._rotate(entry.wall)
        try:
            written = os.write(self._descriptor, content)
            if written == len(content) and self._fsync:
                os.fdatasync(self._descriptor)
        except OSError as error:
            self._undo()
            raise _as_ours(error) from error
        if written != len(content):
            self._undo()
            raise StorageFull("the prediction log is full", hint="free space on the disk of the workspace's home")
        self._size += written

    def _undo(self) -> None:
        """Cut off what a failed write left, so that the next frame follows a whole one."""
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self.close()  # the torn frame ends this segment; the next frame opens another

    def _rotate(self, now: Micros) -> None:
        self.close()
        while self._descriptor < 0:
            path = self._folder / f"{self._next:012d}{SUFFIX}"
            try:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass  # a gateway of this name that is just ending made it: never write to one segment together
            except OSError as error:
                raise _as_ours(error) from error
            self._next += 1
        self._size, self._opened = 0, now

    def close(self) -> None:
        """Close the segment; the next frame opens another."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _as_ours(error: OSError) -> Exception:
    if error.errno in _FULL:
        return StorageFull("the prediction log is full", hint="free space on the disk of the workspace's home")
    return StorageFull(f"the prediction log cannot be written: {error}", hint="check the workspace's home")


def segments(folder: Path) -> list[Path]:
    """The segments of one gateway, oldest first."""
    return sorted(path for path in folder.glob("*" + SUFFIX) if path.stem.isdigit())


def read(content: bytes, offset: int = 0) -> Iterator[tuple[int, int, Entry]]:
    """Yield (offset, offset behind it, entry) of every whole frame; stop at the first torn or damaged one."""
    while offset + HEADER.size <= len(content):
        magic, length, checksum = HEADER.unpack_from(content, offset)
        end = offset + HEADER.size + length
        body = content[offset + HEADER.size : end]
        if magic != MAGIC or end > len(content) or zlib.crc32(body) != checksum:
            return
        try:
            entry = _decode(body)
        except msgspec.MsgspecError:
            return
        yield offset, end, entry
        offset = end

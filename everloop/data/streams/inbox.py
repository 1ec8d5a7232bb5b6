"""The inbox of a pushed feed: batches as they came, in files that one server process appends to and consumers delete.

A frame is its lengths and checksum, a header in JSON, and the body as it was sent. A batch is acknowledged when its
frame was written (and synced, by setting): it then survives the death of any process. A file ends where its last whole
frame ends; what a server that died left half written was never acknowledged.
"""

import errno
import fcntl
import json
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from everloop.core.errors import StorageFull, Unavailable

_FRAME = struct.Struct("<4sIII")  # mark, length of the header, of the body, CRC-32 of both
_MARK = b"EVF1"
FILE_BYTES = 8 << 20
"""A file of this size is finished; the next frame begins another."""
FILE_SECONDS = 10.0
"""So is one of this age."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Frame:
    """One batch in a file."""

    header: Mapping[str, Any]
    body: bytes
    end: int
    """Where the next frame begins."""


def inbox(home: Path, project: str, environment: str, name: str) -> Path:
    """The folder of a feed."""
    return home / "feeds" / quote(project, safe="") / quote(environment, safe="") / quote(name, safe="")


def inboxes(home: Path) -> list[tuple[str, str, str]]:
    """Project, environment and name of every feed that has an inbox."""
    found = sorted((home / "feeds").glob("*/*/*"))
    return [(unquote(p.parent.parent.name), unquote(p.parent.name), unquote(p.name)) for p in found if p.is_dir()]


def waiting(folder: Path) -> int:
    """Bytes in an inbox, read or not: files go when they are read."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.name.endswith(".seg"))
    except FileNotFoundError:
        return 0


def length_of(header: Mapping[str, Any], body: bytes) -> int:
    """Bytes that a batch takes in a file at least."""
    return _FRAME.size + len(json.dumps(header, separators=(",", ":")).encode()) + len(body)


def framed(header: Mapping[str, Any], body: bytes, size: int = 0) -> bytes:
    """A batch as a file holds it, of `size` bytes at least: blanks behind the header make up for the rest."""
    told = json.dumps(header, separators=(",", ":")).encode()
    told += b" " * (size - _FRAME.size - len(told) - len(body))
    return _FRAME.pack(_MARK, len(told), len(body), zlib.crc32(body, zlib.crc32(told))) + told + body


class InboxWriter:
    """Appends to the inbox of one feed; safe to use from many threads of one process."""

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        """Nothing is written before the first batch."""
        self._folder, self._fsync = folder, fsync
        self._lock = threading.Lock()
        self._file, self._size, self._born = -1, 0, 0.0

    def append(self, header: Mapping[str, Any], body: bytes) -> None:
        """Write one batch; raises `StorageFull` or `Unavailable`, and then none of it counts."""
        frame = framed(header, body)
        with self._lock:
            try:
                self._turn()
                self._write(frame)
            except OSError as error:
                self._cut_off()
                if error.errno in _FULL:
                    raise StorageFull("no space is left for what is fed", hint="make room, send it again") from error
                raise Unavailable(f"the inbox cannot be written: {error}", hint="send it again later") from error
            self._size += len(frame)

    def close(self) -> None:
        """Finish the file at hand; the next batch begins another."""
        with self._lock:
            self._close()

    def _turn(self) -> None:
        full = self._size >= FILE_BYTES or time.monotonic() - self._born > FILE_SECONDS
        if self._file >= 0 and not full:
            return
        self._close()
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{os.getpid()}.seg"  # names sort by time and never come again
        hidden = self._folder / f".{name}"  # nobody sees a file before it is locked: unlocked means finished
        self._file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        hidden.rename(self._folder / name)
        if self._fsync:
            _sync_folder(self._folder)
        self._size, self._born = 0, time.monotonic()

    def _write(self, frame: bytes) -> None:
        view = memoryview(frame)
        while view:
            view = view[os.write(self._file, view) :]
        if self._fsync:
            os.fdatasync(self._file)

    def _cut_off(self) -> None:
        """Take half a frame back."""
        if self._file >= 0:
            os.ftruncate(self._file, self._size)
            self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files(folder: Path) -> list[Path]:
    """The files of an inbox, oldest first."""
    return sorted(folder.glob("*.seg"))


def frames(path: Path, start: int, largest: int) -> Iterator[Frame]:
    """Whole frames from a position on, of `largest` bytes together or a little more; none is given twice."""
    with path.open("rb") as file:
        file.seek(start)
        end = start
        while end - start < largest:
            head = file.read(_FRAME.size)
            if len(head) < _FRAME.size:
                return
            mark, told, sent, check = _FRAME.unpack(head)
            content = file.read(told + sent) if mark == _MARK else b""
            if mark != _MARK or len(content) < told + sent or zlib.crc32(content) != check:
                return
            end += _FRAME.size + told + sent
            yield Frame(json.loads(content[:told]), content[told:], end)


def is_finished(path: Path) -> bool:
    """Whether nobody will append to a file any more: its writer closed it, or died."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True

"""Files of a folder, for readers: no link is followed, nothing outside of the folder is opened."""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from everloop.core.errors import InvalidInput, NotFound
from everloop.models.importing.values import ImportedFile, Unmapped

_DEPTH = 64
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\%:\ud800-\udfff]")


def files_below(root: Path, below: str = "", *, kind: str = "file") -> Iterator[ImportedFile | Unmapped]:
    """Every plain file of a folder, by path, each with the prefix `below`; links and special files are reported."""
    yield from _walk(root, below.strip("/"), kind, 0)


def file_at(path: Path, name: str) -> ImportedFile | Unmapped:
    """One file by its path, to be known as `name`; what is no plain file is reported."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return Unmapped("file", name, "it is not where the source says")
    if not stat.S_ISREG(found.st_mode):
        return Unmapped("file", name, _what(found.st_mode))
    return ImportedFile(name, partial(open_plain, path), found.st_size)


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file to read; raises `NotFound`, and `InvalidInput` for a link or a special file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path.name}", hint="was it moved meanwhile?") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path.name} cannot be read: {error}", hint="a plain file is needed") from None
    stream = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        stream.close()
        raise InvalidInput(f"{path.name} is no plain file", hint="links and special files are not followed")
    return stream


def safe_path(name: str) -> str:
    """The name of a series or attribute as a file's path: its parts stay, what could lead elsewhere does not."""
    parts = [_UNSAFE.sub("_", part)[:100] for part in name.split("/") if part]
    return "/".join(part if part.strip(".") else "_" for part in parts)[:700].strip("/") or "_"


class Tails:
    """Files of JSON lines that are written while a log is read: texts and histograms come there in pieces."""

    def __init__(self, scratch: Path, below: str) -> None:
        """Collect in a folder of `scratch`; paths begin with `below`."""
        self._folder = TemporaryDirectory(dir=scratch)
        self._below = below
        self._paths: dict[str, Path] = {}

    def add(self, kind: str, name: str, row: Mapping[str, Any]) -> None:
        """Append a line to the file of a series."""
        place = f"{self._below}/{safe_path(kind)}/{safe_path(name)}.jsonl"
        path = self._paths.setdefault(place, Path(self._folder.name) / str(len(self._paths)))
        with path.open("a", encoding="utf-8", errors="replace") as stream:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    def files(self) -> Iterator[ImportedFile]:
        """The files, whole."""
        for name, path in sorted(self._paths.items()):
            yield ImportedFile(name, partial(open_plain, path), path.stat().st_size)

    def close(self) -> None:
        """Remove them."""
        self._folder.cleanup()


def inside(root: Path, path: Path) -> bool:
    """Whether a path, with all links on its way resolved, lies in a folder."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError):
        return False


def _walk(folder: Path, below: str, kind: str, depth: int) -> Iterator[ImportedFile | Unmapped]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Unmapped(kind, below or folder.name, f"its folder cannot be read: {error.strerror}")
        return
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_symlink():
            yield Unmapped(kind, name, _what(stat.S_IFLNK))
        elif entry.is_dir(follow_symlinks=False):
            if depth >= _DEPTH:
                yield Unmapped(kind, name, "folders in folders too deep")
            else:
                yield from _walk(Path(entry.path), name, kind, depth + 1)
        else:
            yield file_at(Path(entry.path), name)


def _what(mode: int) -> str:
    return "a symbolic link; links are not followed" if stat.S_ISLNK(mode) else "no plain file"

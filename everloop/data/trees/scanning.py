"""Looking at a folder: which files a pattern means now, and what the file system says of each. Nothing is read."""

import os
import re
import stat
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from everloop.core.errors import DataError, NotFound, Unavailable
from everloop.core.ids import PREFIX
from everloop.data.trees.paths import checked_path, matcher

STAMP = np.dtype([("size", "<i8"), ("mtime", "<i8"), ("ctime", "<i8"), ("inode", "<i8")])
"""What tells whether a file changed: bytes, times of change in nanoseconds, inode."""
_INODE = 2**63 - 1
_KIND = 0o170000
"""The bits of a mode that say what kind of thing it is."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_FILE = (-1, 0, 0, 0)
_parts_of = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
FINE, COARSE = 100_000_000, 2_000_000_000
"""Nanoseconds within which a file may change and keep its times: of file systems that count fractions of seconds, and
of those that do not."""

Array = np.ndarray[Any, Any]


def stamp_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """The stamp of a file."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _INODE


def racy(stamps: Array, taken: int) -> Array:
    """Which files were written so shortly before `taken` (nanoseconds) that another write might leave the same stamp.

    It is the rule of git's index. The time of change counts in the stamp, but not here: setting the time of a file
    back, as copying does, changes it, and a write after that gives a time of its own.
    """
    window = np.where(stamps["mtime"] % 1_000_000_000 == 0, COARSE, FINE)
    return np.asarray(stamps["mtime"] > taken - window)


@dataclass(frozen=True)
class Listing:
    """The files of a folder at a moment, in order of path."""

    root: Path
    paths: Sequence[str]
    stamps: Array
    taken: int
    """When it was looked, in nanoseconds since the epoch."""
    links: dict[str, str] = field(default_factory=dict)
    """Where the paths that are links to files of the folder lead."""

    @cached_property
    def digest(self) -> str:
        """The same as long as no file came, went or changed. It is never the same when one changed only just now."""
        unsure = racy(self.stamps, self.taken)
        names = "\0".join(self.paths).encode()
        hasher = blake3(b"tree 1\0" + len(names).to_bytes(8, "little") + names + self.stamps.tobytes())
        if unsure.any():
            hasher.update(self.taken.to_bytes(8, "little"))
        return PREFIX + hasher.hexdigest()

    def file(self, path: str) -> str:
        """Where to read a path."""
        return self.links.get(path) or f"{self.root}/{path}"

    def without(self, path: str) -> "Listing":
        """The same without one path, if it is there."""
        at = bisect_left(self.paths, path)
        if self.paths[at : at + 1] != [path]:
            return self
        paths = [*self.paths[:at], *self.paths[at + 1 :]]
        return replace(self, paths=paths, stamps=np.delete(self.stamps, at))


def look(root: Path, *, taken: int) -> Listing:
    """List everything below `root`, hidden files too; what is no regular file has the size -1 and raises nothing."""
    walk = _Walk(os.path.realpath(root), None, [], "**/.", strict=False)
    return _listed(walk, root, taken)


def scan(root: Path, pattern: str = "**", exclude: Sequence[str] = (), *, taken: int) -> Listing:
    """List the regular files below `root` that `pattern` means and none of `exclude` does, at the time `taken`.

    Links to files within the folder count as these files. Raises `DataError` for other links, for sockets, pipes and
    devices, and for names that are no UTF-8; `NotFound` when there is no such folder.
    """
    return _listed(_Walk(os.path.realpath(root), matcher(pattern), [matcher(e) for e in exclude], pattern), root, taken)


def _listed(walk: "_Walk", root: Path, taken: int) -> Listing:
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no folder {root}", hint="paths are relative to the project's folder") from None
    except OSError as error:
        raise _unreadable(str(root), error) from error
    walk.below(descriptor, "", 0)
    found = walk.found
    found.sort()
    return Listing(Path(root), [path for path, _ in found], _stamps(map(itemgetter(1), found)), taken, walk.links)


def _stamps(found: Iterable[tuple[int, int, int, int]]) -> Array:
    """Stamps as an array; `numpy` would take twice the time to make it of tuples."""
    numbers = list(chain.from_iterable(found))
    try:
        return np.array(numbers, np.int64).view(STAMP)
    except OverflowError:  # inodes of 64 bits
        numbers[3::4] = [inode & _INODE for inode in numbers[3::4]]
        return np.array(numbers, np.int64).view(STAMP)


@dataclass(slots=True)
class _Walk:
    """One walk: folders are opened relative to each other and never through links, so nothing leads out."""

    root: str
    wanted: re.Pattern[str] | None
    """None: everything."""
    unwanted: list[re.Pattern[str]]
    pattern: str
    strict: bool = True
    found: list[tuple[str, tuple[int, int, int, int]]] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)

    def below(self, descriptor: int, prefix: str, depth: int) -> None:
        """Find what lies in an open folder, which is closed then."""
        deeper = "**" in self.pattern or depth < self.pattern.count("/")
        dots = self.pattern.startswith(".") or "/." in self.pattern
        found, unwanted = self.found, self.unwanted
        wanted = self.wanted.match if self.wanted is not None else None
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if unwanted and any(pattern.match(path) for pattern in unwanted):
                        continue
                    if entry.is_file(follow_symlinks=False):  # first, for nearly all are
                        if wanted is None or wanted(path):
                            found.append(self._file(entry, path))
                    elif entry.is_dir(follow_symlinks=False):
                        if deeper and (dots or not entry.name.startswith(".")):
                            below = os.open(entry.name, _FOLDER, dir_fd=descriptor)
                            self.below(below, f"{path}/", depth + 1)
                    elif entry.is_symlink():
                        self._link(path, deeper=deeper)
                    elif wanted is None or wanted(path):
                        found.append(self._file(entry, path))
        except OSError as error:
            raise _unreadable(f"{self.root}/{prefix}", error) from error
        finally:
            os.close(descriptor)

    def _file(self, entry: "os.DirEntry[str]", path: str) -> tuple[str, tuple[int, int, int, int]]:
        status = entry.stat(follow_symlinks=False)
        if status.st_mode & _KIND != stat.S_IFREG:
            if not self.strict:
                return path, _NO_FILE
            raise DataError(
                f"{self.root}/{path} is {_kind(status.st_mode)}, no file",
                hint="move it out of the folder, or name it in exclude=",
            )
        return checked_path(path) if self.strict else path, _parts_of(status)

    def _link(self, path: str, *, deeper: bool) -> None:
        if not self.strict:
            self.found.append((path, _NO_FILE))
            return
        full = f"{self.root}/{path}"
        target = os.path.realpath(full)
        try:
            status = Path(target).stat(follow_symlinks=False)
        except OSError:
            status = None
        if status is not None and stat.S_ISDIR(status.st_mode):
            if deeper:
                raise DataError(f"{full} is a link to a folder", hint="name it in exclude=, or put the folder there")
            return
        if self.wanted is not None and not self.wanted.match(path):
            return
        if not target.startswith(self.root + "/"):
            raise DataError(
                f"{full} is a link that leads out of the folder", hint="copy the file there, or name it in exclude="
            )
        if status is None or not stat.S_ISREG(status.st_mode):
            raise DataError(f"{full} is a link to no file", hint="mend it, or name it in exclude=")
        self.links[checked_path(path)] = target
        self.found.append((path, stamp_of(status)))


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a device"))
    return next((name for is_, name in kinds if is_(mode)), "a device")


def _unreadable(path: str, error: OSError) -> Exception:
    if isinstance(error, PermissionError):
        return DataError(f"{path} may not be read", hint="check its permissions")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DataError(f"{path} changed while it was listed", hint="capture it when its writer is done")
    return Unavailable(f"{path} cannot be listed: {error.strerror}", hint="check the disk")

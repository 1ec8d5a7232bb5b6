"""Writing objects: first whole in `tmp/`, then by one rename into place. A name that is taken has the same bytes."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from everloop.core.errors import DataError, NotFound
from everloop.core.ids import PREFIX, fresh_id, object_id
from everloop.store.layout import TEMPORARY, file_of, guarded, place_of
from everloop.store.sweep import shared
from everloop.store.verify import digest_file

_READ_ONLY = 0o444
_PIECE = 1 << 20
_AT_ONCE = 1 << 30
_ELSEWHERE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
"""The kernel does not copy between these two files itself: other disks, special files, an old kernel, a sandbox."""


def put_bytes(root: Path, content: bytes, *, fsync: bool) -> str:
    """Store bytes and return their id."""
    identity = object_id(content)
    if _renewed(root, identity, len(content)):
        return identity
    file = place_of(root, identity)
    temporary = f"{root}/{TEMPORARY}/{fresh_id('put')}"
    with guarded(root):  # system calls and no more: short steps write many small objects
        with ExitStack() as undo:
            undo.callback(_forgotten, temporary)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _READ_ONLY)
            try:
                left = memoryview(content)
                while left:
                    left = left[os.write(descriptor, left) :]
                if fsync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            _named(temporary, file)
            undo.pop_all()
        if fsync:
            _sync(Path(file).parent)
    return identity


def _forgotten(temporary: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # noqa: PTH108


def _named(temporary: str, file: str) -> None:
    try:
        os.rename(temporary, file)  # noqa: PTH104 - over the same content at most, or over a damaged file
    except FileNotFoundError:  # the first object of its folder
        with suppress(FileExistsError):
            os.mkdir(os.path.dirname(file))  # noqa: PTH102, PTH120
        os.rename(temporary, file)  # noqa: PTH104


def put_stream(root: Path, stream: BinaryIO, *, fsync: bool) -> str:
    """Store what is left in a stream and return its id; it is hashed on the way."""

    def fill(target: BinaryIO) -> str:
        hasher = blake3()
        while piece := stream.read(_PIECE):
            hasher.update(piece)
            target.write(piece)
        return PREFIX + hasher.hexdigest()

    return _write(root, fill, fsync=fsync)


def put_file(root: Path, path: Path, *, move: bool, fsync: bool, known: str = "") -> str:
    """Store a file's bytes and return their id, which is `known` to who hashed the file that moves while writing it.

    With `move`, a file on the same disk is renamed into place and not copied; whoever wrote it must be done with it. A
    file that stays is copied, never linked: a later edit of it would change the object. Raises `NotFound`.
    """
    try:
        if not move or path.is_symlink() or path.stat().st_nlink > 1 or path.stat().st_dev != root.stat().st_dev:
            with path.open("rb") as source:
                identity = _write(root, lambda target: _copied(source, target), fsync=fsync)
            if move:
                path.unlink()
            return identity
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", hint="check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder", hint="store its files one by one") from None
    with guarded(root):
        # first out of its writer's reach, then hashed: what is linked is what was hashed
        taken = root / TEMPORARY / fresh_id("put")
        path.rename(taken)
        taken.chmod(_READ_ONLY)
        os.utime(taken)
        if fsync:
            _sync(taken)
        return _place(root, taken, known or digest_file(taken), fsync=fsync)


def _copied(source: BinaryIO, target: BinaryIO) -> str:
    """Copy a file inside the kernel, where that goes, and hash the copy: what is stored is what was hashed."""
    try:
        while os.copy_file_range(source.fileno(), target.fileno(), _AT_ONCE):
            pass
    except OSError as error:
        if error.errno not in _ELSEWHERE:
            raise
    shutil.copyfileobj(source, target, _PIECE)  # what is left, which is all of it between some kinds of disks
    target.flush()
    return digest_file(Path(target.name))


def _write(root: Path, fill: Callable[[BinaryIO], str], *, fsync: bool) -> str:
    temporary = root / TEMPORARY / fresh_id("put")
    with guarded(root):
        try:
            with temporary.open("xb") as stream:
                identity = fill(stream)
                stream.flush()
                os.fchmod(stream.fileno(), _READ_ONLY)
                if fsync:
                    os.fsync(stream.fileno())
            return _place(root, temporary, identity, fsync=fsync)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


def _place(root: Path, temporary: Path, identity: str, *, fsync: bool) -> str:
    file = file_of(root, identity)
    if _renewed(root, identity, temporary.stat().st_size):
        temporary.unlink()
        return identity
    file.parent.mkdir(exist_ok=True)
    temporary.rename(file)  # over the same content at most, or over a damaged file
    if fsync:
        _sync(file.parent)
    return identity


def _renewed(root: Path, identity: str, size: int) -> bool:
    """Whether the object is here already; its time is set to now, so that no sweep takes it from under the caller.

    One of another size was cut short by a fall of the machine: it counts as absent, and is written again.
    """
    file = place_of(root, identity)
    if not os.path.exists(file):  # noqa: PTH110 - asked of every small object
        return False
    with shared(root):
        try:
            if os.stat(file).st_size != size:  # noqa: PTH116
                return False
            os.utime(file)
        except FileNotFoundError:
            return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

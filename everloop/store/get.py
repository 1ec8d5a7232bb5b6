"""Reading objects. What is read whole is verified; of a part, the caller knows what it must be."""

import os
from pathlib import Path
from typing import BinaryIO

from everloop.core.errors import NotFound
from everloop.core.ids import object_id
from everloop.store.layout import file_of, guarded, place_of
from everloop.store.verify import demand, digest_file


def read(root: Path, identity: str) -> bytes:
    """The bytes of an object; raises `NotFound` or `CorruptObject`."""
    file = place_of(root, identity)
    with guarded(root):
        try:
            with open(file, "rb", buffering=0) as stream:  # noqa: PTH123 - short steps read many small objects
                content = stream.readall()
        except FileNotFoundError:
            raise _absent(root, identity) from None
    demand(identity, object_id(content))
    return content


def stream(root: Path, identity: str) -> BinaryIO:
    """A stream of the object's bytes, all of them verified before the first is given."""
    found = path(root, identity)
    if found is None:
        raise _absent(root, identity)
    with guarded(root):
        return found.open("rb")


def path(root: Path, identity: str) -> Path | None:
    """The object's file, verified now; None when it is not here. Raises `CorruptObject`."""
    file = file_of(root, identity)
    with guarded(root):
        try:
            found = digest_file(file)
        except FileNotFoundError:
            return None
    demand(identity, found)
    return file


def read_range(root: Path, identity: str, start: int, length: int) -> bytes:
    """`length` bytes of an object from `start` on (fewer at its end), not verified; raises `NotFound`."""
    with guarded(root):
        try:
            descriptor = os.open(file_of(root, identity), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _absent(root, identity) from None
        try:
            return os.pread(descriptor, length, start)
        finally:
            os.close(descriptor)


def size(root: Path, identity: str) -> int:
    """Bytes that the object has; raises `NotFound`."""
    with guarded(root):
        try:
            return file_of(root, identity).stat().st_size
        except FileNotFoundError:
            raise _absent(root, identity) from None


def _absent(root: Path, identity: str) -> NotFound:
    return NotFound(f"object {identity} is not in {root}", hint="it was erased or swept, or lies in another store")

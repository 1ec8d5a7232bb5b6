"""Where things lie in a store's folder, and what the operating system's errors mean there.

`ab/cdef…` holds the object `b3:abcdef…`, read-only; `tmp/` holds what is being written; `lock` keeps a sweep and a
renewal of the same object apart.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from everloop.core.errors import EverloopError, StorageFull, Unavailable
from everloop.core.ids import PREFIX, checked_id, is_id

TEMPORARY = "tmp"
LOCK = "lock"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def file_of(root: Path, identity: str) -> Path:
    """Where the object lies, if it is here; raises `InvalidInput` for what is no id (so for `..` too)."""
    digits = checked_id(identity).removeprefix(PREFIX)
    return root / digits[:2] / digits[2:]


def place_of(root: Path, identity: str) -> str:
    """The same as `file_of`, as a text: for what is asked of every step."""
    digits = checked_id(identity).removeprefix(PREFIX)
    return f"{root}/{digits[:2]}/{digits[2:]}"


def identity_of(file: Path) -> str | None:
    """The id of the object in `file`; None when it does not have the name of one."""
    identity = PREFIX + file.parent.name + file.name
    return identity if is_id(identity) else None


@contextmanager
def guarded(root: Path) -> Iterator[None]:
    """Turn the operating system's errors in the block into errors of the tree."""
    try:
        yield
    except OSError as error:
        raise translated(error, root) from error


def translated(error: OSError, root: Path) -> EverloopError:
    """The error of the tree for an `OSError` in the store at `root`."""
    if error.errno in _FULL:
        return StorageFull(
            f"no space is left in the object store {root}", hint="free some space; nothing was half written"
        )
    return Unavailable(f"the object store {root} fails: {error.strerror}", hint="check the folder and its permissions")
